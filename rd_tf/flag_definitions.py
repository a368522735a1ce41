"""Every command-line flag, defined once, so that a flag means the same in every command."""

import dataclasses
import math
import os
from collections.abc import Callable
from typing import Any

from absl import flags

Define = Callable[[flags.FlagValues], Any]


class _FiniteFloat(flags.FloatParser):
    """absl's bounds let NaN through, and infinity where there is no upper bound; neither fits a manifest."""

    def convert(self, argument: Any) -> float:
        value = super().convert(argument)
        if not math.isfinite(value):
            raise ValueError(f"{argument} is not a finite number")
        return value


def _text(name: str, default: str, help_: str) -> tuple[str, Define]:
    return name, lambda values: flags.DEFINE_string(name, default, help_, flag_values=values)


def _choice(name: str, default: str, choices: list[str], help_: str) -> tuple[str, Define]:
    return name, lambda values: flags.DEFINE_enum(name, default, choices, help_, flag_values=values)


class _Path(flags.ArgumentParser):
    """A path, or several with commas between them, whose `~` or `~user` at the beginning is a home directory."""

    def __init__(self, several: bool = False) -> None:
        self._several = several

    def parse(self, argument: str) -> str:
        parts = argument.split(",") if self._several else [argument]
        return ",".join(_expanded(part) for part in parts)


class _Paths(flags.ListParser):
    def parse(self, argument: str | list[str]) -> list[str]:
        return [_expanded(path) for path in super().parse(argument)]


def _expanded(path: str) -> str:
    # Not pathlib's, which takes a slash out of a URL and one off the end.
    found = os.path.expanduser(path)  # noqa: PTH111
    if found.startswith("~"):
        raise ValueError(f"{path.split('/')[0]} is nobody's home directory; for a file of that name write ./{path}")
    return found


def path_flag(name: str, default: str, help_: str) -> tuple[str, Define]:
    """A flag that is a path."""
    return name, lambda values: flags.DEFINE(_Path(), name, default, help_, flag_values=values)


def _paths(name: str, default: list[str], help_: str) -> tuple[str, Define]:
    return name, lambda values: flags.DEFINE(_Paths(), name, default, help_, flag_values=values)


def _teachers(name: str, default: str, help_: str) -> tuple[str, Define]:
    return name, lambda values: flags.DEFINE(_Path(several=True), name, default, help_, flag_values=values)


def _switch(name: str, default: bool, help_: str) -> tuple[str, Define]:
    return name, lambda values: flags.DEFINE_bool(name, default, help_, flag_values=values)


def _whole(name: str, default: int, low: int, help_: str, high: int = 2**31 - 1) -> tuple[str, Define]:
    return name, lambda values: flags.DEFINE_integer(name, default, help_, low, high, flag_values=values)


def _real(name: str, default: float, low: float, help_: str, high: float | None = None) -> tuple[str, Define]:
    parser = _FiniteFloat(low, high)
    return name, lambda values: flags.DEFINE(parser, name, default, help_, flag_values=values)


def _texts(name: str, default: list[str], help_: str) -> tuple[str, Define]:
    return name, lambda values: flags.DEFINE_list(name, default, help_, flag_values=values)


SPLITS = ["validation", "test", "all", "rehearsal"]
# Those that settings may be chosen on: the best epoch is kept, and trainings may stop early.
CHOOSING_SPLITS = ("validation", "rehearsal")
SPLIT_RULES = ("ratio", "last", "time")
SEEN_ITEMS = ("exclude", "keep")


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What is held out, and whether a user may be listed items that they know; manifests have its name as `split`.

    Attributes:
        part: one of `SPLITS`.
        by: one of `SPLIT_RULES`; see `rd_tf.data.windows.split_interactions`.
        seen_items: "exclude", a user's training items are in no list and no targets; "keep", they are like any other.
    """

    part: str
    by: str = "ratio"
    seen_items: str = "exclude"

    def __post_init__(self) -> None:
        for what, value, known in (
            ("split", self.part, SPLITS),
            ("by", self.by, SPLIT_RULES),
            ("seen_items", self.seen_items, SEEN_ITEMS),
        ):
            if value not in known:
                raise ValueError(f"{what} must be one of {', '.join(known)}; received {value!r}")

    @classmethod
    def of(cls, name: str) -> "Protocol":
        """The protocol of a name, such as "test", "validation/last" or "test/keep".

        Raises:
            ValueError: it is no such name.
        """
        part, *others = name.split("/")
        by = others.pop(0) if others and others[0] in SPLIT_RULES else "ratio"
        found = cls(part, by, others.pop(0) if others else "exclude")
        if found.name != name:
            raise ValueError(f"{name!r} is no name of a split; it is such as 'test', 'validation/last' or 'test/keep'")
        return found

    @property
    def name(self) -> str:
        """What is not the default is named."""
        others = [self.by] * (self.by != "ratio") + ["keep"] * (self.seen_items == "keep")
        return "/".join([self.part, *others])

    @property
    def flags(self) -> str:
        """As flags, for messages."""
        by = f" --split_by={self.by}" if self.by != "ratio" else ""
        return f"--split={self.part}{by}" + (" --seen_items=keep" if self.seen_items == "keep" else "")

    @property
    def keeps_seen(self) -> bool:
        return self.seen_items == "keep"

    def trains_as(self, name: str) -> bool:
        """Whether the protocol of that name has the same training rows."""
        other = Protocol.of(name)
        return (self.part, self.by) == (other.part, other.by)

    def mask(self, mask: str) -> str:
        """What --mask comes to: where known items may be listed, "seen" keeps out a window's targets only."""
        return "target" if mask == "seen" and self.keeps_seen else mask


def protocol_of(split: str, split_by: str = "auto", seen_items: str = "auto", trained: str = "") -> Protocol:
    """The protocol that flags ask for.

    Args:
        split: --split.
        split_by: --split_by.
        seen_items: --seen_items.
        trained: the `split` of the manifest of the run that is used; it says what "auto" is, else "ratio" and "exclude".
    """
    run = Protocol.of(trained) if trained else Protocol(split)
    by, seen = (run.by if split_by == "auto" else split_by), (run.seen_items if seen_items == "auto" else seen_items)
    return Protocol(split, by, seen)


def is_protocol(name: str) -> bool:
    """Whether it is the name of a `Protocol`."""
    try:
        Protocol.of(name)
    except ValueError:
        return False
    return True


def protocol_in(flags: dict[str, Any]) -> Protocol:
    """The protocol of a training's flags."""
    return protocol_of(flags["split"], flags["split_by"], flags["seen_items"])


def choosing_protocol(flags: dict[str, Any]) -> Protocol:
    """That by which `pipelines.distill --teacher=auto` chooses: what is as far ahead as what its flags report."""
    found = protocol_in(flags)
    return dataclasses.replace(found, part="rehearsal" if found.part == "test" else "validation")


def with_protocol(flags: dict[str, Any], trained: str = "") -> dict[str, Any]:
    """A training's flags with what "auto" comes to in --split_by and --seen_items; `trained` as of `protocol_of`."""
    found = protocol_of(flags["split"], flags["split_by"], flags["seen_items"], trained)
    return {**flags, "split_by": found.by, "seen_items": found.seen_items}


# Teachers that are solved from the training rows, by name.
SOLVED_TEACHERS = ("ease", "item_knn", "popularity")
# What pipelines.distill --teacher=auto can try.
CANDIDATES = ("large", "sasrec", "ease", "popularity")
ACTIVATIONS = ["identity", "relu", "leaky_relu", "prelu", "tanh", "sigmoid"]
_POSITIVE = 1e-12

# By the group that --help lists them in; every help says the unit or range of a number.
_GROUPS: dict[str, list[tuple[str, Define]]] = {
    "Where and what": [
        path_flag("dataset", "", "Dataset directory, as rd_tf.prepare writes it."),
        path_flag("run_dir", "", "Run directory: flags, metrics, history, weights, TensorBoard data, manifest. Pipelines: the parent of the run directories of all their runs."),
        _choice("split", "test", SPLITS, "Which part is held out. all: nothing, train on everything before an export, with epochs that a validation run has found. validation: train on the first 70 % of every user's history, rank the next 10 %. test: train on 80 %, rank the last 20 %. rehearsal: the test split of the first 80 %, train on 64 % and rank the next 16 %, for choosing by what comes as far ahead as the test part."),
        _choice("split_by", "auto", ["auto", *SPLIT_RULES], "How rows are held out. ratio: the last 20 % of every user's history are the test part, the 10 % before them the validation part (Tang & Wang, WSDM 2018). last: the last item of every user is the test part, the one before it the validation part (leave-one-out). time: the latest 20 % of all rows, whoever's they are, and the 10 % before them, cut at one time for all users; users without a row before it are left out and counted. auto: as the model or teacher was split; where there is none, ratio."),
        _choice("seen_items", "auto", ["auto", *SEEN_ITEMS], "Whether an item that the user has in training may be listed again, in evaluation, a teacher's lists, recommendations and exports. exclude: no; held-out items that the user knows are no targets. keep: yes, as songs or groceries are; --mask=seen keeps out a window's targets only, and an export does not leave recent items out. auto: as the model or teacher was trained; where there is none, exclude."),
        _whole("seed", 0, 0, high=1_000_000, help_="Seed of initial weights, shuffling, negatives and dropout. Same seed, same machine: same weights, bit for bit."),
        _switch("force", False, "Do it again, although the result exists."),
    ],
    "Data": [
        _paths("input", [], "Check-in files to read, in this order: text (plain, .gz, .bz2, .xz, .zst, or .zip of one file) or .parquet; - is standard input; with --format=tfds names of datasets."),
        _choice("format", "auto", ["auto", "csv", "tsv", "parquet", "movielens", "foursquare", "recbole", "jsonl", "item_lists", "snap", "triples", "tfds", "synthetic"], "Layout of the input. auto: by each file's first lines, and its ending. csv, tsv: text with a header, or with --columns without one. movielens: user, item, rating, seconds, separated by :: (1M, 10M), tabs (100k) or commas. foursquare: dataset_TSMC2014 and TIST2015. recbole: an atomic file, .inter. jsonl: a JSON object a line. item_lists: a user and his items a line, in order of time (LightGCN). snap: user, ISO time, latitude, longitude, location, tab-separated (SNAP's Gowalla). triples: 'user item rating' text in time order (the authors' files). tfds: the split 'train' of a dataset of TensorFlow Datasets, --input is its name or name:version. synthetic: no input, the built-in world."),
        _text("user_column", "user_id", "Column with the user's id (csv, tsv, parquet, recbole, jsonl, tfds)."),
        _text("item_column", "item_id", "Column with the item's id (csv, tsv, parquet, recbole, jsonl, tfds)."),
        _text("time_column", "timestamp", "Column that orders a user's rows: a number, or a date or time of ISO 8601, RFC 2822 or another form that tells days from months (csv, tsv, parquet, recbole, jsonl, tfds). Empty: the rows stand in the order of their times."),
        _text("separator", "", "What separates the fields of text: comma, semicolon, tab, pipe, space (any run of white space), or the characters themselves, such as ::. Empty: by the first line."),
        _texts("columns", [], "Names of all columns of text that has no header, in order, such as user_id,item_id,rating,timestamp. Empty: the first line names them."),
        _whole("skip_lines", 0, 0, "Lines before the header, or before the first row where there is none, that are passed over.", 1_000_000),
        _choice("quote", "auto", ["auto", "none", "double"], "Whether a field of text may stand in double quotation marks. none: they are plain characters. auto: none where tabs separate and the header has none, else double."),
        _choice("escape", "none", ["none", "backslash"], "backslash: it takes the meaning from a quotation mark or separator behind it, as MySQL and Spark write."),
        _switch("multiline_fields", False, "Fields in quotation marks may hold line breaks. Off: such a row is bad, so that a stray quotation mark costs no other row."),
        _text("encoding", "", "Encoding of text, by Python's name for it, such as latin-1, cp1252 or shift_jis. Empty: UTF-8, or UTF-16 where the file begins with its mark."),
        _text("time_format", "", "Form of the times, as strptime has it, such as '%d.%m.%Y %H:%M'. Empty: numbers, or dates that cannot be misread."),
        _text("value_column", "rating", "Column with the rating that --min_rating is about (csv, tsv, parquet, recbole, jsonl, tfds; movielens and triples have one)."),
        _text("min_rating", "", "Lowest rating of --value_column, in its units, that counts as positive feedback; rows below it are left out and counted. Empty: all rows."),
        _choice("duplicates", "keep_last", ["keep_last", "keep_first", "keep_all"], "What to keep of a user's repeated visits to one item."),
        _whole("min_user_items", 1, 1, "k-core: drop users with fewer items than this, repeated with --min_item_users to a fixed point."),
        _whole("min_item_users", 1, 1, "k-core: drop items with fewer users than this, repeated with --min_user_items to a fixed point."),
        path_flag("item_names", "", "File with a line 'id,title' for every item, to be shown by rd_tf.show and by exports with --names: UTF-8, plain or .gz, a comma, ;, tab, | or :: between the first two fields. A header counts as an item that nobody visited. With a --dataset that is there and without --input only the names are written. Empty: none."),
        _switch("skip_bad_rows", False, "Leave out rows that cannot be read, count and report them. Off: the first one stops the command."),
        _whole("shards", 0, 0, "Files that the interactions are cut into, each with all rows of some users; at most one a user. 0: one file, interactions.parquet.", 99_999),
        path_flag("tfds_data_dir", "", "Where TensorFlow Datasets' built datasets lie (--format=tfds). Empty: its own folder, TFDS_DATA_DIR or ~/tensorflow_datasets."),
        path_flag("tfds_manual_dir", "", "Folder with the files of a dataset of TensorFlow Datasets; a dataset that is not built yet is built from them (--format=tfds)."),
        _whole("synthetic_users", 12000, 10, "Users of the built-in world. By default it is about as large as the paper's Gowalla."),
        _whole("synthetic_items", 12000, 20, "Items (places) of the built-in world."),
        _real("synthetic_visits", 60.0, 8.0, "Mean visits of a user of the built-in world, repeats included."),
    ],
    "Apache Beam": [
        _text("runner", "DirectRunner", "Apache Beam's runner. DirectRunner: this machine. DataflowRunner, FlinkRunner, SparkRunner, PortableRunner: a cluster."),
        _texts("beam_options", [], "Options of Beam and its runner, name=value or the bare name of a switch, such as project=p,region=r,temp_location=gs://bucket/tmp."),
        path_flag("work_dir", "", "Where intermediate files go, in a folder of their own that is removed at the end: a directory or URL (gs://..., hdfs://...) that every worker reaches. Empty: beside --dataset."),
        _whole("bucket_rows", 1_000_000, 1, "Rows that a worker takes into memory at a time, all of a user's at least."),
    ],
    "Windows": [
        _whole("sequence_length", 5, 1, "L: recent items the model sees.", 1000),
        _whole("target_length", 1, 1, "T: items after them that a training window has to rank high.", 100),
        _choice("short_windows", "auto", ["auto", "off", "on"], "Which windows a user's first items give. off: those of L + T items only, or one padded window for a user with fewer. on: one for every item but the first T, padded where fewer than L items came before. auto: on for a ranker that asks for it (sasrec), else off."),
    ],
    "Model": [
        _texts("import_module", [], "Modules of your own that register rankers (--model) and losses, such as my_package.rankers: imported first, their constructors' keywords become flags."),
        _text("model", "caser", "Ranking model, or the name of one that --import_module registers. caser: convolutions over the L recent items (Tang & Wang, WSDM 2018). fossil: the user's whole history and a Markov chain over the L recent items (He & McAuley, ICDM 2016). sasrec: self-attention over the L recent items, for an L of 20 to 100 (Kang & McAuley, ICDM 2018)."),
        _whole("dim", 100, 1, "d: embedding dimension.", 65536),
        _whole("vertical_filters", 2, 0, "n_v: Caser's vertical filters, each a weighted sum over the L recent items."),
        _whole("horizontal_filters", 16, 0, "n_h: Caser's horizontal filters of every height from 1 to L."),
        _choice("conv_activation", "identity", ACTIVATIONS, "phi_c: activation of Caser's horizontal filters."),
        _choice("dense_activation", "sigmoid", ACTIVATIONS, "phi_a: activation of Caser's dense layer."),
        _real("dropout", 0.5, 0.0, "Share of the inputs of Caser's dense layer, of Fossil's query, or of the states and attention weights of SASRec, that are dropped in training, from 0 to below 1.", 0.999),
        _real("user_dropout", 0.0, 0.0, "Share of a batch's rows whose user is replaced, in training, by the unknown user, who gets a row of his own that the export uses. 0: an export takes the mean of all users (Fossil: the weights of all users alone; SASRec has no row a user).", 0.999),
        _choice("history", "before", ["before", "all"], "H of a window, for Fossil. before: the user's items before the target. all: all the user's training items but the target, as the original has it, which looks ahead. In evaluation and serving H is all of the user's items so far."),
        _real("history_exponent", 0.2, 0.0, "alpha of Fossil's long-term part |H|^-alpha * (sum over H): 0 sums, 1 averages.", 1.0),
        _whole("heads", 1, 1, "Parts of SASRec's dimensions, each with an attention of its own; they must divide --dim.", 65536),
        _whole("blocks", 2, 1, "SASRec's blocks of self-attention and feed-forward, one after another.", 100),
    ],
    "Training": [
        _whole("epochs", 15, 1, "Passes over all windows. pipelines.distill --teacher=auto: what is tried is trained for twice as many at most, until the validation MAP stops rising, and then for as many as were best."),
        _whole("batch_size", 512, 1, "Windows a step, over all replicas together."),
        _text("optimizer", "lazy_adam", "lazy_adam, adam, or any optimizer of Keras by its name, such as adagrad. adam: every row of every table moves in every step, as the authors' does. lazy_adam: only the rows of the batch are read and written, and what Adam does to the others is made up, so that a step costs the same for any catalogue."),
        _real("learning_rate", 1e-3, _POSITIVE, "Step size of Adam."),
        _whole("warmup_steps", 0, 0, "Steps over which the step size rises linearly, from --learning_rate by their number to --learning_rate; for a large --batch_size. 0: none."),
        _real("l2", 1e-6, 0.0, "L2 weight: l2 * w is added to the gradient of every weight in every step, as the authors do."),
        _whole("negatives", 3, 1, "Negatives a positive: items the user has not seen, drawn uniformly and anew each epoch.", 10000),
        _whole("shared_negatives", 1000, 1, "Negatives that all windows of a batch share, for the losses that ask for them (sampled_softmax, listwise and others); at most the catalogue.", 1_000_000),
        _choice("negative_sampling", "uniform", ["uniform", "popularity", "in_batch"], "How shared negatives are drawn. uniform: every item alike. popularity: by the number of training rows. in_batch: the targets of the batch's windows, however many --shared_negatives says. The logits of the last two are corrected for it."),
        _whole("validate_every", 2, 0, "Epochs between validations; the best epoch's weights are kept (--split=validation only). 0: after the last epoch only."),
        _whole("steps_per_call", 50, 1, "Training steps that run in one call of the graph."),
        _whole("threads_per_operation", 0, 0, "Threads that one TensorFlow operation may use. 0: 1 on a machine of up to 4 cores, where the operations of a step fill the cores beside each other, else TensorFlow's own choice.", 1024),
        _choice("strategy", "auto", ["auto", "one", "mirrored", "multi_worker"], "tf.distribute strategy. one: one device. mirrored: several devices of this machine. multi_worker: several machines, named by TF_CONFIG. auto: multi_worker where TF_CONFIG names several workers, else mirrored where there are several GPUs or --replicas, else one. Every choice takes the same steps, up to rounding."),
        _whole("replicas", 0, 0, "Devices of this machine that share a batch. 0: all GPUs, or the CPU. More than 1 on a machine without GPUs splits its CPU, for trials.", 1024),
        _real("checkpoint_minutes", 1.0, 0.0, "Minutes between two checkpoints, from which a killed run goes on. 0: none but where a run is stopped by SIGTERM or Ctrl-C."),
        _choice("dtype_policy", "float32", ["float32", "mixed_bfloat16", "mixed_float16"], "Arithmetic of the model's layers; logits and losses are float32 always."),
        _text("ranking_loss", "sampled_softmax", "Loss of the target and the negatives. pointwise: log loss of each (the paper). bpr: log loss of their differences. sampled_softmax: cross entropy against --shared_negatives. softmax: against the whole catalogue. gbce: log loss of the target, tempered by --calibration, and of --shared_negatives. docs/losses.md has them all. Or the name of one that --import_module registers."),
        _real("calibration", 0.75, 0.0, "t: how far the target's part of --ranking_loss=gbce makes up for negatives that are a sample. 0: not at all, the plain log loss. 1: fully.", 1.0),
        _whole("early_stopping", 0, 0, "Validations in a row without a better MAP after which a training ends (--split=validation). 0: train all --epochs."),
    ],
    "Distillation": [
        _teachers("teacher", "", "A teacher's run directory, or a teacher cache that rd_tf.teach wrote. Empty: no distillation. rd_tf.teach: also ease, item_knn or popularity, which are solved, or several teachers with commas between them."),
        _choice("fusion", "zscore", ["zscore", "rrf"], "How several teachers become one. zscore: the sum of their scores, each brought to mean 0 and standard deviation 1 over the catalogue. rrf: reciprocal rank fusion, the sum of 1 / (60 + rank)."),
        _texts("fusion_weights", [], "Weight of each of several teachers, from 0, in the order of --teacher. Empty: equal ones."),
        _real("ease_l2", 0.0, 0.0, "lambda of the teacher ease: L2 weight of its matrix of items by items, in visits. 0: the best one on the validation split."),
        _whole("k", 50, 1, "K: length of the teacher's list for a window."),
        _choice("mask", "seen", ["target", "seen", "none"], "What is kept out of the teacher's lists. target: the window's own targets (the paper). seen: all training items of the user. none: nothing."),
        _text("distillation_loss", "listwise", "Loss of the teacher's list. weighted_pointwise: log loss of its items, weighted by w^a and w^b (the paper). listwise: cross entropy of the teacher's softmax over the list and the student's over the list and --shared_negatives. rrd, dcd, rankdistil: likelihood of the list's order before --shared_negatives, of items drawn by place, of those the student ranks too low, of orders drawn by the teacher's scores. cd: log loss with the teacher's probabilities as labels. unkd: pairs of items that are alike in popularity. margin_mse: squared difference of the margins of scores. docs/losses.md has them all. Or the name of one that --import_module registers."),
        _real("alpha", 1.0, 0.0, "alpha: weight of the distillation loss beside the ranking loss."),
        _real("position_temperature", 1.0, _POSITIVE, "lambda: how slowly the position importance w^a = exp(-rank / lambda) falls, in ranks: the weight of a place (--distillation_loss=weighted_pointwise), or how likely it is drawn (rrd, cd, unkd, where about 10 is usual)."),
        _real("discrepancy_sharpness", 0.1, 0.0, "mu: sharpness of the ranking discrepancy w^b = tanh(max(0, mu * (student's rank - teacher's rank))) (--distillation_loss=weighted_pointwise, dcd)."),
        _real("score_temperature", 0.0, 0.0, "tau: the teacher's scores are divided by it (--distillation_loss=listwise, cd, margin_mse, rankdistil); in their units. 0: 2.5 standard deviations of the scores of a list, on average over the lists."),
        _real("score_bias", 0.0, -1e30, "Taken off the teacher's scores before they are divided by --score_temperature (--distillation_loss=cd): an item with that score is labelled one half. In their units."),
        _whole("list_samples", 10, 1, "Items drawn of a list of --k, anew in every step (--distillation_loss=rrd, cd, dcd, unkd, rankdistil); all of them where there are no more.", 100_000),
        _whole("popularity_groups", 2, 1, "Groups of items, of equal total popularity, within which items of a list are compared (--distillation_loss=unkd).", 10_000),
        _whole("rank_samples", 100, 1, "epsilon: items drawn to estimate the student's rank, at most the catalogue.", 100000),
        _switch("exact_rank", False, "Count the student's rank, among all items that the user has not seen, over the whole catalogue (one matrix product) rather than estimate it from samples."),
        _whole("discrepancy_start_epoch", 10, 0, "Epochs trained with w^a alone before w^a * w^b takes over; 0: both from the start."),
        _switch("renormalize_weights", False, "Scale w^a * w^b to sum to 1 over a list."),
        path_flag("cache", "", "Teacher cache directory to write. Empty: <teacher>/top_k/<split>-k<K>-<mask>."),
        _whole("block_size", 1024, 1, "Windows or users that are scored in one matrix product."),
    ],
    "Evaluation and export": [
        _texts("cutoffs", ["3", "5", "10", "20"], "n: list lengths of the metrics."),
        path_flag("output", "", "rd_tf.evaluate: directory for metrics.json and per_user.parquet; empty: <run_dir>/evaluate-<split>. rd_tf.recommend, pipelines.tfrs_teacher: .parquet or .csv file for the lists."),
        path_flag("export_dir", "saved_models", "Directory of all exports."),
        _text("export_name", "student", "Name of the served model: the export is <export_dir>/<export_name>/<version>."),
        _whole("max_k", 100, 1, "Longest list that a request may ask for; a smaller catalogue bounds it too."),
        _switch("exclude_recent", True, "Whether a request's recent items are kept out of its list."),
        _choice("id_type", "string", ["string", "int64"], "How requests and answers write ids. int64: as integers, 0 means none."),
        _choice("weights", "float32", ["float32", "float16", "int8"], "How the export stores weights; scores are computed in float32. int8: tables with a scale a row, all else float16."),
        _choice("index", "exact", ["exact", "clusters"], "How the best items are found. exact: by scoring all. clusters: by scoring those of the --probes best cells of items, for very large catalogues; what is missed is measured."),
        _whole("clusters", 0, 0, "Cells of items (--index=clusters). 0: twice the square root of the catalogue."),
        _whole("probes", 0, 0, "Cells that are searched for a request (--index=clusters). 0: as many as --recall takes."),
        _real("recall", 0.95, 0.001, "Share of the 10 best items of the exact search that --index=clusters is to find, as a mean over 200 users of the dataset; where --probes is 0, it says how many cells are searched.", 1.0),
        _switch("item_table", False, "Whether to write item_table.npy and item_ids.txt beside the export, for a nearest-neighbour index that is asked with the signature query."),
        _switch("names", False, "Whether lists of an export have an output names beside items, with the titles that rd_tf.prepare --item_names has kept with the dataset."),
        _switch("batching", False, "Whether the export answers requests of different clients together, inside its graph: more requests a second under load, the same answers to the rounding of a matrix product. Clients and servers need no setting for it; leave the server's own --enable_batching off."),
        _whole("max_batch_size", 64, 1, "Most rows that are answered together (--batching); a request of more rows is answered alone.", 4096),
        _whole("batch_timeout_micros", 0, 0, "Microseconds that a request waits for others (--batching). 0: not at all; requests meet while others are computed.", 1_000_000),
        _whole("num_batch_threads", 2, 1, "Batches that are computed at the same time (--batching); about as many as the server has cores.", 256),
        _choice("export_format", "saved_model", ["saved_model", "litert"], "What to write. saved_model: for tensorflow_model_server. litert: a .tflite file for devices."),
    ],
    "Publishing": [
        _whole("keep_versions", 0, 0, "How many of the highest versions of the served model stay, the new one included; lower ones are removed after it has appeared. 0: all. Keep 2 or more where a server may still be loading the one before.", 1_000_000),
        _texts("min_metric_ratio", [], "metric:ratio, such as map:0.98,ndcg@10:0.97: the model is published only where each metric of its run is at least that share (above 0; 1: no worse) of the reference's, --gate_against. Empty: always."),
        path_flag("gate_against", "", "What --min_metric_ratio holds the model against: a run directory, such as the teacher's; empty or last: the served model's highest version, where there is one."),
        _switch("server_config", True, "Whether models.config, monitoring.config, healthcheck.sh and compose.yaml are written into --export_dir. An edited file is left alone."),
        _text("serving_image", "tensorflow/serving:2.20.0", "Container image in compose.yaml."),
    ],
    "Serving": [
        _text("model_name", "default", "Name of the model in requests (with --model_base_path)."),
        path_flag("model_base_path", "", "Directory of one model's version directories, such as <export_dir>/<export_name>."),
        path_flag("model_config_file", "", "File with a ModelServerConfig of tensorflow_model_server, in protobuf's text format: several models, their version policies and labels. In place of --model_base_path."),
        _text("host", "127.0.0.1", "Address to listen on. 127.0.0.1: this machine only."),
        _whole("port", 8500, 0, "Port of gRPC. 0: no gRPC.", 65535),
        _whole("rest_api_port", 8501, 0, "Port of REST. 0: no REST.", 65535),
        path_flag("binary", "auto", "auto: start tensorflow_model_server with these flags if it is on PATH, else serve in Python. never: serve in Python. Or the path of tensorflow_model_server."),
        _whole("file_system_poll_wait_seconds", 1, 0, "Seconds between two looks for new versions. 0: none after the start.", 86400),
        _whole("threads", 8, 1, "Requests that REST and gRPC each work on at a time.", 1024),
        _whole("max_body_bytes", 16 << 20, 1, "Longest body or gRPC message of a request, and largest tensor in one.", 1 << 30),
        _whole("grpc_max_threads", 64, 1, "gRPC calls that tensorflow_model_server works on at a time (--binary); it refuses more. Its own default is four times the cores. The server in Python has --threads.", 4096),
        _switch("enable_batching", False, "Batch requests before the graph as tensorflow_model_server does, which answers lists of different lengths wrongly: for trying that. Exports with --batching do without."),
        path_flag("batching_parameters_file", "", "BatchingParameters in text format (--enable_batching). Empty: that server's defaults."),
        _whole("max_batch", 1024, 1, "Most rows of a request."),
        _whole("max_values", 1 << 18, 1, "Most values (ids or numbers) of one input of a request, in all its rows together; what a model computes for each takes far more memory than its bytes.", 1 << 30),
        _switch("rest_api_enable_cors_support", False, "Whether answers of REST let pages of any web site read them in a browser (the headers Access-Control-Allow-*)."),
        _real("request_timeout_seconds", 30.0, 0.001, "Seconds the model may take for a request.", 86400),
    ],
    "Pipelines": [
        _whole("teacher_dim", 100, 1, "d of the teacher.", 65536),
        _whole("student_dim", 50, 1, "d of the students.", 65536),
        _whole("teacher_epochs", 0, 0, "Passes over all windows for the teacher. 0: as many as --epochs."),
        _real("distilled_dropout", -1.0, -1.0, "--dropout of the distilled student, which the teacher's lists keep from overfitting, too. -1: that of --dropout.", 0.999),
        _whole("distilled_epochs", 0, 0, "Passes over all windows for the distilled student, which the teacher's lists keep from overfitting for longer than the student alone. 0: as many as --epochs."),
        _texts("seeds", ["0"], "Seeds to run, one after another (pipelines.paper: --jobs at a time); the tables show their mean."),
        path_flag("results", "", "Directory that gets a copy of every run's flags, metrics, history, log and manifest, and the report. Empty: no copy (pipelines.paper: results/paper, pipelines.leaderboard: results/leaderboard). pipelines.tune: directory of the search, its study and every trial's flags and history."),
        _switch("all_metrics", False, "Print every metric of the models. Off: the paper's seven (report.json has all of them)."),
        _texts("cells", ["gowalla/fossil", "gowalla/caser", "foursquare/fossil", "foursquare/caser"], "Cells of the paper's tables, <dataset>/<model>: the settings are the flagfile <configs_dir>/<dataset>/<model>.cfg, the data <datasets_dir>/<dataset>."),
        path_flag("configs_dir", "configs", "Directory of the cells' flagfiles."),
        path_flag("datasets_dir", "datasets", "Directory of the cells' dataset directories."),
        _whole("jobs", 1, 1, "Trainings at the same time, each in a process and on a share of the cores of its own.", 64),
        _switch("train", True, "Train and measure what --results lacks. Off: tables and plots of what is there."),
        _switch("efficiency", True, "Measure what teacher and student cost to serve, where --results lacks it. Off: leave it out, as on a busy machine."),
        _texts("candidates", list(CANDIDATES), "Teachers that --teacher=auto tries on the validation split. large: --model with --teacher_dim. sasrec: SASRec with half of --teacher_dim and the last 20 items. ease: a linear autoencoder of items, solved. popularity: the number of check-ins."),
        _real("auto_minutes", 0.0, 0.0, "Minutes after which --teacher=auto begins no further candidate or trial. 0: no limit."),
        path_flag("choice", "", "choice.json that an earlier --teacher=auto wrote under <run_dir>/auto: what was chosen there is taken, and nothing is tried. Empty: choose."),
        _switch("one_teacher", False, "Whether the teacher of the first seed teaches the students of all seeds (--teacher=auto). Off: every seed has a teacher of its own."),
        path_flag("rows_file", "configs/leaderboard.csv", "Table of the leaderboard's rows, with the columns name, dataset, role, teacher and flags."),
        _texts("rows", [], "Rows of the leaderboard, <dataset>/<name> or <name>, with * and ? for any letters; the teachers that they lack are trained, too. Empty: all."),
        path_flag("page", "", "Markdown page that gets the leaderboard, between its markers. Empty: none."),
        _texts("sweeps", [], "Flags to vary one at a time on the validation split, for the plots: k, position_temperature, discrepancy_sharpness, alpha, student_dim."),
        _text("sweep_cell", "gowalla/caser", "Cell whose flags --sweeps varies."),
    ],
    "Search": [
        _texts("search", [], "Flags of rd_tf.train to search over, each as low..high (whole numbers for a flag of whole numbers), low..high:log (even on a logarithmic scale) or value|value|..., such as dropout=0.2..0.6,k=10|20|50,alpha=0.25..4:log. The first trial has the flags' own values where they lie within."),
        _whole("trials", 50, 1, "Trials that the search has in all, those of earlier calls with the same --results included.", 100_000),
        _choice("pruner", "median", ["median", "halving", "none"], "Which trials are stopped early, by validation MAP. median: those whose best MAP so far is below the median of the others at that epoch, once 5 have ended. halving: all but the best quarter, at --prune_from_epoch and at each fourfold of it. none: none."),
        _whole("prune_from_epoch", 10, 1, "First epoch at which a trial may be stopped early.", 100_000),
    ],
    "Lists of other systems": [
        path_flag("lists", "", "Lists of any system, in place of --teacher: a .csv, .tsv or .parquet file with a row for every user (--user_column) and item (--item_column), raw ids, as rd_tf.recommend writes it. --split, --sequence_length and --target_length are those of the student."),
        _text("rank_column", "", "Column with a number that rises along a list (--lists). Empty: the score falls along a list or, without one, the rows stand in the order of the list."),
        _text("score_column", "", "Column with the teacher's score (--lists). Empty: the stored scores are -1, -2, ..., -K, and the cache says so."),
        _text("position_column", "", "Column with the window's position (--lists), as rd_tf.prepare --windows writes it, where lists are made for windows. Empty: a user's list serves all windows of the user."),
        _choice("unknown", "refuse", ["refuse", "skip"], "What becomes of users, items and positions that the dataset does not have: refuse the lists, or leave them out and count them."),
        _choice("incomplete", "refuse", ["refuse", "pad"], "What becomes of windows with fewer than --k items: refuse the lists, or fill them up with the most popular items that --mask lets through."),
        path_flag("saved_model", "", "A SavedModel, or the directory of its versions, of which the highest counts: an export of rd_tf.export, or any with inputs among user_id, recent_items, exclude_items and k and the outputs items and, perhaps, scores."),
        _text("signature", "serving_default", "Signature of --saved_model that lists items."),
        path_flag("windows", "", "Parquet file to write the training windows of --split, --sequence_length and --target_length to (user_id, position, sequence, targets; raw ids), for a system that makes lists for windows. With a --dataset that is there and without --input nothing else is done. Empty: none."),
        _text("user", "", "Raw id of the user to show, as in the dataset's users.txt."),
        path_flag("users", "", "File with the raw ids of the users, one a line. Empty: all users of the dataset."),
    ],
}  # fmt: skip

FLAGS: dict[str, Define] = {name: define for group in _GROUPS.values() for name, define in group}
# Flags of plug-ins are in none of them.
GROUPS = {name: title for title, group in _GROUPS.items() for name, _ in group}


_KINDS: dict[type, Callable[[str, Any, str], tuple[str, Define]]] = {
    bool: _switch,
    int: lambda name, default, help_: _whole(name, default, -(2**31), help_, 2**31 - 1),
    float: lambda name, default, help_: _real(name, default, -1e30, help_),
    str: _text,
}


def add_flag(name: str, kind: type, default: Any, help_: str) -> None:
    """Adds a plug-in's flag; one that exists with values of that type is used as it is.

    Args:
        name: the flag.
        kind: bool, int, float or str.
        default: its value where it is not given.
        help_: one sentence.

    Raises:
        ValueError: the flag exists with values of another type.
    """
    if name not in FLAGS:
        FLAGS[name] = _KINDS[kind](name, default, help_)[1]
        return
    values = flags.FlagValues()
    FLAGS[name](values)
    existing = values[name].default
    if type(existing) is not kind and not (kind is float and isinstance(existing, int)):
        raise ValueError(f"--{name} is a flag with values such as {existing!r} already; rename the keyword {name}")

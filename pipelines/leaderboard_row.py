"""python -m pipelines.leaderboard_row: one row of the leaderboard with one seed, from lists to evidence."""

import csv
import dataclasses
import fnmatch
import functools
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from pipelines.distill import TEACHER_SEED, parse_seeds
from pipelines.records import (
    COLUMNS,
    FILES,
    check_evidence,
    is_complete,
    keep_evidence,
    model_fingerprint,
    read_metrics,
)
from rd_tf import command_line, plugins, run_directory
from rd_tf.data.dataset import load_manifest
from rd_tf.data.teacher_lists import check_k_of
from rd_tf.data.windows import SplitData, open_dataset
from rd_tf.flag_definitions import SOLVED_TEACHERS
from rd_tf.storage import InputError, json_sha256, read_manifest, write_json, write_text
from rd_tf.train import TRAIN_FLAGS, train

RESULTS = "results/leaderboard"
HEADER = ("name", "dataset", "role", "teacher", "flags")
ROLES = ("teacher", "alone", "distilled")
# What evidence holds beside a run's own files: whom the row learned from, and the long tail.
RECORD = "row.json"
TRAINED_FILES = (*FILES, RECORD)
# A teacher that is not trained has neither history nor log.
MADE_FILES = (run_directory.FLAGS, run_directory.METRICS, run_directory.MANIFEST, RECORD)
# Flags that the leaderboard sets itself.
_SET_HERE = ("dataset", "run_dir", "teacher", "split", "split_by", "seen_items", "seed", "force")
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_TERM = re.compile(r"(?:(\d+(?:\.\d*)?|\.\d+)\*)?([A-Za-z0-9][\w.-]*)")
_ADVICE = "delete that directory and its run to make it again, or name another --results"


def _row_flags(**_: Any) -> None:
    """What a row's flags may be: those of a training, and those of teachers that are solved or fused."""


_row_flags.flag_names = (*TRAIN_FLAGS, "fusion", "ease_l2")  # type: ignore[attr-defined]


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        place: file and line, for messages.
        name: within the dataset.
        dataset: the dataset directory below --datasets_dir.
        role: of `ROLES`.
        teacher: as it stands there; empty of a ranker that is trained alone.
        parts: names in that text -> weight.
        flags: of this row, each as `--name=value`.
    """

    place: str
    name: str
    dataset: str
    role: str
    teacher: str
    parts: dict[str, float]
    flags: tuple[str, ...]

    @property
    def key(self) -> str:
        """What names the row in all of the table: gowalla/caser50."""
        return f"{self.dataset}/{self.name}"

    @property
    def is_trained(self) -> bool:
        """Whether it is a run of `rd_tf.train`, not a teacher that is solved or fused."""
        return self.role != "teacher" or not self.teacher

    @property
    def files(self) -> tuple[str, ...]:
        """What the evidence holds, beside the users' values."""
        return TRAINED_FILES if self.is_trained else MADE_FILES


@dataclasses.dataclass(frozen=True)
class Taught:
    """Whom a row learns from, or what a teacher is made of.

    Attributes:
        name: the teacher's row, or the text that describes it.
        parts: name of a trained teacher's row, or of a solved teacher -> weight.
        fusion: "zscore" or "rrf"; empty of one part.
        ease_l2: lambda of ease; 0 where there is no ease among the parts, or for the best one on validation.
    """

    name: str
    parts: dict[str, float]
    fusion: str
    ease_l2: float

    @property
    def trained(self) -> list[str]:
        """The parts that are rows with a run of their own."""
        return [name for name in self.parts if name not in SOLVED_TEACHERS]


def read_rows(path: str) -> dict[str, Row]:
    """Reads a table of rows; empty lines and those that begin with # are left out.

    Returns:
        `Row.key` -> row, in the order of the file.

    Raises:
        InputError: the file cannot be read, or a line is wrong; the message names it.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read ({error})"
        raise InputError(f"--rows_file={path} {what}; name a .csv file with the columns {','.join(HEADER)}") from None
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip() and line[0] != "#"]
    rows: dict[str, Row] = {}
    for index, (number, line) in enumerate(lines):
        place = f"{path}, line {number}"
        try:
            cells = [cell.strip() for cell in next(csv.reader([line], strict=True))]
        except csv.Error as error:
            raise InputError(f"{place}: it is no line of a table ({error}); mend it") from None
        if index == 0:
            if tuple(cells) != HEADER:
                raise InputError(f"{place}: the first line must be {','.join(HEADER)}; received {line}")
            continue
        row = _read_row(place, cells)
        if row.key in rows:
            raise InputError(f"{place}: {row.key} stands in {rows[row.key].place.rpartition(', ')[2]} already")
        rows[row.key] = row
    if not rows:
        raise InputError(f"--rows_file={path} has no row; give at least one")
    for row in rows.values():
        _check_teacher(row, rows)
    return rows


def _read_row(place: str, cells: list[str]) -> Row:
    if len(cells) != len(HEADER):
        raise InputError(
            f"{place}: it has {len(cells)} columns, not the {len(HEADER)} of {','.join(HEADER)}; put flags that hold "
            "a comma in quotes"
        )
    name, dataset, role, teacher, text = cells
    for what, value in (("name", name), ("dataset", dataset)):
        if not _NAME.fullmatch(value):
            raise InputError(f"{place}: the {what} {value!r} must be of letters, digits, '_', '-' and '.'")
    if role not in ROLES:
        raise InputError(f"{place}: the role {role!r} is none of {', '.join(ROLES)}")
    if role == "alone" and teacher:
        raise InputError(f"{place}: a row alone has no teacher; received {teacher!r}")
    if role == "distilled" and not teacher:
        raise InputError(f"{place}: a row distilled needs a teacher; name a teacher's row or one that is solved")
    try:
        given = tuple(shlex.split(text))
    except ValueError as error:
        raise InputError(f"{place}: the flags cannot be read ({error})") from None
    return Row(place, name, dataset, role, teacher, _parts(place, teacher), given)


def _parts(place: str, teacher: str) -> dict[str, float]:
    parts: dict[str, float] = {}
    for term in teacher.replace(" ", "").split("+") if teacher else ():
        found = _TERM.fullmatch(term)
        if not found or found[2] in parts or not float(found[1] or 1) > 0:
            raise InputError(
                f"{place}: the teacher {teacher!r} cannot be read; write a name, or several such as "
                "0.7*caser100+0.3*ease, each once and with a weight above 0"
            )
        parts[found[2]] = float(found[1] or 1)
    return parts


def _check_teacher(row: Row, rows: dict[str, Row]) -> None:
    if row.name in SOLVED_TEACHERS and (row.role, row.teacher) != ("teacher", row.name):
        raise InputError(
            f"{row.place}: {row.name} is the name of a teacher that is solved; a row of that name has the role teacher "
            f"and the teacher {row.name}"
        )
    for name in row.parts:
        other = rows.get(f"{row.dataset}/{name}")
        if name in SOLVED_TEACHERS:
            continue
        if other is None or other.role != "teacher":
            raise InputError(
                f"{row.place}: the teacher {name} is neither a row of {row.dataset} with the role teacher nor one of "
                f"{', '.join(SOLVED_TEACHERS)}"
            )
        if not other.is_trained and (len(row.parts) > 1 or row.role == "teacher"):
            raise InputError(
                f"{row.place}: the teacher {name} is made of others itself ({other.teacher}); name its parts in place "
                "of it"
            )


@dataclasses.dataclass(frozen=True)
class Board:
    """The rows, and where everything is.

    Attributes:
        rows: as `read_rows` gives them.
        rows_file: where they stand.
        configs_dir: holds `<dataset>.cfg`, the flags that all rows of a dataset share.
        datasets_dir: the dataset directories.
        run_dir: directory of all runs and lists.
        results: directory of all evidence.
        split: "validation" or "test", by the rule "ratio" and without seen items, as in the papers.
    """

    rows: dict[str, Row]
    rows_file: str
    configs_dir: Path
    datasets_dir: Path
    run_dir: Path
    results: Path
    split: str

    def chosen(self, patterns: Sequence[str]) -> list[Row]:
        """The rows that patterns name, in the order of the table; all of them where there is no pattern.

        Raises:
            InputError: a pattern names none.
        """
        found: set[str] = set()
        for pattern in patterns or ["*"]:
            some = {
                key
                for key, row in self.rows.items()
                if fnmatch.fnmatchcase(key, pattern) or fnmatch.fnmatchcase(row.name, pattern)
            }
            if not some:
                raise InputError(f"--rows: {pattern} names no row of {self.rows_file}; write <dataset>/<name>")
            found |= some
        return [row for key, row in self.rows.items() if key in found]

    def taught(self, row: Row) -> Taught | None:
        """Whom a row learns from, or what it is made of; None of a ranker that is trained alone."""
        if not row.parts:
            return None
        only = self.rows.get(f"{row.dataset}/{next(iter(row.parts))}") if len(row.parts) == 1 else None
        # A fusion or a solved teacher that has a row is the one of that row, with that row's flags.
        made_by = only if only is not None and only.parts else row
        name = only.name if only is not None else row.name if row.role == "teacher" else row.teacher
        ease = self.rows.get(f"{row.dataset}/ease", made_by)
        return Taught(
            name,
            made_by.parts,
            self.values(made_by)["fusion"] if len(made_by.parts) > 1 else "",
            self.values(ease)["ease_l2"] if "ease" in made_by.parts else 0.0,
        )

    def teacher_rows(self, row: Row) -> list[Row]:
        """The rows whose runs a row needs."""
        taught = self.taught(row)
        return [self.rows[f"{row.dataset}/{name}"] for name in taught.trained] if taught else []

    def folder(self, row: Row, seed: int) -> str:
        """`seed-N`, or `once` for a teacher that no seed changes."""
        return f"seed-{seed}" if row.is_trained or self.teacher_rows(row) else "once"

    def run(self, row: Row, seed: int) -> Path:
        """The run directory."""
        return self.run_dir / row.dataset / row.name / self.folder(row, seed)

    def evidence(self, row: Row, seed: int) -> Path:
        """Where the evidence of that run is."""
        return self.results / row.dataset / row.name / self.folder(row, seed)

    def dataset(self, row: Row) -> Path:
        return self.datasets_dir / row.dataset

    def values(self, row: Row) -> dict[str, Any]:
        """Every flag of a row: those of its dataset's file, and its own after them.

        Raises:
            InputError: that file is missing, or a flag cannot be used.
        """
        return _values(self.configs_dir / f"{row.dataset}.cfg", row.place, row.flags)

    def train_flags(self, row: Row, seed: int, teacher: str = "") -> dict[str, Any]:
        """The flags of `rd_tf.train` of a row that is trained.

        Args:
            row: which.
            seed: of the students; a teacher has another one.
            teacher: the directory of the lists; any word where only flags are compared.
        """
        own = {
            "dataset": str(self.dataset(row)),
            "run_dir": str(self.run(row, seed)),
            "split": self.split,
            "split_by": "ratio",
            "seen_items": "exclude",
            "teacher": teacher,
            "seed": seed + TEACHER_SEED if row.role == "teacher" else seed,
        }
        return command_line.choose(train, self.values(row), **own)

    def check(self, row: Row) -> None:
        """Refuses before anything is trained what a training would refuse later.

        Raises:
            InputError: a flag, a model, a loss or the dataset cannot be used, or --mask leaves fewer than --k items.
        """
        values = self.values(row)
        try:
            plugins.find(plugins.RANKERS, "model", values["model"])
            plugins.find(plugins.RANKING_LOSSES, "ranking_loss", values["ranking_loss"])
            plugins.find(plugins.DISTILLATION_LOSSES, "distillation_loss", values["distillation_loss"])
            if self.taught(row) is not None and row.is_trained:
                check_k_of(_split_of(str(self.dataset(row)), self.split), values)
        except InputError as error:
            raise InputError(f"{row.place}: {error}") from None
        load_manifest(self.dataset(row))

    def is_done(self, row: Row, seed: int) -> bool:
        """Whether results hold all evidence of a row and seed.

        Raises:
            InputError: they hold that of another split, other settings, other data or another teacher.
        """
        target = self.evidence(row, seed)
        if not is_complete(target, True, row.files):
            return False
        split = read_metrics(target, COLUMNS)["split"]
        if split != self.split:
            raise InputError(f"{target} is of the split {split}, not {self.split}; name another --results")
        taught, record = self.taught(row), read_record(target)
        if row.is_trained:
            check_evidence(target, self.train_flags(row, seed, "lists" if taught else ""))
        else:
            manifest = run_directory.load_run_manifest(target)
            there = self.dataset(row) / "manifest.json"
            if (
                there.is_file()
                and load_manifest(self.dataset(row))["fingerprint"] != manifest["dataset"]["fingerprint"]
            ):
                raise InputError(f"{target} is of another dataset than {self.dataset(row)}; {_ADVICE}")
        wanted = dataclasses.asdict(taught) if taught else None
        # The same teacher may have been written down otherwise.
        if _without_name(record["taught"]) != _without_name(wanted):
            raise InputError(f"{target} has another teacher than {row.place} names now; {_ADVICE}")
        for teacher in self.teacher_rows(row):
            before, now = record["fingerprints"][teacher.name], model_fingerprint(self.evidence(teacher, seed))
            if now is not None and now != before:
                raise InputError(
                    f"{target} learned from other weights of {teacher.name} than those of "
                    f"{self.evidence(teacher, seed)}; {_ADVICE}"
                )
        return True

    def has_run(self, row: Row, seed: int) -> bool:
        """Whether the run that the evidence is of is there, to learn from it or to measure it."""
        there = model_fingerprint(self.run(row, seed))
        return there is not None and there == model_fingerprint(self.evidence(row, seed))


@functools.lru_cache(maxsize=1024)
def _values(base: Path, place: str, given: tuple[str, ...]) -> dict[str, Any]:
    if not base.is_file():
        raise InputError(f"{place}: there is no {base}; write the flags there that all rows of the dataset share")
    try:
        values = command_line.parse(_row_flags, [f"--flagfile={base}", *given])
    except flags.Error as error:
        raise InputError(f"{place}: {' '.join(str(error).split())}") from None
    defaults = command_line.default_flags(_row_flags)
    for name in _SET_HERE:
        if values[name] != defaults[name]:
            raise InputError(f"{place}: leave out --{name}, which the leaderboard sets itself")
    needed = {name.partition("@")[2] for name in COLUMNS} - {""}
    if not needed <= {text.strip() for text in values["cutoffs"]}:
        raise InputError(f"{place}: --cutoffs must hold {','.join(sorted(needed, key=int))}; leave it out")
    return values


def _without_name(taught: dict[str, Any] | None) -> dict[str, Any] | None:
    return {name: value for name, value in taught.items() if name != "name"} if taught else None


def read_record(directory: Path) -> dict[str, Any]:
    """What the `row.json` of a row's run or evidence holds.

    Raises:
        InputError: it is missing or damaged.
    """
    return read_manifest(
        directory / RECORD, {"role": str, "fingerprints": dict, "tail.recall@10": int | float, "taught": dict | None}
    )


# Length of the lists in which the long tail is looked for, and how much of the catalogue it is.
TAIL_CUTOFF, TAIL_SHARE = 10, 0.8


def job(
    *,
    rows_file: str,
    rows: list[str],
    seeds: list[str],
    split: str,
    configs_dir: str,
    datasets_dir: str,
    run_dir: str,
    results: str,
) -> None:
    """Trains or makes one row of the leaderboard (--rows) with one seed (--seeds), and keeps its evidence.

    pipelines.leaderboard starts this for every row and seed that it lacks. The rows that this one learns from must have
    been trained before; a run and lists that are there are kept.

    Raises:
        InputError: a flag, the table or the dataset cannot be used, a teacher is missing, or the training failed.
    """
    board = open_board(rows_file, split, configs_dir, datasets_dir, run_dir, results)
    chosen, numbers = board.chosen(rows), parse_seeds(seeds)
    if len(chosen) != 1 or len(numbers) != 1:
        raise InputError(f"--rows and --seeds name {len(chosen)} rows and {len(numbers)} seeds; name one of each")
    run_row(board, chosen[0], numbers[0])


@functools.lru_cache(maxsize=1)
def _split_of(dataset: str, split: str) -> SplitData:
    """Read once for the rows of a dataset, which stand together."""
    return open_dataset(dataset).split(split)


def open_board(rows_file: str, split: str, configs_dir: str, datasets_dir: str, run_dir: str, results: str) -> Board:
    """Reads the table; arguments are the flags of those names.

    Raises:
        InputError: the table cannot be used, or the split holds nothing out.
    """
    if split == "all":
        raise InputError("--split=all holds nothing out to rank; give --split=test or --split=validation")
    if not run_dir:
        raise InputError("--run_dir is empty; name a directory for the runs")
    places = (Path(configs_dir), Path(datasets_dir), Path(run_dir), Path(results or RESULTS))
    return Board(read_rows(rows_file), rows_file, *places, split)


def run_row(board: Board, row: Row, seed: int) -> None:
    """Trains or makes a row, measures it, and keeps its evidence.

    Args:
        board: all rows.
        row: which.
        seed: of the students.

    Raises:
        InputError: anything cannot be used, or the weights are others than those that results hold evidence of.
    """
    board.check(row)
    values, run, target = board.values(row), board.run(row, seed), board.evidence(row, seed)
    from rd_tf.runtime import import_quietly, share_cores

    import_quietly()
    share_cores(values["threads_per_operation"])
    data = open_dataset(board.dataset(row)).split(board.split)
    record = _train(board, row, seed, data) if row.is_trained else _make(board, row, seed, data)
    write_json(run / RECORD, record)
    before, now = model_fingerprint(target), model_fingerprint(run)
    if before is not None and before != now:
        raise InputError(
            f"{run} has other weights than those that {target} is the evidence of; delete the evidence, and that of "
            "the rows that learned from it, to begin again"
        )
    keep_evidence(run, target, per_user=True, files=row.files)
    print(f"evidence: {target}", flush=True)


def _train(board: Board, row: Row, seed: int, data: SplitData) -> dict[str, Any]:
    from rd_tf.evaluation.evaluator import Evaluator
    from rd_tf.models.registry import load_model

    taught, lists = board.taught(row), ""
    if taught is not None:
        lists = str(_lists(board, row, seed, taught, data))
    flags = board.train_flags(row, seed, lists)
    train(**flags)
    model = load_model(board.run(row, seed))
    evaluator = Evaluator(data, model.sequence_length, flags["cutoffs"], flags["block_size"])
    return _record(board, row, seed, data, _tail(evaluator, evaluator.evaluate(model).ranks, data))


def _make(board: Board, row: Row, seed: int, data: SplitData) -> dict[str, Any]:
    """Solves or fuses a teacher, evaluates it, and leaves a directory like that of a run."""
    from rd_tf.evaluation.evaluator import Evaluator, save_evaluation
    from rd_tf.teacher.named import make_teacher
    from rd_tf.teacher.scoring import evaluate_teacher

    taught, values, run = board.taught(row), board.values(row), board.run(row, seed)
    assert taught is not None
    named = teacher_names(board, row, seed, taught)
    teacher = make_teacher(named, data)
    evaluator = Evaluator(data, 1, values["cutoffs"], values["block_size"])
    evaluation = evaluate_teacher(teacher, evaluator=evaluator)
    run.mkdir(parents=True, exist_ok=True)
    save_evaluation(evaluation, data.name, run)
    # As rd_tf.teach takes them.
    given = {
        "teacher": ",".join(named.names),
        "fusion": named.fusion,
        "fusion_weights": [f"{weight:g}" for weight in named.weights],
        "ease_l2": named.ease_l2,
        "split": data.name,
    }
    write_text(run / run_directory.FLAGS, command_line.flag_lines(given))
    manifest = {
        "split": data.name,
        "dataset": {"path": str(board.dataset(row)), "fingerprint": data.fingerprint},
        "model": {
            "class": " + ".join(taught.parts),
            "config": {"fusion": taught.fusion, "parts": taught.parts, "ease_l2": taught.ease_l2},
            "dtype_policy": "float32",
            "parameters": teacher.parameters,
            "fingerprint": teacher.fingerprint,
        },
        **run_directory.environment(),
    }
    run_directory.write_run_manifest(run, manifest)
    return _record(board, row, seed, data, _tail(evaluator, evaluation.ranks, data))


def teacher_names(board: Board, row: Row, seed: int, taught: Taught) -> Any:
    """The teacher as `rd_tf.teacher.named` knows it: runs of that seed, and names of what is solved."""
    from rd_tf.teacher.named import TeacherNames

    runs = {each.name: str(board.run(each, seed)) for each in board.teacher_rows(row)}
    weights = tuple(taught.parts.values()) if len(taught.parts) > 1 else ()
    return TeacherNames(
        tuple(runs.get(name, name) for name in taught.parts), taught.fusion or "zscore", weights, taught.ease_l2
    )


def _lists(board: Board, row: Row, seed: int, taught: Taught, data: SplitData) -> Path:
    """The teacher's lists for a row's windows, shared by all rows with the same teacher, windows, K, mask and seed."""
    from rd_tf.data.teacher_lists import CacheKey, TeacherCache
    from rd_tf.models.registry import has_short_windows
    from rd_tf.teacher.cache import keep_or_make
    from rd_tf.teacher.named import make_teacher
    from rd_tf.teacher.scoring import lists_of

    flags = board.train_flags(row, seed)
    short, k, mask = has_short_windows(flags["model"], flags["short_windows"]), flags["k"], flags["mask"]
    windows = data.windows(flags["sequence_length"], flags["target_length"], short)
    named = teacher_names(board, row, seed, taught)
    # A folder a teacher: other weights of a fusion are another one.
    described = json_sha256({**dataclasses.asdict(taught), "name": ""})[:8]
    of_seed = f"seed-{seed}" if taught.trained else "once"
    folder = board.run_dir / row.dataset / "lists" / f"{taught.name.replace('*', 'x')}-{described}" / of_seed
    place = folder / f"k{k}-{mask}-L{flags['sequence_length']}-{windows.fingerprint()[:8]}"
    key = CacheKey.of(data.fingerprint, data.name, windows, named.fingerprint(data), mask)

    def make() -> TeacherCache:
        lists = lists_of(make_teacher(named, data), windows, k, mask, flags["block_size"])
        print(f"teacher's lists: {place} ({len(lists):,} windows, K = {k}, mask {mask})", flush=True)
        return lists

    # Other rows may be making the same lists.
    keep_or_make(place, key, k, make, is_default_place=True)
    return place


def _tail(evaluator: Any, ranks: Any, data: SplitData) -> dict[str, Any]:
    from rd_tf.evaluation.held_out import recall_of_tail, tail_items

    is_tail = tail_items(data, TAIL_SHARE)
    recall = recall_of_tail(ranks, evaluator.held_out, is_tail, TAIL_CUTOFF)
    targets = int(is_tail[evaluator.held_out.targets].sum())
    return {"share": TAIL_SHARE, "items": int(is_tail.sum()), "targets": targets, f"recall@{TAIL_CUTOFF}": recall}


def _record(board: Board, row: Row, seed: int, data: SplitData, tail: dict[str, Any]) -> dict[str, Any]:
    """What `row.json` holds: the role, whom the row learned from, with the fingerprint of every part, and the tail."""
    taught = board.taught(row)
    fingerprints: dict[str, str | None] = {}
    if taught is not None:
        trained = {each.name: each for each in board.teacher_rows(row)}
        for name in taught.parts:
            if name in trained:
                fingerprints[name] = model_fingerprint(board.run(trained[name], seed))
            else:
                only = Taught(name, {name: 1.0}, "", taught.ease_l2 if name == "ease" else 0.0)
                fingerprints[name] = teacher_names(board, row, seed, only).fingerprint(data)
    described = dataclasses.asdict(taught) if taught is not None else None
    return {"role": row.role, "taught": described, "fingerprints": fingerprints, "tail": tail}


if __name__ == "__main__":
    command_line.run(job)

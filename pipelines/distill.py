"""python -m pipelines.distill: from check-ins to a distilled, exported student."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from rd_tf import command_line, run_directory
from rd_tf.command_line import choose, parameter_names
from rd_tf.export import export, names_for
from rd_tf.flag_definitions import Protocol, choosing_protocol, protocol_in, with_protocol
from rd_tf.prepare import prepare
from rd_tf.runtime import cluster
from rd_tf.serving.publishing import ExportOptions, check_export_dir, check_export_name
from rd_tf.storage import InputError, directory_lock, read_manifest, write_json
from rd_tf.teach import teach
from rd_tf.train import teacher_split, train

if TYPE_CHECKING:
    from pipelines.choose import Choice

# Role, which names the run's directory -> title.
ROLES = {"teacher": "teacher", "student": "student alone", "distilled": "student distilled"}
# With the student's seed the teacher would see the same batches and negatives in the same order, and the noise of its
# last steps would be the student's too: their lists would agree by shared chance, not by learning.
TEACHER_SEED = 1000
# The highest value of --seed.
_HIGHEST = 1_000_000
# Flags that no stage has, and flags of the stages that the pipeline sets itself.
_OWN = {
    "teacher_dim",
    "student_dim",
    "teacher_epochs",
    "distilled_epochs",
    "distilled_dropout",
    "seeds",
    "results",
    "all_metrics",
    "candidates",
    "auto_minutes",
    "choice",
    "one_teacher",
}
_SET_HERE = {"dim", "seed", "windows"}
# Words that --teacher takes beside a place.
AUTO, LARGE = "auto", "large"
# How a file of lists is read; its ids are in --user_column and --item_column, as those of the input are.
_LIST_FLAGS = ("rank_column", "score_column", "position_column", "unknown", "incomplete")


def distill(**flags: Any) -> dict[str, Any]:
    """Prepares data, trains a teacher, a student alone and a student distilled from the teacher, and exports the last.

    With --format=synthetic or --input the dataset directory --dataset is made first, unless it is there. Runs lie under
    --run_dir as seed-<seed>/teacher (trained with <seed> + 1000), student and distilled; a finished one is kept on the
    next call, --force does all again. Which teacher, which mixture of teachers and which weight of its lists is best,
    the validation split decides (--teacher=auto, or none); of several seeds, the first decides. --teacher=large trains
    the --model with --teacher_dim and takes the settings of the flags. --teacher also names what to distil from in
    place of training a teacher: a finished run, a teacher cache, or a file of lists that another system made (see
    rd_tf.teach --lists); of lists the table has a teacher's row where --teacher=auto made them.
    """
    seeds = parse_seeds(flags["seeds"])
    if not flags["run_dir"]:
        raise InputError("--run_dir is empty; name a directory for the runs")
    if not flags["dataset"]:
        raise InputError("--dataset is empty; name a dataset directory")
    check_export_dir(flags["export_dir"])
    check_export_name(flags["export_name"])
    if cluster()[1] > 1:
        raise InputError(
            "TF_CONFIG in the environment names several workers, but this pipeline runs in one process; unset it, or "
            "run python -m rd_tf.train on every worker for the teacher and for the students"
        )
    is_auto = flags["teacher"] in ("", AUTO)
    if is_auto:
        _check_auto(flags)
    if flags["teacher"] in (AUTO, LARGE):
        # No place of a teacher that is there.
        flags = {**flags, "teacher": ""}
    has_lists = _is_lists(flags["teacher"])
    if flags["teacher"] and not has_lists:
        run_directory.load_run_manifest(flags["teacher"], "teacher")
    is_place = flags["teacher"] and Path(flags["teacher"]).is_dir()
    flags = with_protocol(flags, teacher_split(flags["teacher"]) if is_place else "")
    if flags["split"] == "all":
        raise InputError("--split=all holds nothing out for the table; train with rd_tf.train --split=all")
    root = Path(flags["run_dir"])
    with directory_lock(root):
        _prepare_if_asked(flags)
        _check_before_training({**flags, "teacher": AUTO if is_auto else flags["teacher"]}, has_lists)
        from rd_tf.runtime import import_quietly

        import_quietly()
        from pipelines.report import make_report

        lists = _cache_of_lists(root, flags) if has_lists else ""
        runs: dict[int, dict[str, Path]] = {}
        choice = None
        if is_auto:
            from pipelines.choose import choose_teacher

            choice = choose_teacher(root / AUTO, seeds[0], flags)
        for seed in seeds:
            directory = root / f"seed-{seed}"
            if choice is not None:
                teacher = {}
                if flags["one_teacher"] and runs:
                    teacher = {name: path for name, path in runs[seeds[0]].items() if name.startswith("teacher")}
                runs[seed] = _train_chosen(directory, seed, flags, choice, teacher)
            else:
                runs[seed] = _train_three(directory, seed, flags, lists)
        distilled = runs[seeds[0]]["distilled"]
        export_path = _export_once(root, distilled, flags)
        baselines = _baselines(root, flags)
        return make_report(root, runs, baselines, export_path, flags["results"], flags["all_metrics"], choice)


distill.flag_names = list(  # type: ignore[attr-defined]
    dict.fromkeys(
        name
        for name in (
            *parameter_names(train),
            *parameter_names(prepare),
            *parameter_names(export),
            *_LIST_FLAGS,
            *sorted(_OWN),
        )
        if name not in _SET_HERE
    )
)


def parse_seeds(texts: list[str]) -> list[int]:
    """Reads --seeds.

    Raises:
        InputError: there is none, one is no whole number from 0, stands twice, or is too large for the teacher's seed.
    """
    seeds = [int(text) for text in texts if text.strip().isdecimal()]
    given = f"--seeds={','.join(texts)}"
    if not texts or len(set(seeds)) < len(texts):
        raise InputError(f"{given}: seeds are different whole numbers from 0, such as 0,1,2")
    if max(seeds) + TEACHER_SEED > _HIGHEST:
        raise InputError(
            f"{given}: {max(seeds)} is too large, since the teacher's seed is {TEACHER_SEED} more and at most "
            f"{_HIGHEST}; use seeds up to {_HIGHEST - TEACHER_SEED}"
        )
    return seeds


def stages(paths: dict[str, Path], seed: int, flags: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The flags of `rd_tf.train` for every role, in the order of training.

    Args:
        paths: role -> run directory.
        seed: of the students; the teacher has another one.
        flags: every flag of `pipelines.distill`.
    """
    own: dict[str, dict[str, Any]] = {
        "teacher": {
            "dim": flags["teacher_dim"],
            "seed": seed + TEACHER_SEED,
            "teacher": "",
            "epochs": flags["teacher_epochs"] or flags["epochs"],
        },
        "student": {"dim": flags["student_dim"], "teacher": ""},
        "distilled": {
            "dim": flags["student_dim"],
            "teacher": str(paths["teacher"]),
            "epochs": flags["distilled_epochs"] or flags["epochs"],
            "dropout": flags["dropout"] if flags["distilled_dropout"] < 0 else flags["distilled_dropout"],
        },
    }
    return {role: choose(train, flags, **{"run_dir": str(paths[role]), "seed": seed, **own[role]}) for role in ROLES}


def _prepare_if_asked(flags: dict[str, Any]) -> None:
    if flags["input"] or flags["format"] == "synthetic":
        prepare(**choose(prepare, flags, seed=0))


def _check_before_training(flags: dict[str, Any], has_lists: bool) -> None:
    """Refuses what a later stage would refuse after an hour of training."""
    from rd_tf.data.dataset import check_same_dataset, load_manifest

    items = load_manifest(flags["dataset"])["items"]
    if flags["k"] > items:
        raise InputError(f"--k={flags['k']} is larger than the catalogue of {items} items; use a smaller one")
    names_for(ExportOptions(**_export_options(flags)).for_catalogue(items), flags["dataset"])
    if not has_lists:
        _check_lists(flags)
    if flags["teacher"] in ("", AUTO) or has_lists:
        return
    manifest = run_directory.load_run_manifest(flags["teacher"], "teacher")
    check_same_dataset(flags["dataset"], manifest["dataset"]["fingerprint"], "teacher", flags["teacher"])
    trained = manifest.get("flags") or {}
    if not (asked := protocol_in(flags)).trains_as(manifest["split"]):
        raise InputError(
            f"--teacher={flags['teacher']} was trained with {Protocol.of(manifest['split']).flags}, but this pipeline "
            f"has {asked.flags}; use a teacher of the same"
        )
    for name in ("sequence_length", "target_length"):
        if trained.get(name) != flags[name]:
            raise InputError(
                f"--teacher={flags['teacher']} was trained with --{name}={trained.get(name)}, but this pipeline has "
                f"--{name}={flags[name]}; use a teacher of the same"
            )


def _check_lists(flags: dict[str, Any]) -> None:
    """Checks that --mask leaves --k items in the lists of every split that lists are made for."""
    from rd_tf.data.teacher_lists import check_k_of
    from rd_tf.data.windows import open_dataset

    dataset, protocols = open_dataset(flags["dataset"]), [protocol_in(flags)]
    if flags["teacher"] == AUTO:
        protocols.append(choosing_protocol(flags))
    for protocol in protocols:
        check_k_of(dataset.split(protocol.name), flags)


def _export_options(flags: dict[str, Any]) -> dict[str, Any]:
    return {field.name: flags[field.name] for field in dataclasses.fields(ExportOptions)}


def _is_lists(teacher: str) -> bool:
    # Imports NumPy, which would make --help slow.
    from rd_tf.data.teacher_lists import is_teacher_cache

    return bool(teacher) and (Path(teacher).is_file() or is_teacher_cache(teacher))


def _cache_of_lists(root: Path, flags: dict[str, Any]) -> str:
    """The teacher cache of --teacher=<file or cache>; of a file it is made below --run_dir."""
    if not Path(flags["teacher"]).is_file():
        return str(flags["teacher"])
    given = {"teacher": "", "lists": flags["teacher"], "saved_model": "", "cache": str(root / "teacher_lists")}
    from rd_tf.models.registry import has_short_windows

    short = has_short_windows(flags["model"], flags["short_windows"])
    given["short_windows"] = "on" if short else "off"
    return teach(**choose(teach, {**command_line.default_flags(teach), **flags}, **given))


def _train_three(directory: Path, seed: int, flags: dict[str, Any], lists: str) -> dict[str, Path]:
    given = lists or flags["teacher"]
    paths = {role: directory / role for role in ROLES}
    if given:
        paths["teacher"] = Path(given)
    for role, values in stages(paths, seed, flags).items():
        if role == "teacher" and given:
            continue
        print(f"\n{role}, seed {seed}: {paths[role]}", flush=True)
        train(**values)
    if lists and not _is_evaluated(Path(lists), protocol_in(flags).name):
        del paths["teacher"]
    return paths


def _is_evaluated(lists: Path, split: str) -> bool:
    """Whether with the lists lies how their teacher ranks, as --teacher=auto writes it."""
    from pipelines.records import read_metrics

    if not (lists / run_directory.METRICS).is_file():
        return False
    metrics = read_metrics(lists, ["map"])
    return "teacher" in metrics and metrics["split"] == split


def _train_chosen(
    directory: Path, seed: int, flags: dict[str, Any], choice: "Choice", teacher: dict[str, Path]
) -> dict[str, Path]:
    """Trains the students for as many epochs as were best, from the teacher that was chosen, and maybe made before."""
    from pipelines.choose import make_chosen

    teacher = teacher or make_chosen(directory, choice, seed, flags)
    paths = {role: directory / role for role in ROLES} | {"teacher": teacher["teacher"]}
    # Nothing of the distilled student's is another one's but what was chosen for it.
    own = {"alpha": choice.alpha, "score_temperature": choice.score_temperature}
    for role in ("student", "distilled"):
        given = {**flags, "teacher": "", "distilled_epochs": 0, "epochs": choice.epochs[role]}
        print(f"\n{role}, seed {seed}: {paths[role]}", flush=True)
        train(**stages(paths, seed, given | (own if role == "distilled" else {}))[role])
    return paths | teacher


def _check_auto(flags: dict[str, Any]) -> None:
    from rd_tf.flag_definitions import CANDIDATES

    named = flags["candidates"]
    if not named or len(set(named)) < len(named) or not set(named) <= set(CANDIDATES):
        raise InputError(
            f"--candidates={','.join(named)}: it takes some of {', '.join(CANDIDATES)}, each once, with commas between"
        )
    if flags["mask"] == "target":
        raise InputError("--mask=target: --teacher=auto decides for lists of what a user has not seen; use --mask=seen")


def _export_once(root: Path, distilled: Path, flags: dict[str, Any]) -> str:
    """Exports, unless the export of these very weights is there from an earlier call."""
    done = root / "export.json"
    wanted = {
        # Not "weights", which is an option of the export.
        "model": run_directory.load_run_manifest(distilled)["model"]["fingerprint"],
        # Those of the gate, so that it is asked again where they are others.
        **{name: flags[name] for name in ("export_dir", "export_name", "keep_versions", "min_metric_ratio")},
        "gate_against": flags["gate_against"],
        **_export_options(flags),
    }
    if done.is_file() and not flags["force"]:
        before = read_manifest(done, {"path": str, "made_from": dict})
        if before["made_from"] == wanted and Path(before["path"]).is_dir():
            print(f"\nexport kept: {before['path']}", flush=True)
            return str(before["path"])
    print(flush=True)
    version = Path(export(**choose(export, flags, run_dir=str(distilled)))).name
    path = str(Path(flags["export_dir"]) / flags["export_name"] / version)
    write_json(done, {"path": path, "made_from": wanted})
    return path


def _baselines(root: Path, flags: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Metrics of the rankers that learn nothing, computed once for a dataset, a split and cutoffs."""
    from rd_tf.data.dataset import load_dataset, load_manifest
    from rd_tf.data.windows import split_interactions
    from rd_tf.evaluation.evaluator import evaluate_baselines

    done = root / "baselines.json"
    split = protocol_in(flags).name
    wanted = {"dataset": load_manifest(flags["dataset"])["fingerprint"], "split": split, "cutoffs": flags["cutoffs"]}
    if done.is_file():
        before = read_manifest(done, {"metrics": dict, "made_from": dict})
        if before["made_from"] == wanted:
            return dict(before["metrics"])
    interactions = load_dataset(flags["dataset"])
    found = evaluate_baselines(
        interactions, split_interactions(interactions, split), flags["cutoffs"], flags["block_size"]
    )
    metrics = {name: evaluation.metrics for name, evaluation in found.items()}
    write_json(done, {"metrics": metrics, "made_from": wanted})
    return metrics


def distill_flags(arguments: list[str]) -> dict[str, Any]:
    """Every flag of `pipelines.distill` that these arguments come to.

    Args:
        arguments: a cell's; the first is its flagfile.

    Raises:
        InputError: the flagfile is missing or cannot be used.
    """
    try:
        return command_line.parse(distill, arguments)
    except flags.Error as error:
        raise InputError(f"{arguments[0]}: {' '.join(str(error).split())}") from None


if __name__ == "__main__":
    command_line.run(distill)

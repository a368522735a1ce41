"""Versions of a served model: their options; they appear and vanish whole, and only where they rank well enough."""

import contextlib
import dataclasses
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rd_tf import run_directory
from rd_tf.evaluation.metrics import AT_CUTOFF
from rd_tf.storage import (
    InputError,
    atomic_directory,
    directory_lock,
    file_sha256,
    read_manifest,
    remove_all_leftovers,
    remove_whole,
    require,
    write_text,
)

# Holds the highest number ever published: a server that still has 7 loaded would not notice another 7.
LAST_VERSION_FILE = ".last_version"
# tensorflow_model_server reads a version as int64 and passes over larger ones.
_HIGHEST = 2**63 - 1
# The one part of the report that tells of the machine at that moment rather than of the export.
_OF_THE_MOMENT = "seconds_per_request"
EXTRA = "assets.extra"
REPORT_FILE = Path(EXTRA) / "report.json"
WARMUP_FILE = Path(EXTRA) / "tf_serving_warmup_requests"
LAST = "last"
# Relative slack of the gate: a value at its bound passes whichever way a product of decimals is rounded.
_ROUNDING = 1e-9
_METRIC = re.compile(rf"map|(?:{'|'.join(AT_CUTOFF)})@[1-9][0-9]*")


class NothingNew(Exception):
    """Raised in the block of `publishing` where the version in the making is equal to the highest one."""


@dataclasses.dataclass(frozen=True)
class NewVersion:
    """A version that is being made.

    Attributes:
        number: its number.
        directory: where it is to be filled, a sibling of `path` whose name is no number.
        path: where it appears.
    """

    number: int
    directory: Path
    path: Path


def versions(directory: str | os.PathLike[str]) -> list[Path]:
    """The versions of a served model as tensorflow_model_server sees them, ascending; none without a directory."""
    return [path for _, path in _numbered(Path(directory)) if path.is_dir()]


@contextlib.contextmanager
def publishing(directory: str | os.PathLike[str], keep_versions: int = 0) -> Iterator[NewVersion]:
    """Yields a directory to fill; it appears as the next version, fsynced, when the block ends without an error.

    After an error, or when the process is killed, the served model has the versions it had before. What a killed
    process left behind is removed by the next one. A number is never used twice, though its version is removed. After
    `NothingNew`, which goes no further, no version appears, and old ones are removed as if one had.

    Args:
        directory: the served model's directory, made where it is missing.
        keep_versions: how many of the highest versions stay, the new one included; 0 keeps all.

    Raises:
        InputError: another process publishes there, the mark of the last version is damaged, a higher version appeared
            meanwhile, or an old version cannot be removed (the new one then stays).
        ValueError: `keep_versions` is negative.
    """
    if keep_versions < 0:
        raise ValueError(f"keep_versions must be 0 or more; received {keep_versions}")
    directory = Path(directory)
    with directory_lock(directory):
        remove_all_leftovers(directory)
        number = 1 + max(_read_mark(directory), _highest(directory))
        path = directory / str(number)
        with contextlib.suppress(NothingNew), atomic_directory(path) as temporary:
            yield NewVersion(number, temporary, path)
            if _highest(directory) >= number:
                raise InputError(
                    f"{directory} got version {_highest(directory)} while {number} was made; publish again"
                )
            # The mark is written before the version appears: a number that is marked but never used is harmless.
            write_text(directory / LAST_VERSION_FILE, f"{number}\n")
        if keep_versions:
            _remove_all_but(versions(directory), keep_versions)


def _remove_all_but(found: list[Path], kept: int) -> None:
    for path in found[:-kept]:
        try:
            remove_whole(path)
        except OSError as error:
            raise InputError(
                f"{found[-1]} is published, but the old {path} cannot be removed ({error.strerror}); remove it yourself"
            ) from error


def _highest(directory: Path) -> int:
    return max((number for number, _ in _numbered(directory)), default=0)


def _numbered(directory: Path) -> list[tuple[int, Path]]:
    try:
        paths = list(directory.iterdir())
    except FileNotFoundError:
        return []
    found = [(int(path.name), path) for path in paths if path.name.isascii() and path.name.isdigit()]
    return sorted((number, path) for number, path in found if number <= _HIGHEST)


def _read_mark(directory: Path) -> int:
    path = directory / LAST_VERSION_FILE
    try:
        number = int(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return 0
    except ValueError:
        number = -1
    if not 0 <= number < _HIGHEST:
        raise InputError(f"{path} is damaged; write the number of the last version that was published there into it")
    return number


def are_equal_versions(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two versions have the same files with the same bytes, the seconds in their reports aside.

    Args:
        one: a version's directory.
        other: another one's.

    Raises:
        InputError: a report is damaged.
    """
    files, others = _version_files(Path(one)), _version_files(Path(other))
    return files.keys() == others.keys() and all(
        _comparable_report(files[name]) == _comparable_report(others[name])
        if name == REPORT_FILE
        else files[name].stat().st_size == others[name].stat().st_size
        and file_sha256(files[name]) == file_sha256(others[name])
        for name in files
    )


def _version_files(version: Path) -> dict[Path, Path]:
    return {path.relative_to(version): path for path in version.rglob("*") if path.is_file()}


def _comparable_report(path: Path) -> dict[str, Any]:
    return {name: value for name, value in read_manifest(path, {}).items() if name != _OF_THE_MOMENT}


@dataclasses.dataclass(frozen=True)
class Measured:
    """How well a model ranks and on what that was measured.

    Attributes:
        metrics: name -> value, as in a run's metrics.json: `map`, `ndcg@10`, ...
        split: "validation" or "test".
        dataset: fingerprint.
        source: the run or the version, for messages.
    """

    metrics: Mapping[str, float]
    split: str
    dataset: str
    source: str


def measured_run(run_dir: str | os.PathLike[str], flag: str = "run_dir") -> Measured:
    """What a finished run's metrics.json says.

    Args:
        run_dir: the run directory.
        flag: the flag that named it, for messages.

    Raises:
        InputError: no finished run, or its metrics.json is missing or damaged.
    """
    manifest = run_directory.load_run_manifest(run_dir, flag)
    path = Path(run_dir) / run_directory.METRICS
    found = read_manifest(path, {"split": str, "metrics": dict})
    return Measured(
        _finite_metrics(found["metrics"], path), found["split"], manifest["dataset"]["fingerprint"], str(run_dir)
    )


def measured_version(version: str | os.PathLike[str], name: str = "") -> Measured:
    """What the report of an exported version says of the model as it was exported.

    Args:
        version: the version's directory.
        name: what messages call it; empty: its directory.

    Raises:
        InputError: there is no report, it is damaged, or it has no metrics.
    """
    path, name = Path(version) / REPORT_FILE, name or str(version)
    if not path.exists():
        raise InputError(
            f"{path} is missing, so there is nothing to hold a model against; name a run by --gate_against"
        )
    report = read_manifest(path, {})
    if report.get("quality") is None:
        raise InputError(f"{name} was not measured, since nobody has a held-out item; leave --min_metric_ratio out")
    require(report, {"quality.exported": dict, "quality.split": str, "quality.dataset": str}, path)
    quality = report["quality"]
    return Measured(_finite_metrics(quality["exported"], path), quality["split"], quality["dataset"], name)


def _finite_metrics(metrics: Mapping[str, Any], path: Path) -> dict[str, float]:
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{path} is damaged ({name} is {value!r}); make it again")
    return dict(metrics)


def parse_min_metric_ratio(values: Sequence[str]) -> dict[str, float]:
    """Reads --min_metric_ratio.

    Args:
        values: `metric:ratio` each.

    Returns:
        Metric -> the least share of the reference's value.

    Raises:
        InputError: no such metric, one that stands twice, or a ratio that is no finite number above 0.
    """
    given, ratios = ",".join(values), {}
    for value in values:
        metric, colon, text = (part.strip() for part in value.partition(":"))
        if not colon:
            raise InputError(f"--min_metric_ratio={given}: {value!r} is not metric:ratio, such as map:0.98")
        if _METRIC.fullmatch(metric) is None:
            names = ", ".join(f"{name}@n" for name in AT_CUTOFF)
            raise InputError(f"--min_metric_ratio={given}: {metric!r} is no metric; choose from map, {names}")
        if metric in ratios:
            raise InputError(f"--min_metric_ratio={given}: {metric} stands twice")
        try:
            ratio = float(text)
        except ValueError:
            raise InputError(f"--min_metric_ratio={given}: the ratio {text!r} of {metric} is not a number") from None
        if not (math.isfinite(ratio) and ratio > 0):
            raise InputError(f"--min_metric_ratio={given}: the ratio {text} of {metric} is not a number above 0")
        ratios[metric] = ratio
    return ratios


def find_reference(gate_against: str, directory: str | os.PathLike[str]) -> Measured | None:
    """What a model is held against.

    Args:
        gate_against: a run directory; "" or "last" for the highest version of the served model.
        directory: the served model's directory.

    Returns:
        None where "last" is asked for and there is no version yet.

    Raises:
        InputError: no finished run, or the last version has no usable report.
    """
    if gate_against not in ("", LAST):
        return measured_run(gate_against, "gate_against")
    found = versions(directory)
    return measured_version(found[-1]) if found else None


def check_gate(candidate: Measured, reference: Measured, ratios: Mapping[str, float]) -> None:
    """Refuses a model that is worse than a share of the reference.

    Args:
        candidate: the model to publish.
        reference: what it is held against.
        ratios: see `parse_min_metric_ratio`.

    Raises:
        InputError: a metric is too low, was not measured, or was measured on another dataset or split.
    """
    if not ratios:
        return
    for what, mine, theirs in (
        ("dataset", candidate.dataset[:16], reference.dataset[:16]),
        ("split", candidate.split, reference.split),
    ):
        if mine != theirs:
            raise InputError(
                f"{candidate.source} was measured on the {what} {mine}, but {reference.source} on {theirs}, so they "
                "cannot be compared; name another run by --gate_against"
            )
    given = ",".join(f"{metric}:{ratio:g}" for metric, ratio in ratios.items())
    for metric, ratio in ratios.items():
        for measured in (candidate, reference):
            if metric not in measured.metrics:
                raise InputError(
                    f"--min_metric_ratio={given}: {measured.source} has no {metric}, only {', '.join(measured.metrics)}"
                )
        own, other = candidate.metrics[metric], reference.metrics[metric]
        if own < ratio * other * (1 - _ROUNDING):
            share = f"{own / other:.4f} times " if other else ""
            raise InputError(
                f"--min_metric_ratio={given}: {metric} of {candidate.source} is {own:.6g}, {share}the {other:.6g} of "
                f"{reference.source}; at least {ratio:g} times that, {ratio * other:.6g}, is asked for, so nothing is "
                "published"
            )


_CHOICES = {
    "weights": ("float32", "float16", "int8"),
    "id_type": ("string", "int64"),
    "index": ("exact", "clusters"),
    "export_format": ("saved_model", "litert"),
}
# These characters need no quoting in a URL or in a server's configuration.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """How a ranker is exported; every attribute is the flag of that name.

    Attributes:
        max_k: longest list that a request may ask for; the catalogue bounds it too.
        exclude_recent: whether a request's recent items are kept out of its list.
        id_type: "string" or "int64", how requests and answers write ids.
        weights: "float32", "float16" or "int8", how the weights are stored.
        index: "exact" or "clusters", how the best items are found.
        clusters: cells of the clustered index; 0 chooses.
        probes: cells that are searched for a query; 0 for as many as `recall` asks for.
        recall: share of the exact 10 best items that is to be found.
        item_table: whether item vectors are written beside the model, for other indexes.
        names: whether lists have an output with the items' names.
        batching: whether requests of different clients are answered together, inside the graph.
        max_batch_size: most rows that are answered together.
        batch_timeout_micros: how long a request waits for others, in microseconds.
        num_batch_threads: batches that are computed at the same time.
        export_format: "saved_model" for tensorflow_model_server, or "litert" for devices.
    """

    max_k: int = 100
    exclude_recent: bool = True
    id_type: str = "string"
    weights: str = "float32"
    index: str = "exact"
    clusters: int = 0
    probes: int = 0
    recall: float = 0.95
    item_table: bool = False
    names: bool = False
    export_format: str = "saved_model"
    batching: bool = False
    max_batch_size: int = 64
    batch_timeout_micros: int = 0
    num_batch_threads: int = 2

    def for_catalogue(self, num_items: int) -> "ExportOptions":
        """These options with everything chosen that they left open.

        Raises:
            InputError: they do not fit the catalogue or each other.
        """
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"--{name}={getattr(self, name)} is none of {', '.join(allowed)}")
        if self.max_k < 1:
            raise InputError(f"--max_k={self.max_k} is below 1; a request must be able to ask for an item")
        if self.names and self.export_format != "saved_model":
            raise InputError(
                f"--names does not go with --export_format={self.export_format}, whose lists are numbers; leave it out"
            )
        if self.batching and self.export_format != "saved_model":
            raise InputError(
                f"--batching does not go with --export_format={self.export_format}, since a device has one client; "
                "leave it out"
            )
        for name, least in (("max_batch_size", 1), ("batch_timeout_micros", 0), ("num_batch_threads", 1)):
            if getattr(self, name) < least:
                raise InputError(f"--{name}={getattr(self, name)} is below {least}")
        if self.index == "exact":
            return dataclasses.replace(self, max_k=min(self.max_k, num_items))
        if self.export_format != "saved_model":
            raise InputError(
                f"--index=clusters does not go with --export_format={self.export_format}; use --index=exact"
            )
        if self.clusters > num_items:
            raise InputError(f"--clusters={self.clusters} is more than the {num_items} items; use fewer")
        # Near the square root of the items, scoring the centroids costs as much as scoring the items of a few cells.
        clusters = self.clusters or min(num_items, max(1, round(2 * num_items**0.5)))
        if self.probes < 0:
            raise InputError(f"--probes={self.probes} is below 0; search a cell at least, or 0 for what --recall wants")
        if not 0 < self.recall <= 1:
            raise InputError(f"--recall={self.recall} is not above 0 and at most 1, a share of the 10 best items")
        if self.clusters and self.probes > self.clusters:
            raise InputError(f"--probes={self.probes} is more than --clusters={self.clusters}; probe fewer cells")
        return dataclasses.replace(
            self, max_k=min(self.max_k, num_items), clusters=clusters, probes=min(self.probes, clusters)
        )


def check_export_dir(export_dir: str | os.PathLike[str]) -> None:
    """Checks the directory of all exports, before any work.

    Raises:
        InputError: it is empty, or TensorFlow would take its path for a pattern of paths.
    """
    if not os.fspath(export_dir):
        raise InputError("--export_dir is empty; name a directory")
    path = str(Path(export_dir).absolute())
    if found := [character for character in "[]*?\\" if character in path]:
        raise InputError(
            f"--export_dir={export_dir} lies at {path}, which holds {' '.join(found)}; TensorFlow takes that for a "
            "pattern and finds no model there, so name another directory"
        )


def is_export_name(name: str) -> bool:
    """Whether a served model may have a name."""
    return _NAME.fullmatch(name) is not None


def check_export_name(name: str) -> None:
    """Checks a served model's name.

    Raises:
        InputError: it would need quoting in a URL, or leads to another directory.
    """
    if not is_export_name(name):
        raise InputError(
            f"--export_name={name} cannot be a served model's name; take letters, digits, '_', '-', '.', not '.' first"
        )

"""The exports that benchmarks.serving measures."""

import dataclasses
import gc
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.subjects import SEQUENCE_LENGTH
from rd_tf import run_directory
from rd_tf.data.dataset import check_same_dataset, load_dataset
from rd_tf.models.caser import Caser
from rd_tf.models.ranker import SequenceRanker
from rd_tf.models.registry import load_model
from rd_tf.serving.export import export_ranker
from rd_tf.serving.options import ExportOptions


@dataclasses.dataclass(frozen=True)
class ServedExport:
    """An export on disk.

    Attributes:
        name: of the case.
        base_path: parent of its only version.
        version: the version's directory.
        user_ids: raw ids.
        item_ids: raw ids.
    """

    name: str
    base_path: Path
    version: Path
    user_ids: Sequence[str]
    item_ids: Sequence[str]

    @property
    def bytes(self) -> int:
        """Size of the version."""
        return sum(file.stat().st_size for file in self.version.rglob("*") if file.is_file())


def export_random(
    name: str, dim: int, options: ExportOptions, users: int, items: int, seed: int, directory: Path
) -> ServedExport:
    """Exports a Caser with the paper's settings and random weights."""
    ids = [str(user) for user in range(users)], [str(item) for item in range(items)]
    return _export(name, lambda: Caser(users, items, SEQUENCE_LENGTH, dim, seed=seed), *ids, options, directory)


def export_run(run_dir: str | os.PathLike[str], dataset: str, directory: Path) -> ServedExport:
    """Exports a finished run in float32; its case is called after the last part of its path.

    Raises:
        InputError: no finished run, or of another dataset.
    """
    manifest = run_directory.load_run_manifest(run_dir)
    check_same_dataset(dataset, manifest["dataset"]["fingerprint"], "run_dir", run_dir)
    data = load_dataset(dataset)
    name = Path(run_dir).absolute().name
    return _export(name, lambda: load_model(run_dir), data.user_ids, data.item_ids, ExportOptions(), directory)


def _export(
    name: str,
    make: Callable[[], SequenceRanker],
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    options: ExportOptions,
    directory: Path,
) -> ServedExport:
    base_path = directory / name
    version = export_ranker(make(), user_ids, item_ids, base_path, options)
    # A catalogue of a million is some GB of copies, which would stand beside the servers.
    gc.collect()
    return ServedExport(name, base_path, version, user_ids, item_ids)

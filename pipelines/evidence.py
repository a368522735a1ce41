"""What results/ keeps of a finished run: all that a table, a test or a plot needs, without the weights."""

import shutil
from pathlib import Path

from pipelines.per_user_values import PER_USER_METRICS, read_per_user
from rd_tf import run_directory
from rd_tf.storage import InputError, atomic_directory

FILES = (
    run_directory.FLAGS,
    run_directory.METRICS,
    run_directory.HISTORY,
    run_directory.LOG,
    run_directory.MANIFEST,
)
_COMPRESSION_LEVEL = 19
# Nearly every user's average precision is another: no dictionary is smaller, but all first bytes, then all second ones.
_DICTIONARIES, _ENCODING = list(PER_USER_METRICS[:-1]), {"ap": "BYTE_STREAM_SPLIT"}


def keep_evidence(run_dir: Path, target: Path, per_user: bool) -> None:
    """Copies a finished run's evidence, whole or not at all.

    Args:
        run_dir: directory of the finished run.
        target: directory that the copy becomes; one that is there is replaced.
        per_user: whether to keep `per_user.parquet` too, cut down to `user` int32 and `PER_USER_METRICS`
            float64 (about 145 KB for 13,149 users).

    Raises:
        InputError: the run has not finished, lacks one of the metrics or a file, or a file is damaged.
    """
    run_directory.load_run_manifest(run_dir)
    missing = [name for name in FILES if not (run_dir / name).is_file()]
    if missing:
        raise InputError(f"{run_dir / missing[0]} is missing; train the model again")
    with atomic_directory(target, replace=True) as temporary:
        for name in FILES:
            shutil.copyfile(run_dir / name, temporary / name)
        if per_user:
            read_per_user(run_dir).to_parquet(
                temporary / run_directory.PER_USER,
                index=False,
                compression="zstd",
                compression_level=_COMPRESSION_LEVEL,
                use_dictionary=_DICTIONARIES,
                column_encoding=_ENCODING,
            )


def is_complete(directory: Path, per_user: bool) -> bool:
    """Whether all that `keep_evidence` writes is there."""
    names = (*FILES, run_directory.PER_USER) if per_user else FILES
    return all((directory / name).is_file() for name in names)

"""What results/ keeps of a finished run: all that a table, a test or a plot needs, without the weights."""

import shutil
from pathlib import Path

import pandas as pd

from pipelines.published import COLUMNS
from rd_tf import run_directory, storage
from rd_tf.errors import InputError

FILES = (
    run_directory.FLAGS,
    run_directory.METRICS,
    run_directory.HISTORY,
    run_directory.LOG,
    run_directory.MANIFEST,
)
# The paper's metrics as `per_user.parquet` names them: `ap`'s mean is the MAP.
PER_USER_METRICS = tuple("ap" if name == "map" else name for name in COLUMNS)
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
        InputError: the run has not finished, or lacks one of the metrics.
    """
    run_directory.load_run_manifest(run_dir)
    with storage.atomic_directory(target, replace=True) as temporary:
        for name in FILES:
            shutil.copyfile(run_dir / name, temporary / name)
        if per_user:
            table = pd.read_parquet(run_dir / run_directory.PER_USER)
            missing = [name for name in PER_USER_METRICS if name not in table]
            if missing:
                raise InputError(f"{run_dir} was evaluated without {missing[0]}; the tables need --cutoffs=3,5,10")
            types = {"user": "int32", **dict.fromkeys(PER_USER_METRICS, "float64")}
            table[list(types)].astype(types).to_parquet(
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

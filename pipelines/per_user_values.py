"""Every user's metrics of a run, as `per_user.parquet` holds them."""

from pathlib import Path

import pandas as pd
import pyarrow as pa

from pipelines.published import COLUMNS
from rd_tf import run_directory
from rd_tf.storage import InputError

# The paper's metrics as `per_user.parquet` names them: `ap`'s mean is the MAP.
PER_USER_METRICS = tuple("ap" if name == "map" else name for name in COLUMNS)
_TYPES = {"user": "int32", **dict.fromkeys(PER_USER_METRICS, "float64")}


def read_per_user(directory: Path) -> pd.DataFrame:
    """Reads `user` int32 and `PER_USER_METRICS` float64 of a run or of its evidence, a row a user.

    Raises:
        InputError: the file is missing or damaged, or lacks one of the metrics.
    """
    path = directory / run_directory.PER_USER
    try:
        table = pd.read_parquet(path)
        missing = [name for name in _TYPES if name not in table]
        if not missing:
            table = table[list(_TYPES)].astype(_TYPES)
    except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path} cannot be read ({first}); evaluate the model again") from None
    if missing:
        raise InputError(f"{directory} was evaluated without {missing[0]}; the tables need --cutoffs=3,5,10")
    if table.isna().to_numpy().any():
        raise InputError(f"{path} is damaged (a value is missing); evaluate the model again")
    return table

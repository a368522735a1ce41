"""What a run's `history.csv` tells, a row an epoch."""

from pathlib import Path

import pandas as pd

from rd_tf import run_directory
from rd_tf.storage import InputError


def read_history(directory: Path) -> pd.DataFrame:
    """Reads numbers by name, `epoch` among them; NaN where an epoch has none.

    Raises:
        InputError: the file is missing or damaged.
    """
    path = directory / run_directory.HISTORY
    try:
        history = pd.read_csv(path).astype("float64")
        history["epoch"] = history["epoch"].astype("int64")
    except (OSError, ValueError, KeyError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path} is damaged ({first}); restore it or train the model again") from None
    return history

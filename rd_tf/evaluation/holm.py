"""The p-values of a family of tests, corrected for their number."""

import numpy as np


def holm(p_values: np.ndarray) -> np.ndarray:
    """Holm's step-down correction of a family of tests (Scandinavian Journal of Statistics 1979).

    Args:
        p_values: `[tests] float`; none is NaN.

    Returns:
        `[tests] float64`, the corrected p-values in the same order: to reject those below a level keeps the chance of
        one false rejection in the whole family below that level.
    """
    p_values = np.asarray(p_values, np.float64)
    order = np.argsort(p_values, kind="stable")
    stepped = np.maximum.accumulate(p_values[order] * np.arange(len(p_values), 0, -1))
    corrected = np.empty_like(p_values)
    corrected[order] = np.minimum(stepped, 1.0)
    return corrected

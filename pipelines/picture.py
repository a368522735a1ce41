"""A picture of matplotlib's, drawn without a screen."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rd_tf.storage import atomic_file


@contextlib.contextmanager
def picture(path: Path, *shape: int, **options: Any) -> Iterator[Any]:
    """Yields axes to draw on; the picture appears, whole or not at all, when the block ends without an error.

    Args:
        path: the picture.
        *shape: rows and columns of axes; none for one of them.
        **options: others of `matplotlib.pyplot.subplots`.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(*shape, layout="constrained", **options)
    try:
        yield axes
        with atomic_file(path) as temporary:
            figure.savefig(temporary, dpi=110)
    finally:
        plt.close(figure)

"""How an evaluation is spread over processes that hold the same model and data."""

from typing import Protocol

import numpy as np


class Spread(Protocol):
    """What an evaluation asks of the processes that share it."""

    def share(self, count: int) -> range:
        """This process' part of `count` things; the parts of all processes are all of them, each once."""

    def sum(self, array: np.ndarray) -> np.ndarray:
        """The sum of an array over all processes, in every one of them."""


class Alone:
    """A single process."""

    def share(self, count: int) -> range:
        return range(count)

    def sum(self, array: np.ndarray) -> np.ndarray:
        return array

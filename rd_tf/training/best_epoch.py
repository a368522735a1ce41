"""The epoch with the best validation so far, and its weights."""

from collections.abc import Callable

import numpy as np


class BestEpoch:
    """Remembers the weights of the best epoch.

    Attributes:
        epoch: from 1; 0 before the first validation.
        map: its validation MAP.
        weights: the model's at its end; empty before the first validation.
    """

    def __init__(self) -> None:
        self.restore(0, 0.0, [])

    def restore(self, epoch: int, map: float, weights: list[np.ndarray]) -> None:
        """Sets what an earlier training remembered; arguments as the attributes."""
        self.epoch, self.map, self.weights = epoch, map, weights

    def offer(self, epoch: int, map: float, weights: Callable[[], list[np.ndarray]]) -> None:
        """Takes an epoch if it is better than all before."""
        if not self.epoch or map > self.map:
            self.restore(epoch, map, weights())

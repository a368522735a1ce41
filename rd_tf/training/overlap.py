"""How much of the teacher's lists the student has made its own."""

import numpy as np

from rd_tf.data.sharded_array import ShardedArray
from rd_tf.teacher.top_k import TopK

_WINDOWS = 2048


class ListOverlap:
    """Overlap@K between the student's and the teacher's lists, on a fixed sample of training windows.

    Args:
        student: lists the student's best K items, masked as the teacher's lists are.
        teacher_items: `[windows, K] int32`.
        seed: of the sample.
    """

    def __init__(self, student: TopK, teacher_items: np.ndarray | ShardedArray, seed: int) -> None:
        rows = len(teacher_items)
        chosen = np.random.default_rng(seed).choice(rows, min(rows, _WINDOWS), replace=False)
        self._rows = np.sort(chosen)
        self._student = student
        self._teacher_items = np.asarray(teacher_items[self._rows])

    def measure(self) -> float:
        """Mean share of a teacher's list that is in the student's list for the same window, whatever the order."""
        items, _ = self._student.lists(self._rows)
        return float((items[:, :, None] == self._teacher_items[:, None, :]).any(1).mean())

"""The scores of a whole catalogue, a block of queries at a time, with a ranker's weights as they are now."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from rd_tf.errors import InputError
from rd_tf.models.histories import Histories
from rd_tf.models.ranker import SequenceRanker

# (users [batch] int32, sequences [batch, L] int32, history items and rows or None) -> scores [batch, num_items + 1]
# float32; column 0 is -inf. The history may be left out.
Scores = Callable[..., np.ndarray]
# 128 MiB of float32 a block at most. Blocks that are worked on and blocks that wait are in memory together.
_BLOCK_CELLS = 2**25


class FrozenScores:
    """Scores all items for many queries by one ranker whose weights stand still meanwhile.

    The item table is turned into `SequenceRanker.item_matrix` once instead of once a block: with d = 50 a block of
    1,024 queries and 14,010 items takes 30 us a query on one core instead of 39, with d = 100 54 instead of 60.

    Args:
        model: the ranker.
    """

    def __init__(self, model: SequenceRanker) -> None:
        self._looks_back = model.looks_back != "none"
        shapes = ([None], [None, model.sequence_length], [None], [None])
        signature = [tf.TensorSpec([None, None], tf.float32), *(tf.TensorSpec(shape, tf.int32) for shape in shapes)]

        def score(item_matrix: tf.Tensor, user: tf.Tensor, sequence: tf.Tensor, *history: tf.Tensor) -> tf.Tensor:
            looked_back = Histories(*history) if history else None
            return model.score_all(model.encode(user, sequence, history=looked_back), item_matrix)

        self._score = _traced_once(score, signature[:3])
        self._score_with_history = _traced_once(score, signature)
        self._item_matrix = _traced_once(model.item_matrix, [])

    def freeze(self, is_candidate: np.ndarray | None = None) -> Scores:
        """The scores of the model as it is now; may be called from several threads, before the weights change.

        It keeps a copy of the item table.

        Args:
            is_candidate: `[num_items + 1] bool`; the scores of other items are -inf. None: all items are candidates.

        Raises:
            InputError: a weight of an item is NaN or infinite. Where one elsewhere is, all scores of a query are NaN.
        """
        item_matrix = self._item_matrix()()
        # Before several threads ask for it.
        (self._score_with_history if self._looks_back else self._score)()
        if not np.isfinite(np.asarray(item_matrix)[:, 1:]).all():
            raise InputError("the model's weights are not finite; train it again with a smaller --learning_rate")
        if is_candidate is not None and not is_candidate[1:].all():
            # The last row holds the biases.
            biases = tf.where(is_candidate, item_matrix[-1:], -np.inf)
            item_matrix = tf.concat([item_matrix[:-1], biases], axis=0)

        def scores(
            users: np.ndarray, sequences: np.ndarray, history: tuple[np.ndarray, np.ndarray] | None = None
        ) -> np.ndarray:
            score = (self._score if history is None else self._score_with_history)()
            inputs = (tf.constant(array) for array in (users, sequences, *(history or ())))
            # A read-only view of a tensor on the CPU, where its numpy() would be a copy.
            return np.asarray(score(item_matrix, *inputs))

        return scores


def _traced_once(function: Callable[..., tf.Tensor], signature: Sequence[tf.TensorSpec]) -> Callable[[], Any]:
    """Gives a function's graph, which is traced when it is first asked for.

    Every ranker needs a graph of its own. TensorFlow warns of a `tf.function` that is made and called anew for each, as
    if it were traced by mistake; a graph that is asked for is no mistake.
    """
    # Nothing here needs AutoGraph, which leaves files among the system's temporary ones when a process is killed.
    return functools.cache(tf.function(function, input_signature=signature, autograph=False).get_concrete_function)


def block_rows(block_size: int, columns: int) -> int:
    """Rows of a block of scores: `block_size`, or fewer where the catalogue is so large that memory would matter."""
    return max(1, min(block_size, _BLOCK_CELLS // columns))

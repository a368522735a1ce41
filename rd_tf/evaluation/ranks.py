"""The scores of a whole catalogue, a block of queries at a time, with a ranker's weights as they are now."""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from rd_tf.evaluation.held_out import HeldOut
from rd_tf.models.ranker import Histories, SequenceRanker
from rd_tf.runtime import compute_ahead
from rd_tf.storage import InputError

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
        self._has_history = model.has_history
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
        (self._score_with_history if self._has_history else self._score)()
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


# (users [batch] int32, sequences [batch, L] int32) -> scores [batch, num_items + 1], an array or a tensor.
Score = Callable[[np.ndarray, np.ndarray], Any]
NOT_FINITE = "the model's scores are not finite; train it again with a smaller --learning_rate"
# Blocks that are scored while one is counted; with 1, 5 % slower, since the two take turns at being the slower one.
_BLOCKS_AHEAD = 2
# 256 KiB of comparisons at once, so that they stay in a core's cache until they are counted.
_COMPARED_CELLS = 2**18
# Comparisons are bytes of 0 and 1, eight in a word, of which so many are added before a byte could overflow.
_WORD_BYTES = 8
_WORDS_ADDED = 255


def rank_targets(score: Score, held_out: HeldOut, block_size: int, threads: int = 1) -> np.ndarray:
    """Ranks every target among all items that its user has not seen in training.

    rank = candidates that are no targets of the user and score at least as high + place by score, from 1, among the
    user's targets that are candidates. So a tie counts against the model. Column 0, the padding, is ignored.

    Args:
        score: (users `[batch] int32`, sequences `[batch, L] int32`) -> scores `[batch, num_items + 1]`; a model's is
            `FrozenScores(model).freeze()`. It is called from other threads while the blocks before are counted, so
            a call must not write into what earlier calls returned.
        held_out: what to rank.
        block_size: users scored at once, at least 1; fewer where the catalogue is so large that memory would matter.
        threads: blocks scored at the same time.

    Returns:
        `[targets] float64`, ranks from 1 in the order of `held_out.targets`; infinity for a target that is no
        candidate.

    Raises:
        InputError: a target's score is NaN or infinite. The other scores are not looked at, which would take a
            fifth of the time of counting; `FrozenScores` and `Evaluator.evaluate_scores` see to them.
        ValueError: the scores have the wrong shape, or the block size is below 1.
    """
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1; received {block_size}")
    num_users, columns = len(held_out.users), len(held_out.is_candidate)
    rows = block_rows(block_size, columns)

    def score_block(first: int) -> np.ndarray:
        users, sequences = held_out.users[first : first + rows], held_out.sequences[first : first + rows]
        # A view of a tensor on the CPU, where its numpy() would be a copy.
        scores = np.asarray(score(users, sequences))
        if scores.shape != (len(users), columns):
            raise ValueError(f"scores must have the shape {(len(users), columns)}; received {scores.shape}")
        return scores.astype(np.float32, copy=False)

    counter = _Counter(held_out)
    starts = range(0, num_users, rows)
    for first, scores in zip(
        starts, compute_ahead(score_block, starts, max(_BLOCKS_AHEAD, threads), threads), strict=True
    ):
        counter.count(first, scores)
    return counter.ranks()


class _Counter:
    """Counts the rivals of every target, a user at a time.

    In NumPy, one comparison and one sum a target, because TensorFlow has no fused compare-and-count: a target among
    14,010 items takes 1.6 us here on one core, and 8 us in a graph (5 us with XLA) that also wants both.
    """

    def __init__(self, held_out: HeldOut) -> None:
        self._held_out = held_out
        targets, columns = held_out.targets, len(held_out.is_candidate)
        self._user = np.repeat(np.arange(len(held_out.users)), np.diff(held_out.target_offsets))
        seen_user = np.repeat(np.arange(len(held_out.users)), np.diff(held_out.seen_offsets))
        # What no target of a user competes with: his seen items and targets, in one array for one assignment a user.
        order = np.argsort(np.concatenate([seen_user, self._user]), kind="stable")
        self._own = np.concatenate([held_out.seen, targets])[order]
        self._own_offsets = held_out.seen_offsets + held_out.target_offsets
        self._no_candidates = 1 + np.flatnonzero(~held_out.is_candidate[1:])
        self._target_scores = np.empty(len(targets), np.float32)
        self._ahead = np.empty(len(targets), np.int64)
        # Column 0, the padding, stays as it is.
        self._rivals = np.full(columns, -np.inf, np.float32)
        words = -(-columns // _WORD_BYTES)
        sums = -(-words // _WORDS_ADDED)
        slots = max(1, _COMPARED_CELLS // columns)
        comparisons = np.zeros((slots, sums * -(-words // sums) * _WORD_BYTES), bool)
        self._is_ahead = comparisons[:, :columns]
        self._words = comparisons.view(np.uint64).reshape(slots, sums, -1)

    def count(self, first: int, scores: np.ndarray) -> None:
        """Takes in the scores of users `first` .. `first + len(scores) - 1`."""
        offsets = self._held_out.target_offsets[first : first + len(scores) + 1]
        before, block = offsets[0], slice(offsets[0], offsets[-1])
        target_scores = scores[self._user[block] - first, self._held_out.targets[block]]
        if not np.isfinite(target_scores).all():
            raise InputError(NOT_FINITE)
        self._target_scores[block] = target_scores
        bytes_added = np.empty((len(target_scores), self._words.shape[1]), np.uint64)
        targets = itertools.pairwise((offsets - before).tolist())
        own = itertools.pairwise(self._own_offsets[first : first + len(scores) + 1].tolist())
        rivals, items, slots = self._rivals, self._rivals[1:], len(self._words)
        for row, (begin, end), (own_begin, own_end) in zip(scores[:, 1:], targets, own, strict=True):
            items[:] = row
            rivals[self._own[own_begin:own_end]] = -np.inf
            if len(self._no_candidates):
                rivals[self._no_candidates] = -np.inf
            for start in range(begin, end, slots):
                some = slice(start, min(start + slots, end))
                size = some.stop - start
                np.greater_equal(rivals, target_scores[some, None], out=self._is_ahead[:size])
                np.add.reduce(self._words[:size], axis=2, out=bytes_added[some])
        self._ahead[block] = np.add.reduce(bytes_added.view(np.uint8), axis=1, dtype=np.int64)

    def ranks(self) -> np.ndarray:
        """The ranks of all targets, once all users are counted."""
        # Targets that are no candidates go behind the others of their user, so that they take no place in the list.
        is_ranked = self._held_out.is_candidate[self._held_out.targets]
        order = np.lexsort((np.where(is_ranked, -self._target_scores, np.inf), self._user))
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(1, len(order) + 1)
        return np.where(is_ranked, self._ahead + place - self._held_out.target_offsets[self._user], np.inf)

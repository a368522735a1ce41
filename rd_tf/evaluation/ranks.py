"""Ranks of held-out items among all items, a block of users at a time."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from rd_tf.compute_ahead import compute_ahead
from rd_tf.errors import InputError
from rd_tf.evaluation.held_out import HeldOut
from rd_tf.models.ranker import SequenceRanker

# (users [batch] int32, sequences [batch, L] int32) -> scores [batch, num_items + 1], an array or a tensor.
Score = Callable[[np.ndarray, np.ndarray], Any]
# 128 MiB of float32 a block at most: a larger catalogue gets fewer users a block than asked for. As many as
# threads and two more are in memory together.
_BLOCK_CELLS = 2**25
# Blocks that are scored while one is counted; with 1, 5 % slower, since the two take turns at being the slower one.
_BLOCKS_AHEAD = 2
# 256 KiB of comparisons at once, so that they stay in a core's cache until they are counted.
_COMPARED_CELLS = 2**18


def model_score(model: SequenceRanker) -> Score:
    """The scores of a ranker, as a graph that is traced once and follows the model's weights as they change."""
    shapes = ([None], [None, model.sequence_length])

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.int32) for shape in shapes])
    def score(user: tf.Tensor, sequence: tf.Tensor) -> tf.Tensor:
        return model.score_all(model.encode(user, sequence))

    return score


def rank_targets(score: Score, held_out: HeldOut, block_size: int, threads: int = 1) -> np.ndarray:
    """Ranks every target among all items that its user has not seen in training.

    rank = candidates that are no targets of the user and score at least as high + place by score, from 1, among the
    user's targets that are candidates. So a tie counts against the model. Column 0, the padding, is ignored.

    Args:
        score: (users `[batch] int32`, sequences `[batch, L] int32`) -> scores `[batch, num_items + 1]`; a model's is
            `model_score(model)`. It is called from other threads while the blocks before are counted, so a call
            must not write into what earlier calls returned.
        held_out: what to rank.
        block_size: users scored at once, at least 1; fewer where the catalogue is so large that memory would matter.
        threads: blocks scored at the same time.

    Returns:
        `[targets] float64`, ranks from 1 in the order of `held_out.targets`; infinity for a target that is no
        candidate.

    Raises:
        InputError: a score is NaN or infinite.
        ValueError: the scores have the wrong shape, or the block size is below 1.
    """
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1; received {block_size}")
    num_users, columns = len(held_out.users), len(held_out.is_candidate)
    rows = max(1, min(block_size, _BLOCK_CELLS // columns))

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
        # Not by a product with zeros, though that is faster: it leaves the threads of NumPy's BLAS spinning.
        if not np.isfinite(scores[:, 1:]).all():
            raise InputError("the model's scores are not finite; train it again with a smaller --learning_rate")
        counter.count(first, scores)
    return counter.ranks()


class _Counter:
    """Counts the rivals of every target, a user at a time.

    In NumPy, one comparison and one `count_nonzero` a target, because TensorFlow has no fused compare-and-count: a
    target among 14,010 items takes 2 us here on one core, and 8 us in a graph (5 us with XLA) that also wants both.
    """

    def __init__(self, held_out: HeldOut) -> None:
        self._held_out = held_out
        targets, columns = held_out.targets, len(held_out.is_candidate)
        self._user = np.repeat(np.arange(len(held_out.users)), np.diff(held_out.target_offsets))
        seen_user = np.repeat(np.arange(len(held_out.users)), np.diff(held_out.seen_offsets))
        # No rivals of a user: the seen items and the targets, in one array so that one assignment a user does.
        order = np.argsort(np.concatenate([seen_user, self._user]), kind="stable")
        self._own = np.concatenate([held_out.seen, targets])[order]
        self._own_offsets = held_out.seen_offsets + held_out.target_offsets
        self._no_candidates = np.flatnonzero(~held_out.is_candidate)
        self._target_scores = np.empty(len(targets), np.float32)
        self._ahead = np.empty(len(targets), np.int64)
        self._rivals = np.empty(columns, np.float32)
        self._is_ahead = np.empty((max(1, _COMPARED_CELLS // columns), columns), bool)

    def count(self, first: int, scores: np.ndarray) -> None:
        """Takes in the scores of users `first` .. `first + len(scores) - 1`."""
        last = first + len(scores) + 1
        targets = itertools.pairwise(self._held_out.target_offsets[first:last].tolist())
        own = itertools.pairwise(self._own_offsets[first:last].tolist())
        for row, (begin, end), (own_begin, own_end) in zip(scores, targets, own, strict=True):
            rivals = self._rivals
            rivals[:] = row
            self._target_scores[begin:end] = rivals[self._held_out.targets[begin:end]]
            rivals[self._no_candidates] = -np.inf
            rivals[self._own[own_begin:own_end]] = -np.inf
            for start in range(begin, end, len(self._is_ahead)):
                some = slice(start, min(start + len(self._is_ahead), end))
                is_ahead = self._is_ahead[: some.stop - start]
                np.greater_equal(rivals, self._target_scores[some, None], out=is_ahead)
                self._ahead[some] = [np.count_nonzero(rivals_ahead) for rivals_ahead in is_ahead]

    def ranks(self) -> np.ndarray:
        """The ranks of all targets, once all users are counted."""
        # Targets that are no candidates go behind the others of their user, so that they take no place in the list.
        is_ranked = self._held_out.is_candidate[self._held_out.targets]
        order = np.lexsort((np.where(is_ranked, -self._target_scores, np.inf), self._user))
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(1, len(order) + 1)
        return np.where(is_ranked, self._ahead + place - self._held_out.target_offsets[self._user], np.inf)

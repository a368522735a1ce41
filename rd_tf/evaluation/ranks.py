"""Ranks of held-out items among all items, a block of users at a time."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from rd_tf.errors import InputError
from rd_tf.evaluation.held_out import HeldOut
from rd_tf.models.ranker import SequenceRanker, exclude_items

# (users [batch] int32, sequences [batch, L] int32) -> scores [batch, num_items + 1], an array or a tensor.
Score = Callable[[np.ndarray, np.ndarray], Any]
# 128 MiB of float32 a block at most: a larger catalogue gets fewer users a block than asked for.
_BLOCK_CELLS = 2**25


def model_score(model: SequenceRanker) -> Score:
    """The scores of a ranker, as a graph that is traced once and follows the model's weights as they change."""
    shapes = ([None], [None, model.sequence_length])

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.int32) for shape in shapes])
    def score(user: tf.Tensor, sequence: tf.Tensor) -> tf.Tensor:
        return model.score_all(model.encode(user, sequence))

    return score


def rank_targets(score: Score, held_out: HeldOut, block_size: int) -> np.ndarray:
    """Ranks every target among all items that its user has not seen in training.

    rank = candidates that are no targets of the user and score at least as high + place by score, from 1, among the
    user's targets that are candidates. So a tie counts against the model. Column 0, the padding, is ignored.

    Args:
        score: (users `[batch] int32`, sequences `[batch, L] int32`) -> scores `[batch, num_items + 1]`; a model's is
            `model_score(model)`.
        held_out: what to rank.
        block_size: users scored at once, at least 1; fewer where the catalogue is so large that memory would matter.

    Returns:
        `[targets] float64`, ranks from 1 in the order of `held_out.targets`; infinity for a target that is no
        candidate.

    Raises:
        InputError: a score is NaN or infinite.
        ValueError: the scores have the wrong shape, or the block size is below 1.
    """
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1; received {block_size}")
    is_candidate = tf.constant(held_out.is_candidate)
    ranks = np.full(len(held_out.targets), np.inf)
    for rows, places in _blocks(held_out, block_size):
        scores = tf.convert_to_tensor(score(held_out.users[rows], held_out.sequences[rows]))
        if scores.shape != (len(rows), len(is_candidate)):
            raise ValueError(f"scores must have the shape {(len(rows), len(is_candidate))}; received {scores.shape}")
        targets = _items_at(held_out.targets, places)
        exclude = np.concatenate([_items_at(held_out.seen, _places(held_out.seen_offsets, rows)), targets], axis=1)
        block_ranks, is_finite = _rank_block(tf.cast(scores, tf.float32), exclude, targets, is_candidate)
        if not is_finite:
            raise InputError("the model's scores are not finite; train it again with a smaller --learning_rate")
        ranks[places[places >= 0]] = block_ranks.numpy()[places >= 0]
    ranks[~held_out.is_candidate[held_out.targets]] = np.inf
    return ranks


def _blocks(held_out: HeldOut, block_size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields rows of `held_out.users`, most targets first, and the places of their targets, padded with -1."""
    num_targets, num_seen = np.diff(held_out.target_offsets), np.diff(held_out.seen_offsets)
    # Users of like histories share a block, so that little of a padded block is padding.
    order = np.argsort(-(num_targets + num_seen), kind="stable")
    start = 0
    while start < len(order):
        widest = max(num_targets[order[start]] + num_seen[order[start]], len(held_out.is_candidate))
        rows = order[start : start + max(1, min(block_size, _BLOCK_CELLS // widest))]
        start += len(rows)
        rows = rows[np.argsort(-num_targets[rows], kind="stable")]
        yield rows, _places(held_out.target_offsets, rows)


def _places(offsets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    first, counts = offsets[rows], offsets[rows + 1] - offsets[rows]
    column = np.arange(max(counts.max(), 1))
    return np.where(column < counts[:, None], first[:, None] + column, -1)


def _items_at(items: np.ndarray, places: np.ndarray) -> np.ndarray:
    if not len(items):
        return np.zeros(places.shape, np.int32)
    return np.where(places >= 0, items[places], 0).astype(np.int32)


@tf.function(
    input_signature=[
        tf.TensorSpec([None, None], tf.float32),
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None, None], tf.int32),
        tf.TensorSpec([None], tf.bool),
    ]
)
def _rank_block(
    scores: tf.Tensor, exclude: tf.Tensor, targets: tf.Tensor, is_candidate: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    is_finite = tf.reduce_all(tf.math.is_finite(scores[:, 1:]))
    # Padding and targets that are no candidates go behind the others, so that they take no place in the list.
    is_ranked = tf.gather(is_candidate, targets)
    target_scores = tf.where(is_ranked, tf.gather(scores, targets, batch_dims=1), -np.inf)
    place = tf.argsort(tf.argsort(target_scores, direction="DESCENDING", stable=True), stable=True) + 1
    rivals = tf.where(is_candidate, exclude_items(scores, exclude), -np.inf)
    # One pass over the block a target, rather than a sort: rows come with the most targets first, so the n-th pass
    # needs only those at the top that have n targets. 102k targets x 14k items: 1.2 s against 3 s by binary search.
    num_targets = tf.math.count_nonzero(targets, axis=1, dtype=tf.int32)
    columns = tf.shape(targets)[1]
    passes = tf.TensorArray(tf.int32, size=columns, element_shape=[None])
    for column in tf.range(columns):
        rows = tf.math.count_nonzero(num_targets > column, dtype=tf.int32)
        is_ahead = rivals[:rows] >= target_scores[:rows, column, None]
        ahead = tf.reduce_sum(tf.cast(is_ahead, tf.int32), axis=1)
        passes = passes.write(column, tf.pad(ahead, [[0, tf.shape(targets)[0] - rows]]))
    return tf.transpose(passes.stack()) + place, is_finite

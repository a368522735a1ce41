"""The graph of an export: raw ids in, raw ids and scores out."""

import os

import tensorflow as tf

from rd_tf.models.histories import Histories
from rd_tf.models.ranker import SequenceRanker
from rd_tf.serving.unknown_user import with_unknown_user

SIGNATURE = "serving_default"
# What stands beside "" where a list has run out of items; infinities are not JSON.
NO_SCORE = tf.float32.min


def serving_module(
    model: SequenceRanker,
    users_file: str | os.PathLike[str],
    items_file: str | os.PathLike[str],
    k: int,
    exclude_recent: bool,
) -> tf.Module:
    """Wraps a ranker for `tf.saved_model.save`.

    The module's `serving_default` takes `user_id` `[b] string` and `recent_items` `[b, n] string` (oldest first, any n)
    and returns `items` `[b, k] string` and `scores` `[b, k] float32`, best first. Unknown items and "" vanish from the
    history as if they had not been there; the last L of the rest are the sequence, and all of them the history of a
    ranker that looks back on one. An unknown user is what the ranker's `unknown_user_row` makes of all users. A list
    that runs out of items is padded with "" and the smallest finite float32.

    Args:
        model: the trained ranker.
        users_file: raw id of user i in line i, counted from 0; it becomes an asset of the export.
        items_file: raw id of item i in line i - 1; it becomes an asset of the export.
        k: length of a list, at most num_items.
        exclude_recent: whether all of `recent_items` (not only the last L) are kept out of the list.
    """
    ranker = with_unknown_user(model)
    user_numbers = _table(users_file, tf.lookup.TextFileIndex.WHOLE_LINE, default=model.num_users)
    item_lines = _table(items_file, tf.lookup.TextFileIndex.WHOLE_LINE, default=-1)
    # A table rather than a constant: a graph may not exceed 2 GB.
    item_ids = _table(items_file, tf.lookup.TextFileIndex.LINE_NUMBER, default="")

    @tf.function(
        input_signature=[
            tf.TensorSpec([None], tf.string, name="user_id"),
            tf.TensorSpec([None, None], tf.string, name="recent_items"),
        ]
    )
    def serving_default(user_id: tf.Tensor, recent_items: tf.Tensor) -> dict[str, tf.Tensor]:
        user = tf.cast(user_numbers.lookup(user_id), tf.int32)
        recent = tf.cast(item_lines.lookup(recent_items), tf.int32) + 1
        exclude = recent if exclude_recent else recent[:, :0]
        history = known_items(recent) if ranker.looks_back != "none" else None
        items, scores = ranker.recommend(user, last_known(recent, ranker.sequence_length), exclude, k, history)
        return {
            "items": item_ids.lookup(tf.cast(items, tf.int64) - 1),
            "scores": tf.where(items == 0, NO_SCORE, scores),
        }

    module = tf.Module()
    module.serving_default = serving_default
    module.tables = [user_numbers, item_lines, item_ids]
    # The backend's variables themselves: under Keras' wrappers tensorflow_model_server does not find them.
    module.variables_of_ranker = [weight.value for weight in ranker.weights]
    return module


def last_known(items: tf.Tensor, length: int) -> tf.Tensor:
    """The last known items of every row, in order.

    Args:
        items: `[batch, n] int32`, 0 = unknown or none, anywhere; any n.
        length: L.

    Returns:
        `[batch, L] int32`, padded with 0 on the left.
    """
    padded = tf.pad(items, [[0, 0], [length, 0]])
    place = tf.where(padded > 0, tf.range(tf.shape(padded)[1]), -1)
    latest_first = tf.math.top_k(place, length).indices
    return tf.gather(padded, tf.reverse(latest_first, [1]), batch_dims=1)


def known_items(items: tf.Tensor) -> Histories:
    """The known items of every row as histories of the rows' queries.

    Args:
        items: `[batch, n] int32`, 0 = unknown or none, anywhere; any n.
    """
    is_known = items > 0
    return Histories(tf.boolean_mask(items, is_known), tf.cast(tf.where(is_known)[:, 0], tf.int32))


def _table(file: str | os.PathLike[str], key: int, default: int | str) -> tf.lookup.StaticHashTable:
    whole_line, line_number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
    by_line = key == whole_line
    initializer = tf.lookup.TextFileInitializer(
        os.fspath(file),
        key_dtype=tf.string if by_line else tf.int64,
        key_index=key,
        value_dtype=tf.int64 if by_line else tf.string,
        value_index=line_number if by_line else whole_line,
    )
    return tf.lookup.StaticHashTable(initializer, default)

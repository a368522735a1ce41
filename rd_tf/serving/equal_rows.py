"""Refuses requests whose inputs differ in their number of rows."""

import tensorflow as tf


def equal_rows(ids: tf.Tensor, user_id: tf.Tensor) -> tf.Tensor:
    """The ids as they are; with another number of rows than there are users the graph fails with INVALID_ARGUMENT.

    Operations would take a single row for all rows without a word, and a model server does not compare.

    Args:
        ids: `[b, n]` of any dtype; or `[0]`, which is how JSON writes a table of no rows, for empty rows.
        user_id: `[b]`.
    """
    columns = tf.concat([tf.shape(ids)[1:], [0]], 0)[0]
    return tf.reshape(ids, [tf.shape(user_id)[0], columns])

"""A ranker that also answers for users it has never seen."""

import keras
import numpy as np

from rd_tf.models.ranker import SequenceRanker


def with_unknown_user(model: SequenceRanker) -> SequenceRanker:
    """Copies a ranker; the copy has a row for users who were never seen, number `num_users`.

    It is the row that was trained for them. Where none was, every weight with a row per user gets the ranker's
    `unknown_user_row` appended. All others are copied, so that the scores of known users stay what they were.
    """
    wider = type(model).from_config({**model.get_config(), "unknown_user": True})
    for old, new in zip(model.weights, wider.weights, strict=True):
        value = keras.ops.convert_to_numpy(old)
        if tuple(old.shape) != tuple(new.shape):
            value = np.concatenate([value, model.unknown_user_row(value)])
        new.assign(value)
    return wider

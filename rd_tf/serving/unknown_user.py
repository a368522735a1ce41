"""A ranker that also answers for users it has never seen."""

import keras
import numpy as np

from rd_tf.models.ranker import SequenceRanker


def with_unknown_user(model: SequenceRanker) -> SequenceRanker:
    """Copies a ranker and gives the copy one more user, number `num_users`.

    Every weight with a row per user gets the ranker's `unknown_user_row` appended; all others are copied, so that the
    scores of known users stay what they were.
    """
    wider = type(model).from_config({**model.get_config(), "num_users": model.num_users + 1})
    for old, new in zip(model.weights, wider.weights, strict=True):
        value = keras.ops.convert_to_numpy(old)
        if tuple(old.shape) != tuple(new.shape):
            value = np.concatenate([value, model.unknown_user_row(value)])
        new.assign(value)
    return wider

"""Whether an export answers as the ranker it was made from."""

import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from rd_tf.models.ranker import SequenceRanker, exclude_items
from rd_tf.serving.savedmodel_check import SavedModelError, run_saved_model

# Sums taken in another order, or fused with what follows, differ by a few units in the last place of the arithmetic.
_TOLERANCE = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2}
_QUERIES = 4


def sample_request(model: SequenceRanker, user_ids: Sequence[str], item_ids: Sequence[str]) -> dict[str, np.ndarray]:
    """Makes a request of up to four known users, spread over the catalogue, each with L items (fewer in a tiny one).

    Returns:
        `user_id` `[b]` and `recent_items` `[b, n]`, both of dtype object.
    """
    users, items = _sample_numbers(model)
    names = np.array(item_ids, object)[items - 1]
    return {"user_id": np.array(user_ids, object)[users], "recent_items": names}


def check_agreement(
    directory: str | os.PathLike[str],
    model: SequenceRanker,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    k: int,
    exclude_recent: bool,
) -> None:
    """Compares an export, run by the C++ loader, with the ranker's own recommendations.

    Items that stand in another order are accepted where their scores are equal within rounding.

    Raises:
        RuntimeError: the loader refuses the export, or its items or scores are not the ranker's.
    """
    try:
        (answer,) = run_saved_model(directory, [sample_request(model, user_ids, item_ids)])
    except SavedModelError as error:
        raise RuntimeError(f"the export was not published, since TensorFlow cannot run it: {error}") from error
    users, items = _sample_numbers(model)
    sequence = np.pad(items, ((0, 0), (model.sequence_length - items.shape[1], 0)))
    exclude = items if exclude_recent else items[:, :0]
    # The export ran on the CPU; a GPU's matrix products are rounded to fewer bits.
    with tf.device("/CPU:0"):
        scores = np.array(exclude_items(model.score_all(model.encode(users, sequence)), exclude))
    best = -np.sort(-scores, axis=1)[:, :k]
    number = {name: i for i, name in enumerate(["", *item_ids])}
    listed = np.array([[number.get(name, 0) for name in row] for row in answer["items"]], np.int64)
    expected = np.where(np.isneginf(best), tf.float32.min, best)
    own = np.take_along_axis(scores, listed, axis=1)
    own = np.where(np.isneginf(own), tf.float32.min, own)
    distinct = all(len(set(row[row > 0])) == np.count_nonzero(row) for row in listed)
    tolerance = _TOLERANCE[model.compute_dtype]
    if not (distinct and all(np.allclose(answer["scores"], s, tolerance, tolerance) for s in (expected, own))):
        raise RuntimeError(
            "the export was not published, since its lists are not the model's: "
            f"{answer['items'][0, :3]} with scores {answer['scores'][0, :3]} where the model gives {expected[0, :3]}"
        )


def _sample_numbers(model: SequenceRanker) -> tuple[np.ndarray, np.ndarray]:
    users = np.unique(np.linspace(0, model.num_users - 1, _QUERIES).astype(np.int32))
    length = min(model.sequence_length, model.num_items)
    spread = np.linspace(0, model.num_items - 1, len(users) * length).astype(np.int32)
    return users, spread.reshape(len(users), length) + 1

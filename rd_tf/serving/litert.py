"""A ranker as a LiteRT flatbuffer (.tflite), for devices."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from rd_tf.data.dataset import write_lines
from rd_tf.models.ranker import SequenceRanker, exclude_items
from rd_tf.serving.publishing import ExportOptions
from rd_tf.serving.quality import (
    TOLERANCE,
    Disagreement,
    Queries,
    ServedRanker,
    bytes_by_kind,
    seconds_per_request,
    write_report,
)
from rd_tf.serving.signatures import NO_SCORE
from rd_tf.serving.weights import StoredRanker, copy_ranker, is_table, rounded_copy, with_unknown_user, write_item_table

MODEL_FILE, USERS_FILE, ITEMS_FILE = "model.tflite", "users.txt", "items.txt"
_CHECKED = 20


class PaddedHistory:
    """What `Histories` is, for one query whose items may be padded anywhere.

    Args:
        items: `[1, n] int32`, 0 = none.
    """

    def __init__(self, items: tf.Tensor) -> None:
        self.items = items

    def sum(self, values: tf.Tensor, queries: Any) -> tf.Tensor:
        """Sums `[1, n, d] float32` over the items: `[1, d]`."""
        return tf.reduce_sum(values * self._is_item()[..., tf.newaxis], axis=1)

    def lengths(self, queries: Any) -> tf.Tensor:
        """Number of items: `[1, 1] float32`."""
        return tf.reduce_sum(self._is_item(), axis=1, keepdims=True)

    def _is_item(self) -> tf.Tensor:
        return tf.cast(self.items > 0, tf.float32)


def write_litert(directory: Path, served: ServedRanker) -> None:
    """Writes `model.tflite`, ids and a report, and checks the model in LiteRT's interpreter.

    Its one signature takes `user` `[1] int32` (num_users for an unknown one) and `sequence` `[1, L] int32` (oldest
    first, padded with 0 on the left), and for a ranker that looks back `history` `[1, n] int32` (any n, 0 = none). It
    returns `items` `[max_k] int32` and `scores` `[max_k] float32`, best first; item 0 with the lowest finite float32
    where fewer remain. The raw id of user i is line i of `users.txt`, counted from 0, that of item i line i - 1 of
    `items.txt`.

    Args:
        directory: an empty directory.
        served: what is exported.

    Raises:
        InputError: a weight does not fit the weights' type.
        Disagreement: the flatbuffer does not answer as the model does.
    """
    model, options = served.model, served.options
    # LiteRT has no half-precision matrix product.
    wider = copy_ranker(with_unknown_user(model), "float32")
    exported = rounded_copy(wider, options.weights)
    (directory / MODEL_FILE).write_bytes(_convert(directory, wider, exported, options))
    write_lines(directory / USERS_FILE, served.user_ids)
    write_lines(directory / ITEMS_FILE, served.item_ids)
    queries = served.queries(_CHECKED)
    nobody = Queries(np.array([model.num_users], np.int32), [np.zeros(0, np.int32)])
    ask = make_interpreter(directory / MODEL_FILE)
    largest = max(_compare(ask, exported, asked, options) for asked in (queries, nobody))
    first = _inputs(exported, queries.rows(slice(1)))
    if options.item_table:
        write_item_table(directory, exported, served.item_ids)
    measured = {
        "bytes": bytes_by_kind(directory),
        "quality": served.compare(exported),
        "agreement": {"requests": len(queries.users) + 1, "largest_difference": largest},
        "seconds_per_request": {"1": seconds_per_request(lambda _: ask(**first))["1"]},
    }
    write_report(directory, served, measured)


def make_interpreter(path: str | Path) -> Any:
    """Loads a flatbuffer.

    Returns:
        A function of the inputs by name, arrays, that returns the outputs by name.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        Interpreter = tf.lite.Interpreter
    return Interpreter(str(path)).get_signature_runner()


def _convert(directory: Path, wider: SequenceRanker, exported: SequenceRanker, options: ExportOptions) -> bytes:
    int8 = options.weights == "int8"
    # LiteRT gathers no float16 rows, but the converter stores float16 by itself, weights like these without loss.
    stored = (
        StoredRanker(_with_others(wider, exported), "int8", "float32") if int8 else StoredRanker(exported, "float32")
    )
    ranker = stored.ranker
    signature = [
        tf.TensorSpec([1], tf.int32, name="user"),
        tf.TensorSpec([1, ranker.sequence_length], tf.int32, name="sequence"),
    ]
    if ranker.has_history:
        signature.append(tf.TensorSpec([1, None], tf.int32, name="history"))

    @tf.function(autograph=False, input_signature=signature)
    def recommend(user: tf.Tensor, sequence: tf.Tensor, history: tf.Tensor | None = None) -> dict[str, tf.Tensor]:
        looked_back: Any = None if history is None else PaddedHistory(history)
        rows = ranker.num_items + 1
        with stored.dense_weights_in_use():
            query = ranker.encode(user, sequence, history=looked_back)
            if int8:
                # The rows depend on an input, else the converter would compute a constant float32 table from them.
                every = tf.range(rows) + tf.minimum(user, 0)
                scores = ranker.score(query, every[tf.newaxis])[0]
            else:
                scores = ranker.score_all(query)[0]
        recent = sequence if history is None else tf.concat([sequence, history], 1)
        # Not `exclude_items`: the converter makes sums of its update, which are wrong for an item that is there twice.
        blocked = tf.reshape(recent, [-1, 1]) if options.exclude_recent else tf.zeros([1, 1], tf.int32)
        is_blocked = tf.scatter_nd(blocked, tf.ones([tf.shape(blocked)[0]]), [rows]) > 0
        scores = tf.where(is_blocked | tf.equal(tf.range(rows), 0), NO_SCORE, scores)
        best, items = tf.math.top_k(scores, options.max_k)
        return {"items": tf.where(best > NO_SCORE, items, 0), "scores": best}

    module = tf.Module()
    module.stored, module.recommend = stored, recommend
    # Inside the new version: after a kill the next export removes it with the rest of the version.
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        tf.saved_model.save(module, temporary, signatures={"serving_default": recommend})
        converter = tf.lite.TFLiteConverter.from_saved_model(temporary, signature_keys=["serving_default"])
        if options.weights == "float16":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.target_spec.supported_types = [tf.float16]
        return converter.convert()


def _with_others(tables: SequenceRanker, others: SequenceRanker) -> SequenceRanker:
    """A ranker with the tables of one and all other weights of another."""
    mixed = copy_ranker(tables)
    for weight, other in zip(mixed.trainable_weights, others.trainable_weights, strict=True):
        if not is_table(weight):
            weight.assign(other)
    return mixed


def _inputs(ranker: SequenceRanker, query: Queries) -> dict[str, np.ndarray]:
    inputs = {"user": query.users, "sequence": query.sequences(ranker.sequence_length)}
    if ranker.has_history:
        recent = query.recents[0]
        inputs["history"] = recent[None] if len(recent) else np.zeros((1, 1), np.int32)
    return inputs


def _compare(ask: Any, exported: SequenceRanker, queries: Queries, options: ExportOptions) -> float:
    """Largest difference of a score from the ranker's own."""
    # With float16 the converter also rounds constants of the graph, such as the exponent of a history's length.
    largest, tolerance = 0.0, TOLERANCE["float16" if options.weights == "float16" else exported.compute_dtype]
    for row in range(len(queries.users)):
        query = queries.rows(slice(row, row + 1))
        found = ask(**_inputs(exported, query))
        recent = query.recents[0] if exported.has_history else query.recents[0][-exported.sequence_length :]
        exclude = recent[None] if options.exclude_recent else np.zeros((1, 0), np.int32)
        scores = np.asarray(exclude_items(exported.score_all(query.encode(exported)), exclude))[0]
        best = -np.sort(-scores)[: options.max_k]
        for expected in (best, scores[found["items"]]):
            expected = np.where(np.isneginf(expected), NO_SCORE, expected)
            if not np.allclose(found["scores"], expected, tolerance, tolerance):
                raise Disagreement(
                    "the export was not published, since LiteRT does not answer as the model does: "
                    f"{found['scores'][:3]} where the model gives {expected[:3]}"
                )
            largest = max(largest, float(np.abs(found["scores"] - expected.astype(np.float64)).max()))
    return largest

"""Whether an export answers as the ranker it was made from."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from rd_tf.models.ranker import SequenceRanker, exclude_items
from rd_tf.serving.export_options import ExportOptions
from rd_tf.serving.real_queries import Queries, pad
from rd_tf.serving.recommend_signature import NO_SCORE
from rd_tf.serving.requests import Request, known_request, strange_requests, typed
from rd_tf.serving.savedmodel_check import SavedModelError, run_signatures
from rd_tf.serving.signatures import QUERY, RECOMMEND, SCORE

# Sums taken in another order, or fused with what follows, differ by a few units in the last place of the arithmetic.
TOLERANCE = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2}


class Disagreement(RuntimeError):
    """An export does not answer as its ranker; the message is one sentence."""


def check_agreement(
    directory: str | os.PathLike[str],
    reference: SequenceRanker,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    options: ExportOptions,
) -> dict[str, Any]:
    """Compares every signature of an export, run by the C++ loader, with the ranker's own scores.

    Asked are known users, an unknown one, empty histories, no rows and strange ids. Items that stand in another order
    are accepted where their scores are equal within rounding; from a clustered index any items with the right scores.

    Args:
        directory: the SavedModel.
        reference: the ranker with the weights that the export gives back and a row for the unknown user.
        user_ids: raw id of every user.
        item_ids: raw id of every item.
        options: how it was exported.

    Returns:
        `requests` and `largest_difference` of a score (JSON values).

    Raises:
        Disagreement: the loader refuses the export or a request, or an answer is not the ranker's.
    """
    arguments = (reference, user_ids, item_ids, options.max_k, options.id_type)
    requests = [known_request(*arguments), *strange_requests(*arguments)]
    asked = [(signature, request) for request in requests for signature in (RECOMMEND, SCORE, QUERY)]
    try:
        answers = run_signatures(directory, [(name, request.of_signature(name)) for name, request in asked])
    except SavedModelError as error:
        raise Disagreement(f"the export was not published, since TensorFlow cannot run it: {error}") from error
    # The export ran on the CPU; a GPU's matrix products are rounded to fewer bits.
    with tf.device("/CPU:0"):
        compared = _Comparison(reference, user_ids, item_ids, options)
        for (signature, request), answer in zip(asked, answers, strict=True):
            compared.check(signature, request, answer)
    return {"requests": len(asked), "largest_difference": compared.largest}


class _Comparison:
    def __init__(
        self, ranker: SequenceRanker, user_ids: Sequence[str], item_ids: Sequence[str], options: ExportOptions
    ) -> None:
        self._ranker, self._options = ranker, options
        self._users = {name: i for i, name in enumerate(typed(user_ids, options.id_type))}
        self._items = {name: i for i, name in enumerate(typed(item_ids, options.id_type), 1)}
        self._tolerance = TOLERANCE[ranker.compute_dtype]
        self.largest = 0.0

    def check(self, signature: str, request: Request, answer: dict[str, np.ndarray]) -> None:
        users = np.array([self._users.get(name, self._ranker.num_users) for name in request.users], np.int32)
        recents = [self._numbers(row, known_only=True) for row in request.recents]
        query = Queries(users, recents).encode(self._ranker)
        scores = np.array(self._ranker.score_all(query))
        if signature == QUERY:
            self._compare(signature, answer["query"], np.concatenate([query, np.ones_like(query[:, :1])], 1))
        elif signature == SCORE:
            items = self._table(request.candidates)
            expected = np.where(items > 0, np.take_along_axis(scores, items, 1), NO_SCORE)
            self._compare(signature, answer["scores"], expected)
            if not np.array_equal(answer["known"], items > 0):
                raise self._error(signature, answer["known"], items > 0)
        else:
            self._check_lists(request, answer, scores, recents)

    def _check_lists(
        self, request: Request, answer: dict[str, np.ndarray], scores: np.ndarray, recents: list[np.ndarray]
    ) -> None:
        exclude = [self._numbers(row) for row in request.excludes]
        if self._options.exclude_recent:
            exclude = [np.concatenate(pair) for pair in zip(exclude, recents, strict=True)]
        scores = np.array(exclude_items(scores, pad(exclude)))
        wanted = np.clip(np.array(request.k, int), 0, self._options.max_k)
        inside = np.arange(wanted.max(initial=0)) < wanted[:, None]
        listed = self._table(answer["items"].tolist())
        if listed.shape != inside.shape or listed.shape != answer["scores"].shape:
            raise self._error(RECOMMEND, answer["scores"], inside)
        own = np.take_along_axis(scores, listed.astype(np.int64), axis=1)
        self._compare(RECOMMEND, answer["scores"], np.where(inside & ~np.isneginf(own), own, NO_SCORE))
        if self._options.index == "exact":
            best = -np.sort(-scores, axis=1)[:, : inside.shape[1]]
            self._compare(RECOMMEND, answer["scores"], np.where(inside & ~np.isneginf(best), best, NO_SCORE))
        if any(len(set(row[row > 0])) != np.count_nonzero(row) for row in listed):
            raise self._error(RECOMMEND, answer["items"], "no item twice")

    def _compare(self, signature: str, found: np.ndarray, expected: np.ndarray) -> None:
        if found.shape != expected.shape or not np.allclose(found, expected, self._tolerance, self._tolerance):
            raise self._error(signature, found, expected)
        if found.size:
            self.largest = max(self.largest, float(np.abs(found - expected.astype(np.float64)).max()))

    def _numbers(self, names: Sequence[str | int], known_only: bool = False) -> np.ndarray:
        numbers = np.array([self._items.get(name, 0) for name in names], np.int32)
        return numbers[numbers > 0] if known_only else numbers

    def _table(self, rows: Sequence[Sequence[str | int]]) -> np.ndarray:
        width = len(rows[0]) if rows else 0
        return np.array([self._numbers(row) for row in rows], np.int32).reshape(len(rows), width)

    def _error(self, signature: str, found: Any, expected: Any) -> Disagreement:
        given, wanted = (np.array2string(np.asarray(value).ravel()[:3]) for value in (found, expected))
        return Disagreement(
            f"the export was not published, since its signature {signature} does not answer as the model does: "
            f"{given} where the model gives {wanted}"
        )

"""Whether an export answers as the ranker it was made from."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from rd_tf.models.ranker import SequenceRanker, exclude_items
from rd_tf.serving.quality import Queries, ServedRanker, pad
from rd_tf.serving.savedmodel_check import SavedModelError, run_signatures
from rd_tf.serving.signatures import NO_SCORE, QUERY, RECOMMEND, SCORE

# The same sum, taken in another order or fused with the next operation, differs by a few units in the last place.
TOLERANCE = {"float32": 1e-5, "float16": 2e-3, "bfloat16": 1e-2}
_QUERIES = 4
_STRANGE: dict[str, list[Any]] = {
    "string": ["\x00", "☃" * 1000, "a\u2028b\n", "-1", "x" * 100_000, "\udcff"],
    "int64": [-1, 2**63 - 1, -(2**63), 2**31],
}


@dataclasses.dataclass(frozen=True)
class Request:
    """One request, for all signatures.

    Attributes:
        users: raw id of every row's user.
        recents: raw ids of every row's items, oldest first; rows of equal length, as are those below.
        excludes: raw ids of items kept out of every row's list.
        candidates: raw ids of items to score for every row.
        k: length of every row's list.
        id_type: "string" or "int64"; the ids above are `str` or `int`.
    """

    users: Sequence[str | int]
    recents: Sequence[Sequence[str | int]]
    excludes: Sequence[Sequence[str | int]]
    candidates: Sequence[Sequence[str | int]]
    k: Sequence[int]
    id_type: str = "string"

    def of_signature(self, signature: str) -> dict[str, np.ndarray]:
        """Input name -> array for one of the export's signatures; strings are objects."""
        inputs = {"user_id": self._ids(self.users), "recent_items": self._table(self.recents)}
        if signature == SCORE:
            inputs["candidates"] = self._table(self.candidates)
        elif signature != QUERY:
            inputs["exclude_items"] = self._table(self.excludes)
            inputs["k"] = np.array(self.k, np.int32)
        return inputs

    def _ids(self, ids: Sequence[str | int]) -> np.ndarray:
        return np.array(ids, object if self.id_type == "string" else np.int64)

    def _table(self, rows: Sequence[Sequence[str | int]]) -> np.ndarray:
        width = len(rows[0]) if rows else 0
        return self._ids([name for row in rows for name in row]).reshape(len(rows), width)


def known_request(served: ServedRanker) -> Request:
    """A request of up to four known users, spread over the catalogue, each with L items (fewer in a tiny one)."""
    model = served.model
    users = np.unique(np.linspace(0, model.num_users - 1, _QUERIES).astype(int))
    length = min(model.sequence_length, model.num_items)
    places = np.linspace(0, model.num_items - 1, len(users) * length).astype(int).reshape(len(users), length)
    names = [[served.typed_items[place] for place in row] for row in places]
    return Request(
        [served.typed_users[user] for user in users],
        names,
        [row[:1] for row in reversed(names)],
        names,
        [(served.options.max_k, 3, 1, 0)[row % 4] for row in range(len(users))],
        served.options.id_type,
    )


def strange_requests(served: ServedRanker) -> list[Request]:
    """Requests that an export must survive: unknown users and items, nothing at all, no rows, ids nobody has."""
    id_type, too_many = served.options.id_type, served.options.max_k + 1
    user, item = served.typed_users[-1:], served.typed_items[:1]
    none: str | int = "" if id_type == "string" else 0
    taken = {*served.typed_users, *served.typed_items}
    odd: list[str | int] = [name for name in [*_STRANGE[id_type], none] if name not in taken]
    rows = len(odd)
    return [
        Request([*user, *odd[:1]], [[*item, none]] * 2, [[none]] * 2, [[*item, none]] * 2, [too_many, -1], id_type),
        Request([*user, *odd[:1]], [[], []], [[], []], [[], []], [2, 2], id_type),
        Request(odd, [odd] * rows, [[*item, *odd]] * rows, [[*odd, *item]] * rows, [2] * rows, id_type),
        Request(odd[:1], [[*item, *odd, *item]], [[]], [item], [1], id_type),
        Request([], [], [], [], [], id_type),
    ]


class Disagreement(RuntimeError):
    """An export does not answer as its ranker; the message is one sentence."""


def check_agreement(
    directory: str | os.PathLike[str], reference: SequenceRanker, served: ServedRanker
) -> dict[str, Any]:
    """Compares every signature of an export, run by the C++ loader, with the ranker's own scores.

    Asked are known users, an unknown one, empty histories, no rows and strange ids. Items that stand in another order
    are accepted where their scores are equal within rounding; from a clustered index any items with the right scores.

    Args:
        directory: the SavedModel.
        reference: the ranker with the weights that the export gives back and a row for the unknown user.
        served: what was exported.

    Returns:
        `requests` and `largest_difference` of a score (JSON values).

    Raises:
        Disagreement: the loader refuses the export or a request, or an answer is not the ranker's.
    """
    requests = [known_request(served), *strange_requests(served)]
    asked = [(signature, request) for request in requests for signature in (RECOMMEND, SCORE, QUERY)]
    try:
        answers = run_signatures(directory, [(name, request.of_signature(name)) for name, request in asked])
    except SavedModelError as error:
        raise Disagreement(f"the export was not published, since TensorFlow cannot run it: {error}") from error
    # The export ran on the CPU; a GPU's matrix products are rounded to fewer bits.
    with tf.device("/CPU:0"):
        compared = _Comparison(reference, served)
        for (signature, request), answer in zip(asked, answers, strict=True):
            compared.check(signature, request, answer)
    return {"requests": len(asked), "largest_difference": compared.largest}


class _Comparison:
    def __init__(self, ranker: SequenceRanker, served: ServedRanker) -> None:
        self._ranker, self._options = ranker, served.options
        self._users = {name: i for i, name in enumerate(served.typed_users)}
        self._items = {name: i for i, name in enumerate(served.typed_items, 1)}
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

"""What an export weighs, costs and is worth: whether it answers as its ranker, how well it ranks, and how fast."""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from rd_tf.data.windows import SplitData, last_items
from rd_tf.evaluation.evaluator import Evaluator
from rd_tf.models.ranker import Histories, SequenceRanker, exclude_items
from rd_tf.serving.publishing import REPORT_FILE, ExportOptions
from rd_tf.serving.savedmodel_check import SavedModelError, run_signatures
from rd_tf.serving.search import Cells, ExactSearch, Search
from rd_tf.serving.signatures import NO_SCORE, QUERY, RECOMMEND, SCORE
from rd_tf.serving.weights import IDS_FILE, TABLE_FILE, put_back, with_items, with_unknown_user
from rd_tf.storage import InputError, write_json

_METRIC_CUTOFFS = (3, 5, 10, 20)
_RECALL_CUTOFFS, _RECALL_ROWS = (1, 10, 100), 16
_TIMED_ROWS, _TIMED_RUNS = (1, 32), 15
_KINDS = {
    "variables": "weights",
    "model.tflite": "weights",
    "assets": "ids",
    "users.txt": "ids",
    "items.txt": "ids",
    "saved_model.pb": "graph",
}


class Queries(NamedTuple):
    """Some queries.

    Attributes:
        users: `[queries] int32`.
        recents: known items of every query, oldest first, `[n] int32` each.
    """

    users: np.ndarray
    recents: Sequence[np.ndarray]

    def rows(self, chosen: slice) -> "Queries":
        """Some of them."""
        return Queries(self.users[chosen], self.recents[chosen])

    def sequences(self, length: int) -> np.ndarray:
        """Their last items, `[queries, length] int32`, padded with 0 on the left."""
        counts = np.array([len(recent) for recent in self.recents], np.int64)
        items = np.concatenate([np.zeros(0, np.int32), *self.recents])
        return last_items(items, np.cumsum(counts) - counts, counts, length)

    def encode(self, ranker: SequenceRanker) -> np.ndarray:
        """Their vectors, `[queries, q] float32`."""
        if not len(self.users):
            # Keras takes no maximum of nothing outside of a graph.
            return np.zeros((0, ranker.query_dim), np.float32)
        history = None
        if ranker.has_history:
            rows = np.repeat(np.arange(len(self.users), dtype=np.int32), [len(recent) for recent in self.recents])
            history = Histories(np.concatenate([np.zeros(0, np.int32), *self.recents]).astype(np.int32), rows)
        sequences = self.sequences(ranker.sequence_length)
        return np.asarray(ranker.encode(self.users, sequences, history=history), np.float32)

    def exclude(self) -> np.ndarray:
        """Their items as `[queries, longest] int32`, padded with 0."""
        return pad(self.recents)


def pad(rows: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of different length as an array `[rows, longest] int32`, padded with 0 on the right."""
    padded = np.zeros((len(rows), max([len(row) for row in rows], default=0)), np.int32)
    for target, row in zip(padded, rows, strict=True):
        target[: len(row)] = row
    return padded


def made_up_queries(model: SequenceRanker, count: int, seed: int = 0) -> Queries:
    """Users spread over the catalogue with L random items each, where there is no dataset."""
    random = np.random.default_rng(seed)
    users = np.unique(np.linspace(0, model.num_users - 1, count).astype(np.int32))
    items = random.integers(1, model.num_items + 1, (len(users), model.sequence_length))
    return Queries(users, list(items.astype(np.int32)))


class HeldOutQuality:
    """Measures rankers on the held-out items of the split that a run was trained for.

    Args:
        data: the dataset and its split, "validation" or "test".
        sequence_length: L of the rankers.
    """

    def __init__(self, data: SplitData, sequence_length: int) -> None:
        self.data = data
        cutoffs = [n for n in _METRIC_CUTOFFS if n <= data.num_items]
        self._evaluator: Evaluator | None = None
        # A model is also served where nobody has a held-out item and nothing can be measured.
        with contextlib.suppress(InputError):
            self._evaluator = Evaluator(data, sequence_length, cutoffs or [1])

    def metrics(self, ranker: SequenceRanker) -> dict[str, float] | None:
        """Every metric of `rd_tf.evaluation.metrics`; None where nobody has a held-out item."""
        if self._evaluator is None:
            return None
        return dict(self._evaluator.evaluate(ranker).metrics)

    def compare(self, ranker: SequenceRanker, exported: SequenceRanker | None) -> dict[str, Any] | None:
        """Metrics of a ranker and of what the export made of it, if that is another one (JSON values)."""
        before = self.metrics(ranker)
        if before is None:
            return None
        after = before if exported is None else self.metrics(exported) or before
        change = after["map"] / before["map"] - 1 if before["map"] else 0.0
        described = {"split": self.data.name, "dataset": self.data.fingerprint}
        return {**described, "float32": before, "exported": after, "map_change": change}

    def queries(self, count: int) -> Queries:
        """Users spread over the dataset, at most `count`, each with all training items, as evaluation asks for them."""
        chosen = np.unique(np.linspace(0, self.data.num_users - 1, count).astype(np.int32))
        items, rows = self.data.seen.histories(chosen)
        return Queries(chosen, np.split(items, np.searchsorted(rows, np.arange(1, len(chosen)))))

    def trained_items(self) -> np.ndarray:
        """Numbers of the items that have a training row, the candidates of evaluation: `[n] int32`, ascending."""
        return np.flatnonzero(self.data.is_candidate).astype(np.int32)


@dataclasses.dataclass(frozen=True)
class ServedRanker:
    """What an export is made of.

    Attributes:
        model: the trained ranker of the served items alone, which are numbered anew.
        user_ids: raw id of every user.
        item_ids: raw id of every served item.
        options: those of `ExportOptions.for_catalogue`.
        whole: the trained ranker of all items.
        items: `[n] int32`, numbers of the served items in `whole`, ascending.
        quality: measures rankers of all items; None where there is no dataset to measure them on.
        item_names: name of every served item, "" for none; none at all without `ExportOptions.names`.
    """

    model: SequenceRanker
    user_ids: Sequence[str]
    item_ids: Sequence[str]
    options: ExportOptions
    whole: SequenceRanker
    items: np.ndarray
    quality: HeldOutQuality | None
    item_names: Sequence[str] = ()

    @classmethod
    def of(
        cls,
        model: SequenceRanker,
        user_ids: Sequence[str],
        item_ids: Sequence[str],
        options: ExportOptions,
        quality: HeldOutQuality | None = None,
        item_names: Sequence[str] = (),
    ) -> "ServedRanker":
        """Leaves the items without a training row out; without `quality` serves all items.

        Raises:
            InputError: the options do not fit the catalogue or each other.
        """
        items = quality.trained_items() if quality else np.arange(1, model.num_items + 1, dtype=np.int32)
        part, ids = with_items(model, items), [item_ids[item - 1] for item in items.tolist()]
        names = [item_names[item - 1] for item in items.tolist()] if options.names else []
        return cls(part, user_ids, ids, options.for_catalogue(part.num_items), model, items, quality, names)

    @functools.cached_property
    def typed_users(self) -> list[str | int]:
        """Raw ids of users as requests write them."""
        return self._typed(self.user_ids)

    @functools.cached_property
    def typed_items(self) -> list[str | int]:
        """Raw ids of served items as requests write them."""
        return self._typed(self.item_ids)

    def _typed(self, ids: Sequence[str]) -> list[str | int]:
        return list(ids) if self.options.id_type == "string" else [int(name) for name in ids]

    def queries(self, count: int) -> Queries:
        """Some users, at most `count`, with all their training items, or with random ones where there is no dataset."""
        if self.quality is None:
            return made_up_queries(self.model, count)
        asked = self.quality.queries(count)
        return Queries(
            asked.users, [np.searchsorted(self.items, recent).astype(np.int32) + 1 for recent in asked.recents]
        )

    def compare(self, exported: SequenceRanker) -> dict[str, Any] | None:
        """Metrics of the trained ranker and of what the export made of it (JSON values), where they can be measured.

        Args:
            exported: of the served items, with a row for the unknown user.
        """
        if self.quality is None:
            return None
        if self.options.weights == "float32":
            return self.quality.compare(self.whole, None)
        return self.quality.compare(self.whole, put_back(with_unknown_user(self.whole), exported, self.items))


def recall(ranker: SequenceRanker, search: Search, queries: Queries, max_k: int) -> dict[str, float]:
    """Share of the exact k best items that a search lists among its own k best, as a mean over queries.

    Args:
        ranker: scores.
        search: what is measured.
        queries: whose items are kept out of the lists.
        max_k: longest list.

    Returns:
        `recall@k` for k = 1, 10 and 100 where `max_k` allows, and for `max_k`.
    """
    exact = ExactSearch()

    @tf.function(
        autograph=False,
        input_signature=[tf.TensorSpec([None, ranker.query_dim]), tf.TensorSpec([None, None], tf.int32)],
    )
    def both(query: tf.Tensor, exclude: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return exact(ranker, query, exclude, max_k)[0], search(ranker, query, exclude, max_k)[0]

    vectors, cutoffs = queries.encode(ranker), sorted({*(k for k in _RECALL_CUTOFFS if k < max_k), max_k})
    found: dict[int, list[float]] = {k: [] for k in cutoffs}
    for begin in range(0, len(vectors), _RECALL_ROWS):
        rows = slice(begin, begin + _RECALL_ROWS)
        exclude = queries.rows(rows).exclude()
        for wanted, listed in zip(*map(np.asarray, both(vectors[rows], exclude)), strict=True):
            for k in cutoffs:
                best = wanted[:k][wanted[:k] > 0]
                found[k].append(float(np.isin(best, listed[:k]).mean()) if len(best) else 1.0)
    return {f"recall@{k}": float(np.mean(values)) for k, values in found.items()}


def fewest_probes(ranker: SequenceRanker, cells: Cells, queries: Queries, k: int, wanted: float) -> int:
    """How many cells `ClusteredSearch` has to search for a recall@k, as `recall` measures it.

    Args:
        ranker: scores.
        cells: the items by cell.
        queries: that the recall is the mean over.
        k: length of the lists.
        wanted: the recall, above 0 and at most 1.
    """
    exact = tf.function(
        lambda query, exclude: ExactSearch()(ranker, query, exclude, k)[0],
        autograph=False,
        input_signature=[tf.TensorSpec([None, ranker.query_dim]), tf.TensorSpec([None, None], tf.int32)],
    )
    cell_of = np.zeros(ranker.num_items + 1, np.int32)
    cell_of[cells.items] = np.repeat(np.arange(len(cells.centroids)), np.diff(cells.offsets))
    vectors = queries.encode(ranker)
    # By the number of cells searched: how much of the mean the last of them adds.
    gains = np.zeros(len(cells.centroids))
    for begin in range(0, len(vectors), _RECALL_ROWS):
        rows = slice(begin, begin + _RECALL_ROWS)
        scores = np.pad(vectors[rows], [(0, 0), (0, 1)], constant_values=1.0) @ cells.centroids.T
        place = np.empty(scores.shape, np.int32)
        np.put_along_axis(place, np.argsort(-scores, axis=1, kind="stable"), np.arange(scores.shape[1])[None], axis=1)
        for own, best in zip(place, np.asarray(exact(vectors[rows], queries.rows(rows).exclude())), strict=True):
            items = best[best > 0]
            places = own[cell_of[items]] if len(items) else np.zeros(1, np.int32)
            np.add.at(gains, places, 1.0 / (len(places) * len(vectors)))
    # Sums of shares that come to 1 may fall a little short of it.
    return min(len(gains), int(np.searchsorted(np.cumsum(gains), wanted - 1e-9)) + 1) if len(vectors) else 1


def bytes_by_kind(directory: str | os.PathLike[str]) -> dict[str, int]:
    """Bytes of an export's files: weights, graph, ids, other, their total, and beside it the item table."""
    sizes = dict.fromkeys(("weights", "graph", "ids", "item_table", "other"), 0)
    for file in Path(directory).rglob("*"):
        if file.is_file():
            kind = _KINDS.get(file.relative_to(directory).parts[0], "other")
            kind = "item_table" if file.name in (TABLE_FILE, IDS_FILE) else kind
            sizes[kind] += file.stat().st_size
    # The item table is for another index; the server does not load it.
    return {**sizes, "total": sum(sizes.values()) - sizes["item_table"]}


def seconds_per_request(answer: Callable[[int], Any]) -> dict[str, float]:
    """Median seconds of a request in this process, for a request of one row and one of 32.

    Args:
        answer: answers one request of that many rows.
    """
    medians = {}
    for rows in _TIMED_ROWS:
        # The first two requests trace and optimize the graph.
        for _ in range(2):
            answer(rows)
        seconds = []
        for _ in range(_TIMED_RUNS):
            begin = time.perf_counter()
            answer(rows)
            seconds.append(time.perf_counter() - begin)
        medians[str(rows)] = float(np.median(seconds))
    return medians


def write_report(directory: str | os.PathLike[str], served: ServedRanker, measured: dict[str, Any]) -> None:
    """Writes the report of an export that is otherwise whole.

    Args:
        directory: the export's; the report lies in its `assets.extra`.
        served: what was exported.
        measured: what else is known (JSON values).
    """
    model, options = served.model, served.options
    names = ("max_batch_size", "batch_timeout_micros", "num_batch_threads")
    described = {
        "model": type(model).__name__.lower(),
        "parameters": model.count_params(),
        "items": model.num_items,
        "format": options.export_format,
        "weights": options.weights,
        "id_type": options.id_type,
        "max_k": options.max_k,
        "exclude_recent": options.exclude_recent,
        "batching": {name: getattr(options, name) for name in names} if options.batching else None,
        "unknown_user": "a trained row" if model.unknown_user else model.unknown_user_is,
        **measured,
    }
    path = Path(directory) / REPORT_FILE
    path.parent.mkdir(exist_ok=True)
    write_json(path, described)


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
        self._names = np.array(["", *served.item_names], object)
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
        if self._options.names and not np.array_equal(answer["names"], self._names[listed]):
            raise self._error(RECOMMEND, answer["names"], self._names[listed])

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

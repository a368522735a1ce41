"""Requests to an export's signatures, of known and of strange ids."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from rd_tf.models.ranker import SequenceRanker
from rd_tf.serving.signatures import QUERY, SCORE

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


def typed(ids: Sequence[str], id_type: str) -> list[str | int]:
    """Raw ids as requests write them."""
    return list(ids) if id_type == "string" else [int(name) for name in ids]


def known_request(
    model: SequenceRanker, user_ids: Sequence[str], item_ids: Sequence[str], max_k: int, id_type: str
) -> Request:
    """A request of up to four known users, spread over the catalogue, each with L items (fewer in a tiny one)."""
    users = np.unique(np.linspace(0, model.num_users - 1, _QUERIES).astype(int))
    length = min(model.sequence_length, model.num_items)
    places = np.linspace(0, model.num_items - 1, len(users) * length).astype(int).reshape(len(users), length)
    names = [typed([item_ids[place] for place in row], id_type) for row in places]
    return Request(
        typed([user_ids[user] for user in users], id_type),
        names,
        [row[:1] for row in reversed(names)],
        names,
        [(max_k, 3, 1, 0)[row % 4] for row in range(len(users))],
        id_type,
    )


def strange_requests(
    model: SequenceRanker, user_ids: Sequence[str], item_ids: Sequence[str], max_k: int, id_type: str
) -> list[Request]:
    """Requests that an export must survive: unknown users and items, nothing at all, no rows, ids nobody has."""
    user, item = typed(user_ids[-1:], id_type), typed(item_ids[:1], id_type)
    none: str | int = "" if id_type == "string" else 0
    odd: list[str | int] = [name for name in [*_STRANGE[id_type], none] if str(name) not in {*user_ids, *item_ids}]
    rows = len(odd)
    return [
        # More than anybody may ask for, and less than nothing.
        Request([*user, *odd[:1]], [[*item, none]] * 2, [[none]] * 2, [[*item, none]] * 2, [max_k + 1, -1], id_type),
        Request([*user, *odd[:1]], [[], []], [[], []], [[], []], [2, 2], id_type),
        Request(odd, [odd] * rows, [[*item, *odd]] * rows, [[*odd, *item]] * rows, [2] * rows, id_type),
        Request(odd[:1], [[*item, *odd, *item]], [[]], [item], [1], id_type),
        Request([], [], [], [], [], id_type),
    ]

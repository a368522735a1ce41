"""Queries to try an export with."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rd_tf.data.interactions import Interactions, user_offsets
from rd_tf.data.windows import Split
from rd_tf.models.ranker import Histories, SequenceRanker


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

    def encode(self, ranker: SequenceRanker) -> np.ndarray:
        """Their vectors, `[queries, q] float32`."""
        if not len(self.users):
            # Keras takes no maximum of nothing outside of a graph.
            return np.zeros((0, ranker.query_dim), np.float32)
        length = ranker.sequence_length
        sequences = np.zeros((len(self.users), length), np.int32)
        for row, recent in zip(sequences, self.recents, strict=True):
            row[length - min(length, len(recent)) :] = recent[-length:]
        history = None
        if ranker.looks_back != "none":
            rows = np.repeat(np.arange(len(self.users), dtype=np.int32), [len(recent) for recent in self.recents])
            history = Histories(np.concatenate([np.zeros(0, np.int32), *self.recents]).astype(np.int32), rows)
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


def training_queries(interactions: Interactions, split: Split, count: int) -> Queries:
    """Users spread over the dataset, each with all training items: what evaluation asks the ranker.

    Args:
        interactions: the dataset.
        split: which rows are training.
        count: how many users at most.
    """
    users, items = interactions.users[split.train], interactions.items[split.train]
    offsets = user_offsets(users, interactions.num_users)
    chosen = np.unique(np.linspace(0, interactions.num_users - 1, count).astype(np.int32))
    return Queries(chosen, [items[offsets[user] : offsets[user + 1]].astype(np.int32) for user in chosen])


def made_up_queries(model: SequenceRanker, count: int, seed: int = 0) -> Queries:
    """Users spread over the catalogue with L random items each, where there is no dataset."""
    random = np.random.default_rng(seed)
    users = np.unique(np.linspace(0, model.num_users - 1, count).astype(np.int32))
    items = random.integers(1, model.num_items + 1, (len(users), model.sequence_length))
    return Queries(users, list(items.astype(np.int32)))

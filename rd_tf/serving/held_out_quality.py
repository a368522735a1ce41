"""How well an exported ranker ranks, and queries to time it with."""

import contextlib
from typing import Any

import numpy as np

from rd_tf.data.interactions import Interactions
from rd_tf.data.windows import split_interactions
from rd_tf.evaluation.evaluator import Evaluator
from rd_tf.models.ranker import SequenceRanker
from rd_tf.serving.real_queries import Queries, training_queries
from rd_tf.serving.stored_ranker import put_back
from rd_tf.serving.unknown_user import with_unknown_user
from rd_tf.storage import InputError

_CUTOFFS = (3, 5, 10, 20)


class HeldOutQuality:
    """Measures rankers on the held-out items of the split that a run was trained for.

    Args:
        interactions: the dataset.
        split: "validation" or "test".
        sequence_length: L of the rankers.
    """

    def __init__(self, interactions: Interactions, split: str, sequence_length: int) -> None:
        self.split = split
        self._interactions, self._rows = interactions, split_interactions(interactions, split)
        cutoffs = [n for n in _CUTOFFS if n <= interactions.num_items]
        self._evaluator: Evaluator | None = None
        # Nobody may have a held-out item; that is no reason not to serve a model.
        with contextlib.suppress(InputError):
            self._evaluator = Evaluator(interactions, self._rows, sequence_length, cutoffs or [1])

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
        dataset = self._interactions.fingerprint()
        return {"split": self.split, "dataset": dataset, "float32": before, "exported": after, "map_change": change}

    def queries(self, count: int) -> Queries:
        """Some users of the dataset with all their training items."""
        return training_queries(self._interactions, self._rows, count)

    def trained_items(self) -> np.ndarray:
        """Numbers of the items that have a training row, the candidates of evaluation: `[n] int32`, ascending."""
        return np.unique(self._interactions.items[self._rows.train]).astype(np.int32)


class ServedQuality:
    """The same for rankers of the trained items alone, which are numbered anew.

    Args:
        quality: measures rankers of the whole catalogue.
        model: the trained ranker, of the whole catalogue.
        items: `[n] int32`, numbers of the trained items, ascending.
    """

    def __init__(self, quality: HeldOutQuality, model: SequenceRanker, items: np.ndarray) -> None:
        self._quality, self._model, self._items = quality, model, items

    def compare(self, exported: SequenceRanker | None) -> dict[str, Any] | None:
        """Metrics of the trained ranker and of what the export made of it, if that is another one (JSON values).

        Args:
            exported: of the trained items, with a row for the unknown user; None where its weights are the trained.
        """
        if exported is not None:
            exported = put_back(with_unknown_user(self._model), exported, self._items)
        return self._quality.compare(self._model, exported)

    def queries(self, count: int) -> Queries:
        """Some users of the dataset with all their training items, in the served numbers."""
        asked = self._quality.queries(count)
        served = [np.searchsorted(self._items, recent).astype(np.int32) + 1 for recent in asked.recents]
        return Queries(asked.users, served)

"""Metrics of a ranker on the held-out items of a split."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rd_tf import run_directory
from rd_tf.data.interactions import Interactions
from rd_tf.data.windows import Split, SplitData
from rd_tf.evaluation.held_out import make_held_out
from rd_tf.evaluation.metrics import AT_CUTOFF, Alone, Spread, average_precision, parse_cutoffs
from rd_tf.evaluation.ranks import NOT_FINITE, FrozenScores, Score, rank_targets
from rd_tf.models.ranker import SequenceRanker
from rd_tf.runtime import blocks_at_once
from rd_tf.storage import InputError, atomic_file, write_json


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How well a ranker ranks.

    Attributes:
        metrics: `precision@n`, `recall@n`, `ndcg@n`, `ndcg_tang@n`, `hit_rate@n`, `mrr@n` for every cutoff n, and
            `map`: means over the evaluated users.
        per_user: one row an evaluated user: `user` int32, the raw `user_id` and a float64 column a metric; `map` is the
            mean of `ap`.
        counts: see `rd_tf.evaluation.held_out.HeldOut.counts`.
        ranks: `[targets] float64`, ranks from 1 of the evaluator's `held_out.targets`; infinity for one that cannot be
            ranked.
    """

    metrics: dict[str, float]
    per_user: pd.DataFrame
    counts: dict[str, int]
    ranks: np.ndarray


def save_evaluation(
    evaluation: Evaluation, split: str, directory: str | os.PathLike[str], **described: Any
) -> dict[str, Any]:
    """Writes `per_user.parquet` and `metrics.json`.

    Args:
        evaluation: what to write.
        split: "validation" or "test".
        directory: where.
        described: what else `metrics.json` should tell (JSON values).

    Returns:
        What `metrics.json` holds.
    """
    result = {"split": split, "metrics": evaluation.metrics, "counts": evaluation.counts, **described}
    with atomic_file(Path(directory) / run_directory.PER_USER) as temporary:
        evaluation.per_user.to_parquet(temporary, index=False)
    write_json(Path(directory) / run_directory.METRICS, result)
    return result


class Evaluator:
    """Evaluates rankers on one split; all that does not depend on the ranker is prepared once.

    Args:
        data: the dataset, and which of its rows are training and which are held out.
        sequence_length: L of the models.
        cutoffs: n, list lengths of the metrics.
        block_size: users scored in one matrix product.
        spread: the processes that share the work, each ranking some of the users; all get the whole evaluation.

    Raises:
        InputError: a cutoff that is no list length of this catalogue, or nobody has a held-out item.
    """

    def __init__(
        self,
        data: SplitData,
        sequence_length: int,
        cutoffs: Sequence[str | int] = (3, 5, 10, 20),
        block_size: int = 1024,
        spread: Spread | None = None,
    ) -> None:
        self.sizes = (data.num_users, data.num_items, sequence_length)
        self.cutoffs = parse_cutoffs(cutoffs, data.num_items)
        self.block_size = block_size
        self.held_out = make_held_out(data, sequence_length)
        self._spread = spread or Alone()
        self._data = data
        self._model: SequenceRanker | None = None
        self._scores: FrozenScores | None = None

    def evaluate(self, model: SequenceRanker) -> Evaluation:
        """Evaluates a ranker; call it again after training on, the same graph sees the new weights.

        Raises:
            InputError: the model's scores are not finite.
            ValueError: the model is made for other users, items or sequences.
        """
        sizes = (model.num_users, model.num_items, model.sequence_length)
        if sizes != self.sizes:
            raise ValueError(
                f"the model must have {self.sizes[0]} users, {self.sizes[1]} items and sequences of {self.sizes[2]}; "
                f"received {sizes[0]}, {sizes[1]} and {sizes[2]}"
            )
        if self._scores is None or model is not self._model:
            self._model, self._scores = model, FrozenScores(model)
        scores, histories = self._scores.freeze(), self._data.histories
        return self._evaluate(lambda users, rows: scores(users, rows, histories(model, users)), blocks_at_once())

    def evaluate_scores(self, score: Score) -> Evaluation:
        """Evaluates any ranker by its scores.

        Args:
            score: (users `[batch] int32`, sequences `[batch, L] int32`) -> scores `[batch, num_items + 1]`, an array or
                a tensor; column 0, the padding, is ignored. Called from another thread, ahead of use, so a call must
                not write into what earlier calls returned.

        Raises:
            InputError: the scores are not finite.
            ValueError: the scores have the wrong shape.
        """

        def checked(users: np.ndarray, sequences: np.ndarray) -> np.ndarray:
            scores = np.asarray(score(users, sequences))
            if not np.isfinite(scores[..., 1:]).all():
                raise InputError(NOT_FINITE)
            return scores

        return self._evaluate(checked, 1)

    def _users(self) -> dict[str, Any]:
        users, names = self.held_out.users, self._data.interactions.user_ids
        return {"user": users, "user_id": pd.Series([names[user] for user in users.tolist()], dtype="str")}

    def _evaluate(self, score: Score, threads: int) -> Evaluation:
        offsets, share = self.held_out.target_offsets, self._spread.share(len(self.held_out.users))
        ranks = np.zeros(len(self.held_out.targets))
        ranks[offsets[share.start] : offsets[share.stop]] = rank_targets(
            score, self.held_out.part(share.start, share.stop), self.block_size, threads
        )
        ranks = self._spread.sum(ranks)
        columns = {f"{name}@{n}": metric(ranks, offsets, n) for name, metric in AT_CUTOFF.items() for n in self.cutoffs}
        columns["ap"] = average_precision(ranks, offsets)
        means = {"map" if name == "ap" else name: float(values.mean()) for name, values in columns.items()}
        return Evaluation(means, pd.DataFrame({**self._users(), **columns}), dict(self.held_out.counts), ranks)


def evaluate_on(
    ranker: SequenceRanker, data: SplitData, cutoffs: Sequence[str | int] = (3, 5, 10, 20), block_size: int = 1024
) -> Evaluation:
    """Ranks the whole catalogue for every user and holds the lists against the held-out items: `rd_tf.evaluate`.

    Args:
        ranker: trained; anything with a `SequenceRanker`'s methods.
        data: `rd_tf.load_dataset(...).split(...)`.
        cutoffs: n, list lengths of the metrics.
        block_size: users scored in one matrix product.

    Returns:
        `metrics` by name ("map", "precision@5", ...), means over users, and `per_user`, a table.

    Raises:
        InputError: a cutoff that is no list length of this catalogue, or the split holds nothing out.
        ValueError: the ranker is made for other users, items or sequences.
    """
    return Evaluator(data, ranker.sequence_length, cutoffs, block_size).evaluate(ranker)


def popularity_scores(interactions: Interactions, split: Split) -> Score:
    """Ranks items by their number of training interactions, for every user alike.

    Args:
        interactions: the dataset.
        split: whose training rows are counted; repeated visits count each time.

    Returns:
        (users `[batch]`, sequences `[batch, L]`) -> scores `[batch, num_items + 1] float32`, read-only.
    """
    levels = _popularity_levels(interactions, split).astype(np.float32)
    return lambda users, _: np.broadcast_to(levels, (len(users), len(levels)))


def successor_scores(interactions: Interactions, split: Split) -> Score:
    """Ranks items by how often they came right after the user's last training item, in any user's training history.

    Ties, and so all items that never did, are ranked by popularity.

    Args:
        interactions: the dataset.
        split: whose training rows are counted.

    Returns:
        (users `[batch]`, sequences `[batch, L] int32`, the last item in the last column, 0 = none) -> scores
        `[batch, num_items + 1] float32`.
    """
    popularity = _popularity_levels(interactions, split)
    users, items = interactions.users[split.train], interactions.items[split.train].astype(np.int64)
    is_pair = users[1:] == users[:-1]
    size = interactions.num_item_rows
    pairs, counts = np.unique(items[:-1][is_pair] * size + items[1:][is_pair], return_counts=True)
    before, after = np.divmod(pairs, size)
    offsets = np.searchsorted(before, np.arange(size + 1))
    # A count is replaced by its place, from 1, among the distinct counts after the same item, so that the sums below
    # stay under 2^24, up to which float32 is exact.
    first = before * (counts.max(initial=0) + 1)
    distinct, places = np.unique(first + counts, return_inverse=True)
    gains = ((popularity.max() + 1) * (places - np.searchsorted(distinct, first) + 1)).astype(np.float32)
    bases = popularity.astype(np.float32)

    def score(users: np.ndarray, sequences: np.ndarray) -> np.ndarray:
        scores = np.tile(bases, (len(users), 1))
        for row, last in zip(scores, sequences[:, -1], strict=True):
            successors = slice(offsets[last], offsets[last + 1])
            row[after[successors]] += gains[successors]
        return scores

    return score


BASELINES = {"popularity": popularity_scores, "successors": successor_scores}


def evaluate_baselines(
    interactions: Interactions, split: Split, cutoffs: Sequence[str | int], block_size: int = 1024
) -> dict[str, Evaluation]:
    """Evaluates all of `BASELINES` by name; arguments and errors as in `rd_tf.evaluation.evaluator.Evaluator`."""
    evaluator = Evaluator(SplitData(interactions, split), 1, cutoffs, block_size)
    return {name: evaluator.evaluate_scores(scores(interactions, split)) for name, scores in BASELINES.items()}


def _popularity_levels(interactions: Interactions, split: Split) -> np.ndarray:
    """`[num_items + 1]`: the place, from 0, of an item's number of training rows among the distinct ones."""
    counts = np.bincount(interactions.items[split.train], minlength=interactions.num_item_rows)
    return np.unique(counts, return_inverse=True)[1]

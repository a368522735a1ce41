"""A teacher's lists for the windows of one shard after another."""

import numpy as np

from rd_tf.data.shard_windows import ShardWindows
from rd_tf.data.teacher_cache_writer import Described, OpenFile, open_lists
from rd_tf.evaluation.frozen_scores import FrozenScores
from rd_tf.models.ranker import SequenceRanker
from rd_tf.progress import Advance
from rd_tf.teacher.plan import TeachPlan
from rd_tf.teacher.top_k import TopK


class ShardLists:
    """Writes the lists of shards.

    Blocks begin anew with every shard, so that a shard's lists are the same, bit for bit, wherever and in whatever
    order the shards are worked on: the rounding of a matrix product depends on its shape.

    Args:
        plan: of the cache.
        model: the teacher, whose weights stand still.
    """

    def __init__(self, plan: TeachPlan, model: SequenceRanker) -> None:
        self._plan, self._model, self._scores = plan, model, FrozenScores(model)

    def write(
        self,
        cut: ShardWindows,
        is_candidate: np.ndarray,
        open_file: OpenFile,
        number: int,
        shards: int,
        advance: Advance,
    ) -> Described:
        """Writes the two files of a shard.

        Args:
            cut: the shard's windows.
            is_candidate: `[num_items + 1] bool`, the items that have a training row in some shard.
            open_file: opens a file of the cache by its name.
            number: of the shard.
            shards: how many there are; 0 where the dataset is not sharded.
            advance: told of windows that are done.

        Returns:
            What the cache's manifest says of the files.

        Raises:
            InputError: K items do not remain for some window, or the teacher's scores are not finite.
        """
        plan = self._plan
        sizes = plan.k, plan.mask, plan.block_size
        top_k = TopK(
            self._model, cut.windows, cut.seen, *sizes, cut.first_user, scores=self._scores, is_candidate=is_candidate
        )
        with open_lists(open_file, number, shards, len(cut.windows), plan.k) as writer:
            top_k.all_lists(writer.store, advance)
        return writer.described()

"""Which lists a teacher makes for which windows, before any data are read."""

import dataclasses
from typing import Any

from rd_tf.data.dataset_shard import DatasetShard
from rd_tf.data.shard_windows import ShardWindows, cut_shard
from rd_tf.data.teacher_cache import CacheKey
from rd_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class TeachPlan:
    """What is the same for all shards of a dataset.

    Attributes:
        dataset: fingerprint of the dataset.
        teacher: fingerprint of the teacher's weights.
        num_items: of the catalogue.
        split: the teacher's, "validation" or "test".
        sequence_length: the teacher's L.
        target_length: the teacher's T.
        k: K.
        mask: "target", "seen" or "none".
        block_size: windows a block.
    """

    dataset: str
    teacher: str
    num_items: int
    split: str
    sequence_length: int
    target_length: int
    k: int
    mask: str
    block_size: int

    def key(self, windows: str | None) -> CacheKey:
        """The key of the cache; `windows` is the windows' fingerprint, or None for any."""
        lengths = self.sequence_length, self.target_length
        return CacheKey(self.dataset, self.split, *lengths, windows, self.teacher, self.mask)

    def cut(self, shard: DatasetShard) -> ShardWindows:
        """The training windows of a shard."""
        return cut_shard(shard, self.split, self.sequence_length, self.target_length)

    def default_place(self, teacher: str) -> str:
        """Where the cache of a teacher's run directory lies unless it is told otherwise."""
        return f"{teacher.rstrip('/')}/top_k/{self.split}-k{self.k}-{self.mask}"


def make_plan(teacher: str, manifest: dict[str, Any], k: int, mask: str, block_size: int) -> TeachPlan:
    """The plan of a teacher.

    Args:
        teacher: the run directory, for messages.
        manifest: its manifest.
        k: K.
        mask: "target", "seen" or "none".
        block_size: windows a block.

    Raises:
        InputError: the manifest does not tell L, T or the size of the catalogue.
    """
    config = manifest["model"]["config"]
    numbers = config.get("num_items"), config.get("sequence_length"), manifest.get("flags", {}).get("target_length")
    if not all(isinstance(number, int) for number in numbers):
        raise InputError(
            f"--teacher={teacher}: its manifest.json does not tell L, T and the number of items; train it again"
        )
    num_items, sequence_length, target_length = numbers
    return TeachPlan(
        manifest["dataset"]["fingerprint"],
        manifest["model"]["fingerprint"],
        num_items,
        manifest["split"],
        sequence_length,
        target_length,
        k,
        mask,
        block_size,
    )

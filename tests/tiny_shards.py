"""The tiny dataset in shards, and a power cut while its lists are made."""

from typing import Any

import pytest

from rd_tf.teacher.scoring import TopK

# Of the fixture `sharded_dataset`.
SHARDS = 3


def cut_power_in_the_second_shard(patch: pytest.MonkeyPatch) -> None:
    """Lets the listing of the second shard from now on raise a RuntimeError, "power cut"."""
    all_lists, calls = TopK.all_lists, []

    def power_cut(self: TopK, *arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("power cut")
        all_lists(self, *arguments)

    patch.setattr(TopK, "all_lists", power_cut)

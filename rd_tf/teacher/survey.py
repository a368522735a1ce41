"""What must be known of all windows before the first list is made."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from rd_tf.data.shard_windows import ShardWindows
from rd_tf.data.windows import Windows
from rd_tf.data.windows_fingerprint import windows_fingerprint
from rd_tf.teacher.plan import TeachPlan


@dataclasses.dataclass(frozen=True)
class Survey:
    """Facts about the windows of all shards.

    Attributes:
        fingerprint: `Windows.fingerprint()` of all windows.
        windows: how many there are.
        longest: most training items of a user.
        is_candidate: `[num_items + 1] bool`, the items that have a training row.
    """

    fingerprint: str
    windows: int
    longest: int
    is_candidate: np.ndarray


def survey_windows(plan: TeachPlan, cut: Callable[[int], ShardWindows], shards: int) -> Survey:
    """Goes over the windows once, a shard at a time.

    Args:
        plan: of the cache.
        cut: from a shard's number to its windows.
        shards: how many there are.
    """
    windows = longest = 0
    is_candidate = np.zeros(plan.num_items + 1, bool)

    def parts() -> Iterator[Windows]:
        nonlocal windows, longest
        for number in range(shards):
            part = cut(number)
            windows, longest = windows + len(part.windows), max(longest, part.seen.longest)
            is_candidate[:] |= part.seen.occurring(plan.num_items)
            yield part.of_the_dataset()
            # Else it would stay in memory until the next one is there.
            del part

    fingerprint = windows_fingerprint(parts(), plan.sequence_length, plan.target_length)
    return Survey(fingerprint, windows, longest, is_candidate)

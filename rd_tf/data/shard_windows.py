"""The training windows of one shard of a dataset."""

import dataclasses

from rd_tf.data.dataset_shard import DatasetShard
from rd_tf.data.interactions import Interactions
from rd_tf.data.split import split_interactions
from rd_tf.data.user_items import UserItems
from rd_tf.data.windows import Windows, make_windows


@dataclasses.dataclass(frozen=True)
class ShardWindows:
    """Training windows and training items of consecutive users, who are numbered from 0 here.

    Attributes:
        first_user: the number of user 0 in the whole dataset.
        windows: those that `make_windows` cuts for these users in the whole dataset, in the same order.
        seen: the users' training items.
    """

    first_user: int
    windows: Windows
    seen: UserItems

    def of_the_dataset(self) -> Windows:
        """The windows with the users' numbers in the whole dataset."""
        return dataclasses.replace(self.windows, users=self.windows.users + self.first_user)


def cut_shard(shard: DatasetShard, split: str, sequence_length: int, target_length: int) -> ShardWindows:
    """Cuts a shard into windows; a user's split and windows depend on nobody else.

    Args:
        shard: of the dataset.
        split: "validation" or "test".
        sequence_length: L, at least 1.
        target_length: T, at least 1.
    """
    # Whose raw ids they are, nobody asks here.
    raw_ids = [""] * shard.num_users
    interactions = Interactions(shard.users - shard.first_user, shard.items, shard.timestamps, raw_ids, [])
    train = split_interactions(interactions, split).train
    windows = make_windows(interactions, train, sequence_length, target_length)
    seen = UserItems(interactions.users[train], interactions.items[train], shard.num_users)
    return ShardWindows(shard.first_user, windows, seen)

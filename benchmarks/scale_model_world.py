"""Counts of a world of check-ins, and the bytes of what training and evaluation hold of it."""

import dataclasses
import sys

_INT, _LONG, _DOUBLE = 4, 8, 8
_POINTER = 8


@dataclasses.dataclass(frozen=True)
class World:
    """A dataset in which every user has equally many check-ins.

    Attributes:
        users: number of users.
        items: number of items, the padding not counted.
        check_ins: of a user.
        sequence_length: L.
        target_length: T.
        id_length: characters of a raw id.
    """

    users: int
    items: int
    check_ins: int
    sequence_length: int = 5
    target_length: int = 1
    id_length: int = 10

    @property
    def rows(self) -> int:
        """Check-ins of all users."""
        return self.users * self.check_ins

    @property
    def train_rows(self) -> int:
        """Of the test split: all but the last fifth of a user's check-ins."""
        return self.users * (self.check_ins - self.check_ins // 5)

    @property
    def targets(self) -> int:
        """Held-out check-ins of the test split."""
        return self.rows - self.train_rows

    @property
    def windows(self) -> int:
        """Training windows of the test split; a short history gives one, padded."""
        kept = self.check_ins - self.check_ins // 5
        return self.users * max(1, kept - self.sequence_length - self.target_length + 1)

    @property
    def dataset_bytes(self) -> int:
        """A dataset directory without compression: user, item and time of a row, and raw ids with line breaks."""
        return self.rows * (2 * _INT + _LONG) + (self.users + self.items) * (self.id_length + 1)

    @property
    def interactions_bytes(self) -> int:
        """`Interactions`: three arrays."""
        return self.rows * (2 * _INT + _LONG)

    @property
    def ids_bytes(self) -> int:
        """Lists of raw ids in Python: a string and a pointer each."""
        return (self.users + self.items) * (sys.getsizeof("0" * self.id_length) + _POINTER)

    @property
    def split_bytes(self) -> int:
        """`Split`: two masks."""
        return 2 * self.rows

    @property
    def windows_bytes(self) -> int:
        """`Windows`: user, position, L items, T targets."""
        return _INT * self.windows * (2 + self.sequence_length + self.target_length)

    @property
    def user_items_bytes(self) -> int:
        """`UserItems`, and about what `UnseenItemSampler` holds: an item a training row, an offset a user."""
        return _INT * self.train_rows + _LONG * self.users

    @property
    def rank_sampler_bytes(self) -> int:
        """`RankSampler`: the same and a stratum an item."""
        return self.user_items_bytes + _INT * self.items

    @property
    def held_out_bytes(self) -> int:
        """`HeldOut`: last sequences, targets and seen items with offsets; ranks of the targets in float64."""
        of_users = self.users * (_INT * (1 + self.sequence_length) + 2 * _LONG)
        return of_users + _INT * self.train_rows + (_INT + _DOUBLE) * self.targets

    def training_bytes(self, with_teacher: bool) -> int:
        """What every process that trains holds of the data, whatever its own part of a batch."""
        always = self.interactions_bytes + self.ids_bytes + self.split_bytes + self.windows_bytes
        always += 2 * self.user_items_bytes + self.held_out_bytes
        return always + (self.rank_sampler_bytes if with_teacher else 0)

    def evaluation_bytes(self, columns: int) -> int:
        """Per-user metrics in float64, with the user's number."""
        return self.users * (_INT + _DOUBLE * columns)

    def cache_bytes(self, k: int) -> int:
        """A teacher cache: items in int32 and scores in float16."""
        return self.windows * k * (_INT + 2)

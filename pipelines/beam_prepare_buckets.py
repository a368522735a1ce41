"""Where pipelines.beam_prepare keeps what: users, items and rows lie in buckets, and a code tells the bucket.

An id is dealt to a bucket by its hash and numbered there; its code is number * buckets + bucket. A row lies in the
bucket of its user.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pandas.util import hash_array

from pipelines.beam_files import read_table

USER, ITEM = "user", "item"


@dataclasses.dataclass(frozen=True)
class Buckets:
    """The layout of the working directory.

    Attributes:
        work: the directory.
        count: number of buckets.
    """

    work: str
    count: int

    def of_ids(self, ids: pa.Array) -> np.ndarray:
        """`[ids] int64`: the bucket of every raw id, the same in every process."""
        return (hash_array(ids.to_numpy(zero_copy_only=False), categorize=False) % np.uint64(self.count)).astype(
            np.int64
        )

    def codes(self, bucket: int, numbers: np.ndarray) -> np.ndarray:
        """`[ids] int32`: the codes of numbers in a bucket.

        Raises:
            OverflowError: there are more than 2^31 of them, and so more than a dataset can hold.
        """
        codes = numbers.astype(np.int64) * self.count + bucket
        if len(codes) and codes.max() > np.iinfo(np.int32).max:
            raise OverflowError("more than 2^31 users or items")
        return codes.astype(np.int32)

    def of_codes(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`[codes]` buckets and `[codes]` numbers in them."""
        return codes % self.count, codes // self.count

    def ids(self, kind: str, bucket: int) -> str:
        """The file of a bucket's raw ids, in the order of their numbers."""
        return f"{self.work}/ids/{kind}-{bucket:05}.arrow"

    def rows(self, bucket: int) -> str:
        """The file of a bucket's rows after duplicates are dropped: user (number in the bucket), item, time, order."""
        return f"{self.work}/rows/{bucket:05}.arrow"

    def core(self, bucket: int) -> str:
        """The file of the rows that the k-core leaves of it, likewise."""
        return f"{self.work}/core/{bucket:05}.arrow"

    def numbers(self, kind: str, range_: int) -> str:
        """The file of codes and raw ids whose first rows lie in a range of rows, in the order of these rows."""
        return f"{self.work}/numbers/{kind}-{range_:05}.arrow"

    def slice(self, number: int) -> str:
        """The file of finished rows of consecutive users."""
        return f"{self.work}/slices/{number:05}.arrow"


class Rows(NamedTuple):
    """`[rows]` each: the user's number in his bucket, the item's code, the time, the row's place in the input."""

    users: np.ndarray
    items: np.ndarray
    times: np.ndarray
    order: np.ndarray

    def where(self, chosen: np.ndarray) -> "Rows":
        """The rows at places, or where a mask is true."""
        return Rows(*(column[chosen] for column in self))


def as_rows(table: pa.Table) -> Rows:
    """The columns of a table in a bucket's file."""
    return Rows(*(table[name].to_numpy() for name in ("user", "item", "time", "order")))


def as_table(rows: Rows) -> pa.Table:
    """A table for a bucket's file."""
    return pa.table(dict(zip(("user", "item", "time", "order"), rows, strict=True)))


def read_ids(path: str) -> pa.Array:
    """Raw ids in the order of their numbers."""
    return read_table(path)["id"].combine_chunks()

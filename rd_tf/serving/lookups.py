"""Raw ids to numbers and back, inside a graph."""

import gzip
import hashlib
import os
from pathlib import Path
from typing import Any

import tensorflow as tf

from rd_tf.storage import file_sha256

_BUCKETS = 2**63 - 1


class Lookups(tf.Module):
    """The tables of an export; they read their ids from its assets.

    Args:
        users_file: raw id of user i in line i, counted from 0, as `write_ids` writes them.
        items_file: raw id of item i in line i - 1.
        num_users: what an unknown user becomes.
        id_type: "string" or "int64".
    """

    def __init__(
        self, users_file: str | os.PathLike[str], items_file: str | os.PathLike[str], num_users: int, id_type: str
    ) -> None:
        super().__init__()
        self.id_dtype = tf.as_dtype(id_type)
        self._users = tf.lookup.StaticHashTable(_Lines(users_file, self.id_dtype, 0), num_users)
        self._items = tf.lookup.StaticHashTable(_Lines(items_file, self.id_dtype, 1), 0)
        # A table rather than a constant: a graph may not exceed 2 GB.
        none: Any = "" if id_type == "string" else 0
        self._names = tf.lookup.StaticHashTable(_Lines(items_file, self.id_dtype, 1, by_number=True), none)

    def users(self, ids: tf.Tensor) -> tf.Tensor:
        """Numbers of users, `int32` of the shape of `ids`; `num_users` for an unknown one."""
        return tf.cast(self._users.lookup(ids), tf.int32)

    def items(self, ids: tf.Tensor) -> tf.Tensor:
        """Numbers of items, `int32` of the shape of `ids`; 0 for an unknown one and for none."""
        return tf.cast(self._items.lookup(ids), tf.int32)

    def names(self, items: tf.Tensor) -> tf.Tensor:
        """Raw ids of items; "" (or 0) for item 0."""
        return self._names.lookup(tf.cast(items, tf.int64))


class _Lines(tf.lookup.TextFileInitializer):
    """The ids of a gzip file and their numbers; TensorFlow's own initializer reads plain files only."""

    def __init__(self, file: str | os.PathLike[str], id_dtype: tf.DType, first: int, by_number: bool = False) -> None:
        whole_line, line_number = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
        # The base class takes the dtypes of its own kind of file; the table is told its real ones below.
        super().__init__(os.fspath(file), tf.string, whole_line, tf.int64, line_number)
        self._key_dtype, self._value_dtype = (tf.int64, id_dtype) if by_number else (id_dtype, tf.int64)
        self._id_dtype, self._first, self._by_number = id_dtype, first, by_number
        self._file = Path(file).name
        self._sha256 = file_sha256(file)
        with gzip.open(file, "rb") as text:
            self._fingerprint = int(tf.strings.to_hash_bucket_fast(text.read(), _BUCKETS))

    def initialize(self, table: tf.lookup.StaticHashTable) -> tf.Operation:
        text = tf.io.decode_compressed(tf.io.read_file(tf.convert_to_tensor(self._filename, tf.string)), "GZIP")
        # A loader reads a file that was cut or altered without a word, and the answers would be other people's ids.
        is_whole = tf.equal(tf.strings.to_hash_bucket_fast(text, _BUCKETS), self._fingerprint)
        damaged = tf.debugging.Assert(is_whole, [f"{self._file} is not the file that was exported"])
        with tf.control_dependencies([damaged]):
            text = tf.identity(text)
        # The op itself: what tf.strings.split adds for ragged tensors is 6 kB of graph a table.
        ids = tf.raw_ops.StringSplitV2(input=tf.expand_dims(text, 0), sep="\n").values
        if self._id_dtype != tf.string:
            ids = tf.strings.to_number(ids, self._id_dtype)
        numbers = tf.range(tf.size(ids, tf.int64)) + self._first
        keys, values = (numbers, ids) if self._by_number else (ids, numbers)
        return tf.raw_ops.InitializeTableV2(table_handle=table.resource_handle, keys=keys, values=values)

    @property
    def _shared_name(self) -> str:
        # Without a name a table gets a random one, and two exports of a model differ. In one process tables of one name
        # are one, as those of several versions in Python: so the name has to tell what is in the table.
        kind = f"{self._key_dtype.name} {self._value_dtype.name} {self._first} {self._by_number}"
        return f"table_{hashlib.sha256(f'{kind} {self._sha256}'.encode()).hexdigest()}"

"""The graph of an export: raw ids in, raw ids and scores out."""

import gzip
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from rd_tf.models.ranker import Histories
from rd_tf.serving.publishing import ExportOptions
from rd_tf.serving.search import Search
from rd_tf.serving.weights import StoredRanker
from rd_tf.storage import InputError, file_sha256

RECOMMEND, SCORE, QUERY = "serving_default", "score", "query"
# What stands beside no item; infinities are not JSON.
NO_SCORE = tf.float32.min
# (users [b], recent [b, n], exclude [b, m], all int32) -> items [b, max_k] int32 and scores [b, max_k] float32.
Find = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
# Most items that a row may bring along and still share a batch; every row of a batch is padded to this width.
WIDTH = 256
# Batches that may wait; a request beyond them is answered UNAVAILABLE.
_MAX_ENQUEUED_BATCHES = 1000
_BUCKETS = 2**63 - 1


def check_ids(kind: str, ids: Sequence[str], expected: int, id_type: str) -> None:
    """Checks the raw ids of users or items.

    Args:
        kind: "users" or "items", for messages.
        ids: the raw ids.
        expected: how many the model has.
        id_type: "string" or "int64".

    Raises:
        InputError: there are more or fewer, one is empty, holds a line break or stands twice, or one is no int64 or 0
            where ids are int64.
    """
    if len(ids) != expected:
        raise InputError(f"{len(ids)} ids of {kind} do not fit a model of {expected} {kind}; give its own dataset")
    bad = next((name for name in ids if not name or "\n" in name or "\r" in name), None)
    if bad is not None:
        raise InputError(f"{bad!r} among the ids of {kind} is empty or holds a line break; prepare the data again")
    if len(set(ids)) != len(ids):
        raise InputError(f"an id stands twice among the ids of {kind}; prepare the data again")
    if id_type == "int64":
        _check_integers(kind, ids)


def _check_integers(kind: str, ids: Sequence[str]) -> None:
    for name in ids:
        # Only as Python writes a number: "007" and "7" would be one.
        number = int(name) if name.removeprefix("-").isascii() and name.removeprefix("-").isdigit() else None
        if number is None or str(number) != name or not -(2**63) <= number < 2**63:
            raise InputError(f"{name!r} among the ids of {kind} is not an int64; export with --id_type=string")
        if number == 0 and kind == "items":
            raise InputError(
                "an item has the id 0, which means no item with --id_type=int64; export with --id_type=string"
            )


def write_ids(path: str | os.PathLike[str], ids: Sequence[str]) -> None:
    """Writes ids as a gzip file of lines, the last one without a line break; the same ids give the same bytes."""
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as compressed:
        compressed.write("\n".join(ids).encode("utf-8", "surrogateescape"))


class Lookups(tf.Module):
    """The tables of an export; they read their ids from its assets.

    Args:
        users_file: raw id of user i in line i, counted from 0, as `write_ids` writes them.
        items_file: raw id of item i in line i - 1.
        num_users: what an unknown user becomes.
        id_type: "string" or "int64".
        names_file: name of item i in line i - 1, for `titles`; None where there are none.

    Attributes:
        id_dtype: of ids.
        has_titles: whether `titles` can be asked.
    """

    def __init__(
        self,
        users_file: str | os.PathLike[str],
        items_file: str | os.PathLike[str],
        num_users: int,
        id_type: str,
        names_file: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self.id_dtype = tf.as_dtype(id_type)
        self._users = tf.lookup.StaticHashTable(_Lines(users_file, self.id_dtype, 0), num_users)
        self._items = tf.lookup.StaticHashTable(_Lines(items_file, self.id_dtype, 1), 0)
        # A table rather than a constant: a graph may not exceed 2 GB.
        none: Any = "" if id_type == "string" else 0
        self._names = tf.lookup.StaticHashTable(_Lines(items_file, self.id_dtype, 1, by_number=True), none)
        self.has_titles = names_file is not None
        if names_file is not None:
            self._titles = tf.lookup.StaticHashTable(_Lines(names_file, tf.string, 1, by_number=True), "")

    def users(self, ids: tf.Tensor) -> tf.Tensor:
        """Numbers of users, `int32` of the shape of `ids`; `num_users` for an unknown one."""
        return tf.cast(self._users.lookup(ids), tf.int32)

    def items(self, ids: tf.Tensor) -> tf.Tensor:
        """Numbers of items, `int32` of the shape of `ids`; 0 for an unknown one and for none."""
        return tf.cast(self._items.lookup(ids), tf.int32)

    def names(self, items: tf.Tensor) -> tf.Tensor:
        """Raw ids of items; "" (or 0) for item 0."""
        return self._names.lookup(tf.cast(items, tf.int64))

    def titles(self, items: tf.Tensor) -> tf.Tensor:
        """Names of items, `string` of the shape of `items`; "" for item 0 and for one without a name."""
        return self._titles.lookup(tf.cast(items, tf.int64))


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
        # A loader would read a cut or altered file without a word, and answers would hold other items' ids.
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
        # Without a name a table gets a random one, and two exports of a model would differ. A process shares tables of
        # one name, also between versions of a model, so the name tells what is in the table.
        kind = f"{self._key_dtype.name} {self._value_dtype.name} {self._first} {self._by_number}"
        return f"table_{hashlib.sha256(f'{kind} {self._sha256}'.encode()).hexdigest()}"


def one_per_row(values: tf.Tensor, name: str, users: tf.Tensor | None = None) -> tf.Tensor:
    """The values as they are; of another shape than `[b]` the graph fails with INVALID_ARGUMENT and says so.

    Operations would take a single row for all rows without a word, and a model server compares no shapes: what is
    declared as `[b]` may have any.

    Args:
        values: any dtype.
        name: of the input, for the message.
        users: `[b]`, checked before; None: b is any.
    """
    shape = tf.raw_ops.Shape(input=values)
    rows = tf.concat([shape, [0]], 0)[0]
    fits = tf.equal(tf.raw_ops.Size(input=shape), 1) & tf.equal(rows, rows if users is None else tf.shape(users)[0])
    return _required(fits, values, shape, f"{name}: expected [rows]", users)


def equal_rows(ids: tf.Tensor, name: str, users: tf.Tensor) -> tf.Tensor:
    """The ids `[b, n]`; of another shape the graph fails with INVALID_ARGUMENT and says so, see `one_per_row`.

    Args:
        ids: of any dtype; `[0]`, which is how JSON writes a table of no rows, stands for no rows.
        name: of the input, for the message.
        users: `[b]`, checked before.
    """
    shape = tf.raw_ops.Shape(input=ids)
    rank, rows = tf.raw_ops.Size(input=shape), tf.shape(users)[0]
    filled = tf.concat([shape, [0, 0]], 0)
    fits = tf.equal(filled[0], rows) & (tf.equal(rank, 2) | (tf.equal(rank, 1) & tf.equal(rows, 0)))
    ids = _required(fits, ids, shape, f"{name}: expected [rows, n]", users)
    return tf.reshape(ids, [rows, filled[1]])


def _required(
    fits: tf.Tensor, tensor: tf.Tensor, shape: tf.Tensor, expected: str, users: tf.Tensor | None
) -> tf.Tensor:
    text = [expected, ", received [", tf.strings.reduce_join(tf.as_string(shape), separator=", "), "]"]
    if users is not None:
        text += [" (rows of user_id: ", tf.as_string(tf.shape(users)[0]), ")"]
    with tf.control_dependencies([tf.raw_ops.Assert(condition=fits, data=[tf.strings.join(text)])]):
        return tf.identity(tensor)


class QueryEncoder(tf.Module):
    """Encodes requests; one function of the graph, which all signatures call.

    Unknown items and none vanish from the history as if they had not been there; the last L of the rest are the
    sequence, and all of them the history of a ranker that looks back on one.

    Args:
        stored: the ranker, with a row for the unknown user, the last one.
        lookups: the ids' numbers.

    Attributes:
        inputs: specs of `user_id` `[b]` and `recent_items` `[b, n]`, with which every signature begins.
        encode: from users `[b] int32` and their items `[b, n] int32`, numbers, to queries `[b, q] float32`.
    """

    def __init__(self, stored: StoredRanker, lookups: Lookups) -> None:
        super().__init__()
        self.inputs = (
            tf.TensorSpec([None], lookups.id_dtype, name="user_id"),
            tf.TensorSpec([None, None], lookups.id_dtype, name="recent_items"),
        )
        self._lookups = lookups

        @tf.function(
            autograph=False, input_signature=[tf.TensorSpec([None], tf.int32), tf.TensorSpec([None, None], tf.int32)]
        )
        def encode(users: tf.Tensor, recent: tf.Tensor) -> tf.Tensor:
            with stored.dense_weights_in_use() as ranker:
                history = known_items(recent) if ranker.has_history else None
                query = ranker.encode(users, last_known(recent, ranker.sequence_length), history=history)
            return tf.cast(query, tf.float32)

        self.encode = encode

    def __call__(self, user_id: tf.Tensor, recent_items: tf.Tensor) -> tf.Tensor:
        """Queries `[b, q] float32` of `user_id` `[b]` and `recent_items` `[b, n]`, ids, the items oldest first."""
        return self.encode(*self.numbers(user_id, recent_items))

    def numbers(self, user_id: tf.Tensor, recent_items: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The numbers of the users `[b] int32` and of the items `[b, n] int32`, 0 = unknown or none."""
        users = self._lookups.users(one_per_row(user_id, "user_id"))
        return users, self._lookups.items(equal_rows(recent_items, "recent_items", users))


def last_known(items: tf.Tensor, length: int) -> tf.Tensor:
    """The last known items of every row, in order.

    Args:
        items: `[batch, n] int32`, 0 = unknown or none, anywhere; any n.
        length: L.

    Returns:
        `[batch, L] int32`, padded with 0 on the left.
    """
    padded = tf.pad(items, [[0, 0], [length, 0]])
    place = tf.where(padded > 0, tf.range(tf.shape(padded)[1]), -1)
    latest_first = tf.math.top_k(place, length).indices
    return tf.gather(padded, tf.reverse(latest_first, [1]), batch_dims=1)


def known_items(items: tf.Tensor) -> Histories:
    """The known items of every row as histories of the rows' queries.

    Args:
        items: `[batch, n] int32`, 0 = unknown or none, anywhere; any n.
    """
    is_known = items > 0
    return Histories(tf.boolean_mask(items, is_known), tf.cast(tf.where(is_known)[:, 0], tf.int32))


def make_find(encode: QueryEncoder, stored: StoredRanker, search: Search, options: ExportOptions, queue: str) -> Find:
    """Makes what finds the best items of users, one request at a time or several together.

    With `options.batching` TensorFlow's `BatchFunction` collects requests inside the graph, behind the lookups: every
    row has the same width by then, padded with 0, which is no item. So a row's answer depends on no other, whatever
    lists the requests bring, and a request that does not fit fails alone, before it meets others. The batching that
    tensorflow_model_server does before the graph (`--enable_batching`) can promise neither.

    Args:
        encode: gives queries.
        stored: scores.
        search: finds the best items.
        options: length of the lists, and how requests are batched.
        queue: a name that no other model of a process has; models with one name would share their batches.

    Returns:
        A function of users `[b]`, recent `[b, n]` and exclude `[b, m]`, numbers, `int32`; 0 = unknown or none.
    """
    max_k = options.max_k
    table = tf.TensorSpec([None, None], tf.int32)

    @tf.function(autograph=False, input_signature=[tf.TensorSpec([None], tf.int32), table, table])
    def find(users: tf.Tensor, recent: tf.Tensor, exclude: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        items, scores = search(stored.ranker, encode.encode(users, recent), exclude, max_k)
        return tf.ensure_shape(items, [None, max_k]), tf.ensure_shape(scores, [None, max_k])

    if not options.batching:
        return find
    together = find.get_concrete_function()

    def find_batched(users: tf.Tensor, recent: tf.Tensor, exclude: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        rows = tf.shape(users)[0]
        if not stored.ranker.has_history:
            # Such a ranker reads the last L known items only, so longer lists can share a batch too.
            recent = last_known(recent, stored.ranker.sequence_length)
        width = tf.maximum(tf.shape(recent)[1], tf.shape(exclude)[1])
        may_share = (rows > 0) & (rows <= options.max_batch_size) & (width <= WIDTH)

        def share() -> list[tf.Tensor]:
            padded = [tf.pad(part, [[0, 0], [0, WIDTH - tf.shape(part)[1]]]) for part in (recent, exclude)]
            return tf.raw_ops.BatchFunction(
                in_tensors=[users, *padded],
                captured_tensors=together.captured_inputs,
                f=together,
                num_batch_threads=options.num_batch_threads,
                max_batch_size=options.max_batch_size,
                batch_timeout_micros=options.batch_timeout_micros,
                max_enqueued_batches=_MAX_ENQUEUED_BATCHES,
                Tout=[tf.int32, tf.float32],
                shared_name=queue,
            )

        items, scores = tf.cond(may_share, share, lambda: [*find(users, recent, exclude)])
        return tf.ensure_shape(items, [None, max_k]), tf.ensure_shape(scores, [None, max_k])

    return find_batched


class ServingModule(tf.Module):
    """What `tf.saved_model.save` is given: three signatures, from raw ids to raw ids and scores.

    `recommend`, the default one, takes `user_id` `[b]`, `recent_items` `[b, n]` (oldest first) and `exclude_items`
    `[b, m]`, all ids, and `k` `[b] int32`; it returns `items` `[b, k_max]`, ids, and `scores` `[b, k_max] float32`,
    best first. k_max is the largest k of the batch, at most `max_k`. Behind a row's own k, and where it runs out of
    items, stand "" (or 0) and the lowest finite float32. Where the lookups have the items' names, there is an output
    `names` `[b, k_max] string`, too. Nothing but k_max depends on other rows.

    `score` takes `user_id`, `recent_items` and `candidates` `[b, c]`, ids; it returns `scores` `[b, c] float32` and
    `known` `[b, c] bool`. An unknown candidate gets the lowest finite float32.

    `query` takes `user_id` and `recent_items`; it returns `query` `[b, q + 1] float32` whose last number is 1: an
    item's score is the inner product with its row of `item_table.npy`, whose last number is the item's bias.

    Args:
        stored: the ranker, with a row for the unknown user.
        lookups: the ids' numbers.
        search: finds the best items; a `tf.Module` where it has variables.
        options: longest list, at most num_items; whether recent items are kept out of a list; batching.
        queue: name of the batches' queue, see `make_find`.
    """

    def __init__(
        self, stored: StoredRanker, lookups: Lookups, search: Search, options: ExportOptions, queue: str = ""
    ) -> None:
        super().__init__()
        self.stored, self.lookups, self.search = stored, lookups, search
        encode = self.encode = QueryEncoder(stored, lookups)
        find = make_find(encode, stored, search, options, queue)
        exclude_spec = tf.TensorSpec([None, None], lookups.id_dtype, name="exclude_items")
        candidates_spec = tf.TensorSpec([None, None], lookups.id_dtype, name="candidates")
        k_spec = tf.TensorSpec([None], tf.int32, name="k")

        @tf.function(autograph=False, input_signature=[*encode.inputs, exclude_spec, k_spec])
        def recommend(
            user_id: tf.Tensor, recent_items: tf.Tensor, exclude_items: tf.Tensor, k: tf.Tensor
        ) -> dict[str, tf.Tensor]:
            users, recent = encode.numbers(user_id, recent_items)
            exclude = lookups.items(equal_rows(exclude_items, "exclude_items", users))
            if options.exclude_recent:
                exclude = tf.concat([exclude, recent], 1)
            wanted = tf.clip_by_value(one_per_row(k, "k", users), 0, options.max_k)[:, tf.newaxis]
            # A request that is refused must be so before it shares a batch with others.
            with tf.control_dependencies([exclude, wanted]):
                users = tf.identity(users)
            items, scores = find(users, recent, exclude)
            longest = tf.reduce_max(tf.pad(wanted, [[0, 1], [0, 0]]))
            items, scores = items[:, :longest], scores[:, :longest]
            items = tf.where(tf.range(longest) < wanted, items, 0)
            lists = {"items": lookups.names(items), "scores": tf.where(items == 0, NO_SCORE, scores)}
            return {**lists, "names": lookups.titles(items)} if lookups.has_titles else lists

        @tf.function(autograph=False, input_signature=[*encode.inputs, candidates_spec])
        def score(user_id: tf.Tensor, recent_items: tf.Tensor, candidates: tf.Tensor) -> dict[str, tf.Tensor]:
            users, recent = encode.numbers(user_id, recent_items)
            items = lookups.items(equal_rows(candidates, "candidates", users))
            scores = stored.ranker.score(encode.encode(users, recent), items)
            return {"scores": tf.where(items > 0, scores, NO_SCORE), "known": items > 0}

        @tf.function(autograph=False, input_signature=encode.inputs)
        def query(user_id: tf.Tensor, recent_items: tf.Tensor) -> dict[str, tf.Tensor]:
            encoded = encode(user_id, recent_items)
            return {"query": tf.concat([encoded, tf.ones_like(encoded[:, :1])], 1)}

        self.recommend, self.score, self.query = recommend, score, query

    def functions(self) -> dict[str, tf.types.experimental.PolymorphicFunction]:
        """Signature name -> function; what lists items has a name of its own and is the default."""
        return {RECOMMEND: self.recommend, "recommend": self.recommend, SCORE: self.score, QUERY: self.query}

"""The base of all rankers: a query of user and items times the item table; histories, and operations on item tables."""

import abc
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import keras
import numpy as np
from keras import ops

from rd_tf.plugins import constructor_keywords
from rd_tf.runtime import free_bytes

Tensor = Any


def _has_gpu() -> bool:
    return keras.backend.backend() != "tensorflow" or bool(keras.distribution.list_devices("gpu"))


def take_rows(table: Any, rows: Tensor) -> Tensor:
    """Gathers rows of a table, at a cost that does not grow with the table.

    Args:
        table: `[rows, ...] float32`; or what stores such a table in fewer bytes and has a `take_rows` of its own.
        rows: `int32` of any shape.

    Returns:
        `rows.shape + table.shape[1:] float32`.
    """
    if not isinstance(table, keras.Variable):
        return table.take_rows(rows)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # From the variable itself: `ops.take` reads the variable as a tensor first, and TensorFlow copies the whole of
        # it for every such reading once rows of it have been updated in place.
        return tf.gather(table.value, rows)
    return ops.take(table, rows, axis=0)


def query_products(query: Tensor, table: Any, first: int | Tensor = 0, size: int | None = None) -> Tensor:
    """Multiplies queries by all rows of a table, or by some neighbouring ones.

    Args:
        query: `[batch, q] float32`.
        table: `[rows, q] float32`; or what stores such a table in fewer bytes and has `query_products` of its own.
        first: the first row, where `size` is given.
        size: how many rows; None takes all.

    Returns:
        `[batch, size] float32`.
    """
    if not isinstance(table, keras.Variable):
        return table.query_products(query, first, size)
    rows = ops.convert_to_tensor(table)
    if size is not None:
        rows = ops.slice(rows, (first, 0), (size, rows.shape[1]))
    return ops.matmul(query, ops.transpose(rows))


def partial_top_k(scores: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Finds the k highest scores of every row, exactly as `keras.ops.top_k` does, in less time.

    The columns are cut into chunks. The k chunks with the highest maxima hold the k highest scores, and only they are
    sorted through: a chunk that is left out has k chunks before it, each with a score that is higher, or as high and
    further left. The columns after the last whole chunk always take part.

    Args:
        scores: `[batch, columns] float32`, no NaN; a graph may leave the batch open, but not the columns.
        k: 1 .. columns.

    Returns:
        values `[batch, k] float32`, descending, and columns `[batch, k] int32`; of equal scores the one further left
        comes first (PyTorch promises no order of equal scores).
    """
    columns = scores.shape[1]
    # The sum of what both stages sort through, columns / width + k * width, is smallest near sqrt(columns / k); wide
    # chunks are cheaper to reduce and to gather than narrow ones. 14,010 columns: 64 for k = 10, 16 for k = 100.
    width = 2 ** round(math.log2(2 * columns / k) / 2)
    if k * width > columns // 2:
        values, places = ops.top_k(scores, k)
        return values, ops.cast(places, "int32")
    count = columns // width
    whole = count * width
    chunks = ops.reshape(scores[:, :whole], (-1, width))
    highest = ops.reshape(ops.max(chunks, axis=-1), (-1, count))
    # From left to right again, so that of equal scores the one further left still comes first.
    chosen = ops.sort(ops.cast(ops.top_k(highest, k, sorted=False)[1], "int32"), axis=-1)
    row = ops.expand_dims(ops.arange(ops.shape(highest)[0], dtype="int32"), -1)
    candidates = ops.reshape(ops.take(chunks, row * count + chosen, axis=0), (-1, k * width))
    values, places = ops.top_k(ops.concatenate([candidates, scores[:, whole:]], axis=1), k)
    places = ops.cast(places, "int32")
    chunk = ops.take_along_axis(chosen, ops.minimum(places // width, k - 1), axis=1)
    return values, ops.where(places < k * width, chunk * width + places % width, places - k * width + whole)


class Histories(NamedTuple):
    """The histories of a batch of queries, one after another.

    Attributes:
        items: `[n] int32`, no padding.
        rows: `[n] int32`, ascending: the query that an item belongs to.
    """

    items: Tensor
    rows: Tensor

    @classmethod
    def of(cls, inputs: Mapping[str, Tensor]) -> "Histories | None":
        """Those of a batch, `history_items` and `history_rows`; None where it has none."""
        return cls(inputs["history_items"], inputs["history_rows"]) if "history_items" in inputs else None

    def sum(self, values: Tensor, queries: int | Tensor) -> Tensor:
        """Sums values over every query's items.

        Args:
            values: `[n, d] float32`, one row an item.
            queries: number of queries; one without items gets zeros.

        Returns:
            `[queries, d] float32`.
        """
        if keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            # Keras' own is TensorFlow's sum of unsorted segments, whose gradient is four passes in place of one gather.
            sums = tf.math.segment_sum(values, self.rows)
            return tf.ensure_shape(tf.pad(sums, [[0, queries - tf.shape(sums)[0]], [0, 0]]), [None, values.shape[1]])
        return ops.segment_sum(values, self.rows, queries)

    def lengths(self, queries: int | Tensor) -> Tensor:
        """Number of items of every query: `[queries, 1] float32`."""
        return self.sum(ops.ones((ops.shape(self.rows)[0], 1)), queries)


class SequenceRanker(keras.Model, abc.ABC):
    """Ranks items for a user with a history.

    A subclass turns (user, recent items) into a query vector; scores are that vector times the rows of the item table
    plus the items' biases, computed here and nowhere else, so that training, the teacher's lists, evaluation and
    serving cannot drift apart. Row 0 of the item table is the padding: no item, never recommended.

    Args:
        num_users: users are numbered 0 .. num_users - 1.
        num_items: items are numbered 1 .. num_items.
        sequence_length: L, recent items of a query.
        query_dim: q, the length of a query.
        seed: of the initial weights and of dropout.
        unknown_user: whether weights with a row a user have one more, number num_users, for users who were not seen.

    Attributes:
        user_rows: rows of such weights.
        unknown_user_is: what stands for a user who was not seen where no row was trained for him.
        dropout_rate: share of some numbers of a query that are dropped in training, 0 for none.
        noise_width: how many such numbers a query has.
        config_attributes: keywords of the constructor and the attributes that hold them, where the names differ.
        looks_back: "none", or which items a training window looks back on beside its sequence: "before" or "all" (see
            `rd_tf.data.windows.UserItems`). Not `history`, which Keras' `fit` overwrites.
        short_windows: whether it is trained on windows of fewer than L items too, unless somebody says otherwise; see
            `rd_tf.data.windows.make_windows`.

    Raises:
        ValueError: a count below 1.
    """

    looks_back = "none"
    short_windows = False
    config_attributes: Mapping[str, str] = MappingProxyType({})
    dropout_rate = 0.0
    noise_width = 0
    unknown_user_is = "the mean of all users"

    def __init__(
        self,
        num_users: int,
        num_items: int,
        sequence_length: int,
        query_dim: int,
        seed: int = 0,
        unknown_user: bool = False,
        **kwargs: Any,
    ) -> None:
        # Keras' own names count what the process has made before, and files that hold them would differ after a kill.
        super().__init__(**{"name": type(self).__name__.lower(), **kwargs})
        for name, value in (("num_users", num_users), ("num_items", num_items), ("sequence_length", sequence_length)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1; received {value}")
        self.num_users = num_users
        self.num_items = num_items
        self.sequence_length = sequence_length
        self.query_dim = query_dim
        self.seed = seed
        self.unknown_user = unknown_user
        self.user_rows = num_users + int(unknown_user)

    @property
    def has_history(self) -> bool:
        """Whether `encode` is given `Histories`, not a sequence alone."""
        return self.looks_back != "none"

    def add_weight(self, *args: Any, **kwargs: Any) -> keras.Variable:
        shape = kwargs.get("shape", args[0] if args else ())
        needed, free = 4 * math.prod(size or 1 for size in shape or ()), free_bytes()
        # Taken, such memory would end the process without a word.
        if needed > free and not _has_gpu():
            raise MemoryError(
                f"the weight {kwargs.get('name', '')} of {needed / 1e9:,.1f} GB is larger than the {free / 1e9:,.1f} "
                "GB of memory that are free; use a smaller dim"
            )
        return super().add_weight(*args, **kwargs)

    def add_table(self, name: str, rows: int, dim: int, seed_offset: int, of_items: bool = False) -> keras.Variable:
        """Adds an embedding table `[rows, dim]`, normal with standard deviation 1 / dim (as the authors').

        Its attribute `row_sparse` tells optimizers that a batch uses few of its rows, `row_an_item` that its rows are
        the padding and the items.
        """
        initializer = keras.initializers.RandomNormal(stddev=1.0 / dim, seed=self.seed * 1000 + seed_offset)
        # No autocast: under a mixed policy scores stay float32 whether the model is called or its methods are.
        table = self.add_weight(shape=(rows, dim), initializer=initializer, name=name, autocast=False)
        table.row_sparse = True
        table.row_an_item = of_items
        return table

    def build_item_table(self) -> None:
        """Adds the item table and the item biases; a subclass calls it in the place its weight order wants."""
        self.item_table = self.add_table("item_table", self.num_items + 1, self.query_dim, 1, of_items=True)
        self.item_bias = self.add_weight(
            shape=(self.num_items + 1,), initializer="zeros", name="item_bias", autocast=False
        )
        self.item_bias.row_sparse = self.item_bias.row_an_item = True

    def make_dropout(self, rate: float) -> keras.layers.Dropout:
        """Makes the layer of `drop`.

        Args:
            rate: share of the numbers dropped in training, in [0, 1).
        """
        # In float32, so that every policy drops the same numbers: of fewer bits, the same seed draws another mask.
        dropout = keras.layers.Dropout(rate, seed=self.seed * 1000, name="dropout", dtype="float32")
        if rate:
            # The layer gives it no name, and it is saved with the weights.
            dropout.seed_generator.name = "dropout_seeds"
        return dropout

    def drop(self, values: Tensor, noise: Tensor | None) -> Tensor:
        """Dropout in training.

        Args:
            values: `[batch, noise_width]`.
            noise: as for `encode`.

        Returns:
            `[batch, noise_width]`: what stays is scaled up, so that the mean stays.
        """
        if not self.dropout_rate:
            return values
        if noise is None:
            # The layer on ones makes the mask: the gradient is one product then, where the layer's own selects twice.
            mask = self.dropout(ops.ones_like(values, dtype="float32"), training=True)
        else:
            mask = ops.cast(noise >= self.dropout_rate, "float32") / (1.0 - self.dropout_rate)
        return values * ops.cast(mask, values.dtype)

    @abc.abstractmethod
    def encode(
        self,
        user: Tensor,
        sequence: Tensor,
        training: bool = False,
        history: Histories | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """Encodes queries.

        Args:
            user: `[batch] int32`.
            sequence: `[batch, L] int32`, oldest first, 0 = padding.
            training: whether dropout is on.
            history: of the batch's queries, for a ranker that looks back on one; without it the sequence's items are
                the history. Others ignore it.
            noise: `[batch, noise_width] float32`, uniform in [0, 1), decides in training what is dropped: numbers drawn
                by rows of the global batch keep replicas and resumed runs on the way of an undisturbed one. Without it
                the model draws its own.

        Returns:
            `[batch, q] float32`.
        """

    def score(self, query: Tensor, items: Tensor) -> Tensor:
        """Scores some items for every query.

        Args:
            query: `[batch, q] float32`.
            items: `[batch, n] int32`.

        Returns:
            `[batch, n] float32` logits.
        """
        rows = take_rows(self.item_table, items)
        # Half the time of a batch of matrix-vector products, in the gradient above all.
        products = ops.einsum("bnq,bq->bn", rows, query)
        return products + take_rows(self.item_bias, items)

    def score_shared(self, query: Tensor, items: Tensor, rows: int) -> Tensor:
        """Scores items that neighbouring queries share.

        Args:
            query: `[batch, q] float32`.
            items: `[groups, n] int32`: those of the first `rows` queries, of the next `rows`, and so on.
            rows: queries a group; the last group may have fewer.

        Returns:
            `[batch, n] float32` logits.
        """
        batch, groups, n = ops.shape(query)[0], ops.shape(items)[0], items.shape[1]
        padded = ops.pad(query, [(0, groups * rows - batch), (0, 0)])
        table = ops.transpose(take_rows(self.item_table, items), (0, 2, 1))
        products = ops.matmul(ops.reshape(padded, (-1, rows, self.query_dim)), table)
        logits = products + ops.expand_dims(take_rows(self.item_bias, items), 1)
        return ops.reshape(logits, (-1, n))[:batch]

    def score_together(self, query: Tensor, items: Tensor) -> Tensor:
        """Scores the same items for all queries: one matrix product.

        Args:
            query: `[batch, q] float32`.
            items: `[n] int32`.

        Returns:
            `[batch, n] float32` logits.
        """
        table = take_rows(self.item_table, items)
        return ops.matmul(query, ops.transpose(table)) + take_rows(self.item_bias, items)

    def score_all(self, query: Tensor, item_matrix: Tensor | None = None) -> Tensor:
        """Scores every item for every query.

        Args:
            query: `[batch, q] float32`.
            item_matrix: `[q + 1, num_items + 1] float32` of `item_matrix()`, where many queries are scored with the
                same weights; the scores are the same to the rounding of a matrix product.

        Returns:
            `[batch, num_items + 1] float32` logits; column 0, the padding, is -inf.
        """
        if item_matrix is not None:
            return ops.matmul(ops.concatenate([query, ops.ones_like(query[:, :1])], axis=1), item_matrix)
        return query_products(query, self.item_table) + self._bias_without_padding()

    def score_block(self, query: Tensor, first: int | Tensor, size: int) -> Tensor:
        """Scores neighbouring items for every query, for catalogues whose scores do not fit into memory at once.

        Args:
            query: `[batch, q] float32`.
            first: the first item, `[] int32`; 0 is the padding.
            size: how many items; there are `first + size` rows at least.

        Returns:
            `[batch, size] float32` logits; the padding's are -inf.
        """
        items = first + ops.arange(size)
        bias = ops.where(ops.equal(items, 0), -float("inf"), take_rows(self.item_bias, items))
        return query_products(query, self.item_table, first, size) + bias

    def item_matrix(self) -> Tensor:
        """The transposed item table over the items' biases: `[q + 1, num_items + 1] float32`.

        Scores are `[query, 1]` times it, one matrix product that runs at the machine's full rate at once.
        """
        table = ops.transpose(ops.convert_to_tensor(self.item_table))
        return ops.concatenate([table, ops.expand_dims(self._bias_without_padding(), 0)], axis=0)

    def _bias_without_padding(self) -> Tensor:
        is_padding = ops.equal(ops.arange(self.num_items + 1), 0)
        # JAX takes no variable where it expects an array.
        return ops.where(is_padding, -float("inf"), ops.convert_to_tensor(self.item_bias))

    def unknown_user_row(self, table: np.ndarray) -> np.ndarray:
        """What a user who was never seen has in place of a row of a table with a row a user.

        Args:
            table: `[num_users, ...] float32`.

        Returns:
            `[1, ...] float32`: the mean of all users, unless a ranker has something better.
        """
        return table.mean(axis=0, keepdims=True, dtype=np.float64).astype(table.dtype)

    def recommend(
        self, user: Tensor, sequence: Tensor, exclude: Tensor, k: int, history: Histories | None = None
    ) -> tuple[Tensor, Tensor]:
        """Lists the k best items.

        Args:
            user: `[batch] int32`.
            sequence: `[batch, L] int32`, oldest first, 0 = padding.
            exclude: `[batch, m] int32`, items kept out of the list, 0 = none.
            k: length of a list, at most num_items.
            history: as for `encode`.

        Returns:
            items `[batch, k] int32` and scores `[batch, k] float32`, best first. Where fewer than k items remain, the
            rest is item 0 with score -inf.

        Raises:
            ValueError: k is larger than the catalogue.
        """
        if k > self.num_items:
            raise ValueError(f"k must be at most the {self.num_items} items of the catalogue; received {k}")
        scores = exclude_items(self.score_all(self.encode(user, sequence, history=history)), exclude)
        scores, items = partial_top_k(scores, k)
        items = ops.where(ops.equal(scores, -float("inf")), 0, items)
        return items, scores

    def call(self, inputs: dict[str, Tensor], training: bool = False) -> Tensor:
        """Scores `inputs["items"]`, or all items, for `inputs["user"]` and `inputs["sequence"]`.

        A history is given as `inputs["history_items"]` and `inputs["history_rows"]`, see `Histories`.
        """
        query = self.encode(inputs["user"], inputs["sequence"], training=training, history=Histories.of(inputs))
        return self.score(query, inputs["items"]) if "items" in inputs else self.score_all(query)

    @classmethod
    def for_dataset(cls, data: Any, **arguments: Any) -> Self:
        """Makes a ranker of a dataset's users and items.

        Args:
            data: `rd_tf.load_dataset(...)`, split or not.
            **arguments: further keywords of the constructor.
        """
        interactions = data.interactions
        return cls(interactions.num_users, interactions.num_items, **arguments)

    def get_config(self) -> dict[str, Any]:
        """The constructor's keywords, each read from the attribute of its name.

        Raises:
            ValueError: a keyword that is no attribute; keep it as one, or override this method.
        """
        own = ("num_users", "num_items", "sequence_length", "seed", "unknown_user")
        config = {**super().get_config(), **{name: getattr(self, name) for name in own}}
        return {**config, **constructor_keywords(self, self.config_attributes)}


def exclude_items(scores: Tensor, exclude: Tensor) -> Tensor:
    """Sets the scores of some items to -inf.

    Args:
        scores: `[batch, num_items + 1] float32`.
        exclude: `[batch, m] int32`; 0 (the padding) may occur any number of times.

    Returns:
        `[batch, num_items + 1] float32`.
    """
    batch, columns = ops.shape(scores)[0], ops.shape(scores)[1]
    # int64: 2,200 rows of a million items are more cells than int32 counts.
    first = ops.expand_dims(ops.arange(batch, dtype="int64"), -1) * ops.cast(columns, "int64")
    flat = ops.reshape(first + ops.cast(exclude, "int64"), (-1, 1))
    blocked = ops.full((ops.shape(flat)[0],), -float("inf"), dtype="float32")
    return ops.reshape(ops.scatter_update(ops.reshape(scores, (-1,)), flat, blocked), (batch, columns))

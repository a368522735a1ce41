"""SASRec: causal self-attention over the recent items (Kang & McAuley, ICDM 2018)."""

import itertools
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

import keras
from keras import ops

from rd_tf.models.ranker import Histories, SequenceRanker, Tensor, take_rows
from rd_tf.plugins import register_ranker

# Of layer normalisation, as in the authors' code.
_EPSILON = 1e-8
# Stands for minus infinity: a row that sees nothing, a padding one, stays a number.
_HIDDEN = -1e9


@register_ranker("sasrec")
class SASRec(SequenceRanker):
    """Reads the L recent items with blocks of causal self-attention; the query is the state of the last one.

    The states begin as sqrt(d) times the items' rows of the item table, which also scores, plus a row a position. A
    block is attention(LN(x), x, x) + LN(x), in which an item looks at itself and at those before it, and then
    f(LN(x)) + LN(x) with f(x) = W2 relu(W1 x + b1) + b2; after the last block comes LN once more, so q = d. As in the
    authors' code, keys and values are not normalised and the residual is; keys have no bias, which a softmax would not
    see. Padding is looked at by nobody, and the query of a user without items is the same for all. There is nothing of
    a user but the items: a user who was not seen in training is served like any other.
    Source: Kang & McAuley, ICDM 2018 (arXiv 1808.09781), sections III.A-E.

    It needs L of some dozens of items and learns from every beginning of a history (`short_windows`). A user's windows
    are encoded one by one, for their last item alone, where the original learns from all places of a sequence at once.
    The fastest of 23 steps on 512 windows of the paper's Gowalla, d = 50, sampled softmax, on 2 cores that were busy
    with other work, took 28 ms with L = 20 and 63 ms with L = 50 (26 ms with one block); Caser with L = 5 took 16 ms.

    Args:
        num_users: users are numbered 0 .. num_users - 1.
        num_items: items are numbered 1 .. num_items.
        sequence_length: L, recent items of a query.
        dim: d, embedding dimension.
        heads: parts of the d dimensions, each with an attention of its own.
        blocks: of attention and point-wise feed-forward, one after another.
        dropout: share of the first states, of the attention's weights and of both layers of f that is dropped in
            training, in [0, 1).
        seed: of the initial weights and of dropout.
        unknown_user: no difference, as no weight has a row a user.

    Raises:
        ValueError: a size out of range, or heads that do not divide the dimension.
    """

    short_windows = True
    config_attributes = MappingProxyType({"dropout": "dropout_rate"})
    unknown_user_is = "like any other user, known by the recent items alone"

    def __init__(
        self,
        num_users: int,
        num_items: int,
        sequence_length: int = 50,
        dim: int = 50,
        heads: int = 1,
        blocks: int = 2,
        dropout: float = 0.5,
        seed: int = 0,
        unknown_user: bool = False,
        **kwargs: Any,
    ) -> None:
        for name, value in (("dim", dim), ("heads", heads), ("blocks", blocks)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1; received {value}")
        if dim % heads:
            raise ValueError(f"heads must divide dim; received heads={heads}, dim={dim}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); received {dropout}")
        super().__init__(num_users, num_items, sequence_length, dim, seed, unknown_user, **kwargs)
        self.dim, self.heads, self.blocks = dim, heads, blocks
        self.dropout_rate = dropout
        self.dropout = self.make_dropout(dropout)
        self._dropped = self._widths_of_noise()
        self.noise_width = sum(self._dropped)
        self.build_item_table()
        self.position_table = self._add_uniform("position_table", (sequence_length, dim), 2)
        self.block_weights = [self._add_block(block) for block in range(blocks)]
        self.last_scale = self._add_constant("last_scale", "ones")
        self.last_offset = self._add_constant("last_offset", "zeros")
        self.built = True

    def _widths_of_noise(self) -> list[int]:
        """Numbers a query that are dropped or not, in the order in which `encode` asks for them."""
        length, dim = self.sequence_length, self.dim
        widths = [length * dim]
        for block in range(self.blocks):
            places = length if block < self.blocks - 1 else 1
            widths += [places * length] * self.heads + [places * dim] * 2
        return widths

    def _add_block(self, block: int) -> dict[str, keras.Variable]:
        weights, square = {}, (self.dim, self.dim)
        for name in ("attention", "feed_forward"):
            weights[f"{name}_scale"] = self._add_constant(f"{name}_scale_{block}", "ones")
            weights[f"{name}_offset"] = self._add_constant(f"{name}_offset_{block}", "zeros")
        for number, name in enumerate(("query", "key", "value", "first", "second")):
            weights[f"{name}_kernel"] = self._add_uniform(f"{name}_kernel_{block}", square, 10 + 5 * block + number)
            if name != "key":
                weights[f"{name}_bias"] = self._add_constant(f"{name}_bias_{block}", "zeros")
        return weights

    def _add_constant(self, name: str, value: str) -> keras.Variable:
        return self.add_weight(shape=(self.dim,), initializer=value, name=name, autocast=False)

    def _add_uniform(self, name: str, shape: tuple[int, int], seed_offset: int) -> keras.Variable:
        # What the authors' framework gives dense layers and tables.
        initializer = keras.initializers.GlorotUniform(seed=self.seed * 1000 + seed_offset)
        return self.add_weight(shape=shape, initializer=initializer, name=name, autocast=False)

    def encode(
        self,
        user: Tensor,
        sequence: Tensor,
        training: bool = False,
        history: Histories | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        parts = self._noise_parts(noise)

        def drop(values: Tensor) -> Tensor:
            if not training:
                return values
            part = next(parts)
            return self.drop(values, None if part is None else ops.reshape(part, (-1, *values.shape[1:])))

        is_item = ops.not_equal(sequence, 0)
        keep = ops.expand_dims(ops.cast(is_item, self.compute_dtype), -1)
        items = ops.cast(take_rows(self.item_table, sequence), self.compute_dtype)
        states = items * self.dim**0.5 + ops.cast(self.position_table, self.compute_dtype)
        states = drop(states) * keep
        places = ops.arange(self.sequence_length)
        is_before = ops.expand_dims(places, 1) >= places
        is_visible = ops.expand_dims(is_item, 1)
        for weights in self.block_weights[:-1]:
            states = self._block(weights, states, states, ops.logical_and(is_visible, is_before), drop) * keep
        # Nobody asks for the other places of the last block.
        last = self._block(self.block_weights[-1], states[:, -1:], states, is_visible, drop) * keep[:, -1:]
        return ops.cast(self._normalise(last[:, 0], self.last_scale, self.last_offset), "float32")

    def _noise_parts(self, noise: Tensor | None) -> Iterator[Tensor | None]:
        if noise is None:
            return itertools.repeat(None)
        return iter(ops.split(noise, list(itertools.accumulate(self._dropped))[:-1], axis=1))

    def _block(
        self,
        weights: dict[str, keras.Variable],
        asking: Tensor,
        states: Tensor,
        is_visible: Tensor,
        drop: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """States `[batch, places, d]` after a block, for those places of which `asking` are the states before it."""
        cast = {name: ops.cast(weight, self.compute_dtype) for name, weight in weights.items()}
        asking = self._normalise(asking, weights["attention_scale"], weights["attention_offset"])
        asking = asking + self._attention(cast, asking, states, is_visible, drop)
        asking = self._normalise(asking, weights["feed_forward_scale"], weights["feed_forward_offset"])
        hidden = drop(ops.relu(ops.matmul(asking, cast["first_kernel"]) + cast["first_bias"]))
        return asking + drop(ops.matmul(hidden, cast["second_kernel"]) + cast["second_bias"])

    def _attention(
        self,
        weights: dict[str, Tensor],
        asking: Tensor,
        states: Tensor,
        is_visible: Tensor,
        drop: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """Values `[batch, places, d]` that the asking places `[batch, places, d]` gather from all `[batch, L, d]`."""
        size, gathered = self.dim // self.heads, []
        for begin in range(0, self.dim, size):
            own = slice(begin, begin + size)
            # (x Wq + bq)(y Wk)^T = (x Wq Wk^T + bq Wk^T) y^T, and a (y Wv) = (a y) Wv: keys and values are never
            # written out for all places, and for the one place of the last block next to nothing is left to compute.
            key = ops.transpose(weights["key_kernel"][:, own])
            kernel = ops.matmul(weights["query_kernel"][:, own], key)
            wanted = ops.matmul(asking, kernel) + ops.matmul(ops.expand_dims(weights["query_bias"][own], 0), key)
            logits = ops.cast(ops.einsum("bqd,bld->bql", wanted, states), "float32") * size**-0.5
            shares = ops.softmax(ops.where(is_visible, logits, _HIDDEN), axis=-1)
            shares = drop(ops.cast(shares, self.compute_dtype))
            values = ops.matmul(ops.matmul(shares, states), weights["value_kernel"][:, own])
            # Dropped shares do not sum to 1.
            gathered.append(values + ops.sum(shares, axis=-1, keepdims=True) * weights["value_bias"][own])
        return ops.concatenate(gathered, axis=-1)

    def _normalise(self, states: Tensor, scale: keras.Variable, offset: keras.Variable) -> Tensor:
        """Layer normalisation over the last axis, computed in float32."""
        states = ops.cast(states, "float32")
        centered = states - ops.mean(states, axis=-1, keepdims=True)
        deviation = ops.sqrt(ops.mean(ops.square(centered), axis=-1, keepdims=True) + _EPSILON)
        return ops.cast(centered / deviation * scale + offset, self.compute_dtype)

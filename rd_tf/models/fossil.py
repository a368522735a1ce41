"""Fossil: item similarity fused with Markov chains (He & McAuley, ICDM 2016)."""

from types import MappingProxyType
from typing import Any

import keras
import numpy as np
from keras import ops

from rd_tf.models.ranker import Histories, SequenceRanker, Tensor, take_rows
from rd_tf.plugins import register_ranker

# What the histories of training windows may be; see `rd_tf.data.user_items`.
LOOKS_BACK = ("before", "all")


@register_ranker("fossil")
class Fossil(SequenceRanker):
    """Adds up what a user likes in the long run and the last few steps.

    query = |H|^-alpha sum of P_i over the history H + sum over the L recent items of (eta + eta^u) P_i, so q = d. P is
    the table of visited items, Q (with its biases) the item table that scores; eta and eta^u weigh the steps of the
    Markov chain, for all users and for each. Padding in the sequence counts for nothing. Everything is computed in
    float32, under any dtype policy.
    Source: He & McAuley, ICDM 2016 (arXiv 1609.09152), equation 5.

    Args:
        num_users: users are numbered 0 .. num_users - 1.
        num_items: items are numbered 1 .. num_items.
        sequence_length: L, order of the Markov chain.
        dim: d, embedding dimension.
        history: which items of a user are H where a window is trained on or listed for: "before", those before the
            target; or "all", all training items but the target (the original's way, which looks ahead). A query that
            is evaluated or served has all items of the user so far in either case.
        history_exponent: alpha; 0 sums over the history, 1 averages.
        dropout: share of the query's numbers dropped in training, in [0, 1). The original has none; without it Fossil
            overfits within a few epochs.
        seed: of the initial weights and of dropout.
        unknown_user: whether there is a row for users who were not seen.

    Raises:
        ValueError: a size out of range, or an unknown kind of history.
    """

    looks_back = "before"
    config_attributes = MappingProxyType({"history": "looks_back", "dropout": "dropout_rate"})
    unknown_user_is = "the weights of all users alone"

    def __init__(
        self,
        num_users: int,
        num_items: int,
        sequence_length: int = 5,
        dim: int = 50,
        history: str = "before",
        history_exponent: float = 0.2,
        dropout: float = 0.0,
        seed: int = 0,
        unknown_user: bool = False,
        **kwargs: Any,
    ) -> None:
        if dim < 1:
            raise ValueError(f"dim must be at least 1; received {dim}")
        if history not in LOOKS_BACK:
            raise ValueError(f"history must be {' or '.join(LOOKS_BACK)}; received {history!r}")
        if not 0 <= history_exponent <= 1:
            raise ValueError(f"history_exponent must be in [0, 1]; received {history_exponent}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be in [0, 1); received {dropout}")
        super().__init__(num_users, num_items, sequence_length, dim, seed, unknown_user, **kwargs)
        self.dim = dim
        self.looks_back = history
        self.history_exponent = history_exponent
        self.dropout_rate, self.noise_width = dropout, dim
        self.dropout = self.make_dropout(dropout)
        self.visited_table = self.add_table("visited_table", num_items + 1, dim, 3, of_items=True)
        # The average of the last steps to begin with, the same for everybody.
        step = keras.initializers.Constant(1.0 / sequence_length)
        self.markov_weights = self.add_weight(
            shape=(sequence_length,), initializer=step, name="markov_weights", autocast=False
        )
        self.user_markov_weights = self.add_weight(
            shape=(self.user_rows, sequence_length), initializer="zeros", name="user_markov_weights", autocast=False
        )
        self.user_markov_weights.row_sparse = True
        self.build_item_table()
        self.built = True

    def encode(
        self,
        user: Tensor,
        sequence: Tensor,
        training: bool = False,
        history: Histories | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        visited = take_rows(self.visited_table, sequence)
        is_item = ops.cast(ops.not_equal(sequence, 0), "float32")
        weights = (self.markov_weights + take_rows(self.user_markov_weights, user)) * is_item
        short_term = ops.einsum("bl,bld->bd", weights, visited)
        queries = ops.shape(sequence)[0]
        if history is None:
            long_term, length = ops.einsum("bl,bld->bd", is_item, visited), ops.sum(is_item, axis=1, keepdims=True)
        else:
            long_term = history.sum(take_rows(self.visited_table, history.items), queries)
            length = history.lengths(queries)
        # A user without a history has no long-term part; 1 keeps it a number.
        query = long_term * ops.maximum(length, 1.0) ** -self.history_exponent + short_term
        return self.drop(query, noise) if training else query

    def unknown_user_row(self, table: np.ndarray) -> np.ndarray:
        # The weights of all users alone.
        return np.zeros_like(table[:1])

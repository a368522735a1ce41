"""The least work that a measured case could be done with, and the time that the machine at hand would need for it."""

import dataclasses

import numpy as np

from rd_tf.data.windows import Windows

_FLOAT = 4
# Adam's two moments of a weight outside the tables.
_NETWORK_SLOTS = 2


@dataclasses.dataclass(frozen=True)
class Work:
    """Arithmetic and memory traffic.

    Attributes:
        flops: floating-point operations; a multiply-add counts as two.
        bytes: moved between memory and the cores.
    """

    flops: float
    bytes: float

    def __mul__(self, times: float) -> "Work":
        return Work(self.flops * times, self.bytes * times)

    def seconds(self, peak_gflops: float, bandwidth_gb: float) -> float:
        """Time at a machine's peaks: the arithmetic's or the traffic's, whichever takes longer.

        Args:
            peak_gflops: 10^9 operations a second.
            bandwidth_gb: 10^9 bytes a second.
        """
        return max(self.flops / peak_gflops, self.bytes / bandwidth_gb) / 1e9


@dataclasses.dataclass(frozen=True)
class CaserSizes:
    """Sizes that decide Caser's arithmetic: d, L, n_v and n_h of `rd_tf.models.caser.Caser`."""

    dim: int
    sequence_length: int = 5
    vertical_filters: int = 2
    horizontal_filters: int = 16

    @property
    def dense_inputs(self) -> int:
        return self.vertical_filters * self.dim + self.horizontal_filters * self.sequence_length

    @property
    def network_weights(self) -> int:
        """Weights outside the tables: filters, dense layer, biases."""
        heights = range(1, self.sequence_length + 1)
        horizontal = sum(height * self.dim + 1 for height in heights) * self.horizontal_filters
        vertical = (self.sequence_length + 1) * self.vertical_filters
        return horizontal + vertical + (self.dense_inputs + 1) * self.dim


@dataclasses.dataclass(frozen=True)
class TableRows:
    """Distinct rows of Caser's tables that a step touches.

    Attributes:
        users: of the user table.
        sequence_items: of the table of recent items.
        scored_items: of the item table, scored with a gradient.
        sampled_items: of the item table, only read (rank samples).
    """

    users: int
    sequence_items: int
    scored_items: int
    sampled_items: int = 0


def encode_flops(sizes: CaserSizes) -> int:
    """Operations of one query's matrix products.

    Horizontal filters `sum over heights h of (L - h + 1) h d n_h` (35 d n_h for L = 5), vertical filters `L d n_v`,
    dense layer `(n_v d + n_h L) d` multiply-adds.
    """
    length, dim = sizes.sequence_length, sizes.dim
    places = sum((length - height + 1) * height for height in range(1, length + 1))
    horizontal = places * dim * sizes.horizontal_filters
    vertical = length * dim * sizes.vertical_filters
    return 2 * (horizontal + vertical + sizes.dense_inputs * dim)


def step_work(
    sizes: CaserSizes, batch_size: int, scored: int, sampled: int, rows: TableRows, table_slots: int = 2
) -> Work:
    """The work of one training step.

    FLOPs: a query's matrix products and `scored` scores of 2 d multiply-adds, times 3 for forward and backward (each
    product has two gradients of its own size); `sampled` scores forward only. Bytes: every distinct row of the tables
    and every weight of the network is read and written with the optimizer's slots, with Adam's two moments 6 x 4 bytes
    a weight; the rows of rank samples are read once. Gradients, activations and the windows themselves are left out.

    Args:
        sizes: of the model.
        batch_size: rows of the batch.
        scored: items scored a row with a gradient: target, negatives, teacher's list.
        sampled: items scored a row without one.
        rows: what the batch touches.
        table_slots: numbers that the optimizer keeps for every weight of a table.
    """
    query = 2 * sizes.dim
    flops = batch_size * (3 * (encode_flops(sizes) + scored * 2 * query) + sampled * 2 * query)
    trained = (rows.users + rows.sequence_items) * sizes.dim + rows.scored_items * (query + 1)
    kept = (1 + table_slots) * trained + (1 + _NETWORK_SLOTS) * sizes.network_weights
    return Work(flops, _FLOAT * (2 * kept + rows.sampled_items * (query + 1)))


def ranking_work(sizes: CaserSizes, queries: int, item_rows: int, block_size: int) -> Work:
    """The work of scoring every item for some queries.

    FLOPs: the queries' matrix products and one score of 2 d multiply-adds for every row of the item table. Bytes: the
    item table with its biases once a block. Selecting, ranking and the scores themselves are left out.

    Args:
        sizes: of the model.
        queries: windows or users.
        item_rows: rows of the item table.
        block_size: queries scored in one matrix product.
    """
    query = 2 * sizes.dim
    blocks = -(-queries // block_size)
    flops = queries * (encode_flops(sizes) + item_rows * 2 * query)
    return Work(flops, blocks * item_rows * (query + 1) * _FLOAT)


def batch_rows(
    windows: Windows, num_items: int, batch_size: int, negatives: int, lists: np.ndarray | None, draws: int, seed: int
) -> TableRows:
    """Counts the distinct rows that one random batch touches.

    Args:
        windows: the training windows.
        num_items: items, the padding not counted.
        batch_size: rows of the batch.
        negatives: uniform draws a row.
        lists: `[windows, K] int32`, the teacher's lists, or None.
        draws: uniform rank samples of the whole batch.
        seed: of the batch.
    """
    generator = np.random.default_rng(seed)
    rows = generator.integers(0, len(windows), min(batch_size, len(windows)))
    scored = [windows.targets[rows].ravel(), generator.integers(1, num_items + 1, len(rows) * negatives)]
    if lists is not None:
        scored.append(np.asarray(lists[rows]).ravel())
    distinct = np.unique(np.concatenate(scored))
    samples = generator.integers(1, num_items + 1, draws)
    return TableRows(
        users=len(np.unique(windows.users[rows])),
        sequence_items=len(np.unique(windows.sequences[rows])),
        scored_items=len(distinct),
        sampled_items=len(np.setdiff1d(samples, distinct)),
    )

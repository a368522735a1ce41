"""Item vectors beside an export, for a nearest-neighbour index outside of it."""

import os
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np

from rd_tf.data.dataset import write_lines
from rd_tf.models.ranker import SequenceRanker

TABLE_FILE, IDS_FILE = "item_table.npy", "item_ids.txt"


def item_vectors(ranker: SequenceRanker) -> np.ndarray:
    """`[num_items, q + 1] float32`: row i - 1 is the vector of item i and, last, its bias.

    The inner product with a query, to which a 1 is appended, is the item's score.
    """
    table, bias = (keras.ops.convert_to_numpy(weight) for weight in (ranker.item_table, ranker.item_bias))
    return np.concatenate([table, bias[:, None]], axis=1)[1:]


def write_item_table(directory: str | os.PathLike[str], ranker: SequenceRanker, item_ids: Sequence[str]) -> None:
    """Writes `item_table.npy`, the `item_vectors`, and `item_ids.txt`, the raw id of every row's item."""
    Path(directory).mkdir(exist_ok=True)
    np.save(Path(directory) / TABLE_FILE, item_vectors(ranker))
    write_lines(Path(directory) / IDS_FILE, item_ids)

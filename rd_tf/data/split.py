"""The paper's split of every user's history into train, validation and test."""

import dataclasses

import numpy as np

from rd_tf.data.interactions import Interactions, user_offsets

SPLITS = ("validation", "test")


@dataclasses.dataclass(frozen=True)
class Split:
    """Rows to train on and rows to be ranked.

    Attributes:
        name: "validation" (train on the first 70 %, hold out the next 10 %) or "test" (train on 80 %, hold out 20 %).
        train: `[rows] bool` over the dataset's rows.
        held_out: `[rows] bool` over the dataset's rows.
    """

    name: str
    train: np.ndarray
    held_out: np.ndarray


def split_interactions(interactions: Interactions, name: str) -> Split:
    """Splits every user's history by time.

    With n items of a user: test = the last floor(0.2 n), validation = the floor(0.3 n) - floor(0.2 n) before them,
    train = the rest. "test" trains on train and validation together. Source: Tang & Wang, WSDM 2018, section 4.1.

    Raises:
        ValueError: an unknown name.
    """
    if name not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}; received {name!r}")
    counts = np.diff(user_offsets(interactions.users, interactions.num_users))
    # Integers: int(0.3 * 10) is 3, but 0.3 * n in floating point is 2.9999999999999996 for some n.
    test, held_back = counts * 2 // 10, counts * 3 // 10
    lengths = np.stack([counts - held_back, held_back - test, test], axis=1)
    part = np.repeat(np.tile(np.arange(3, dtype=np.int8), len(counts)), lengths.ravel())
    if name == "test":
        return Split(name, part < 2, part == 2)
    return Split(name, part == 0, part == 1)

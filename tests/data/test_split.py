"""The paper's split: by hand, and byte for byte on the official data where it is at hand."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from rd_tf.command_line import default_flags
from rd_tf.data.dataset import load_dataset
from rd_tf.data.interactions import Interactions
from rd_tf.data.windows import split_interactions
from rd_tf.prepare import prepare

DATASETS = Path(os.environ.get("RD_TF_DATASETS", Path(__file__).parents[3] / "shared" / "datasets"))


def histories(*counts: int) -> Interactions:
    users = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    rows = np.arange(len(users))
    ids = [str(user) for user in range(len(counts))], [str(item) for item in rows]
    return Interactions(users, (rows + 1).astype(np.int32), rows.astype(np.int64), *ids)


@pytest.mark.parametrize(
    ("count", "train", "validation", "test"),
    [
        (1, 1, 0, 0),
        (3, 3, 0, 0),
        (4, 3, 1, 0),
        (5, 4, 0, 1),
        (7, 5, 1, 1),
        (10, 7, 1, 2),
        (20, 14, 2, 4),
        (30, 21, 3, 6),
    ],
)
def test_parts_of_a_history(count, train, validation, test):
    held_out = split_interactions(histories(count), "validation")
    assert held_out.train.tolist() == [True] * train + [False] * (validation + test)
    assert held_out.held_out.tolist() == [False] * train + [True] * validation + [False] * test
    final = split_interactions(histories(count), "test")
    assert final.train.tolist() == [True] * (train + validation) + [False] * test
    assert final.held_out.tolist() == [False] * (train + validation) + [True] * test


@pytest.mark.parametrize("count", range(1, 60))
def test_a_rehearsal_is_the_test_split_of_what_is_before_the_test_items(count):
    test = split_interactions(histories(count), "test")
    kept = int(test.train.sum())
    inner = split_interactions(histories(kept), "test")
    found = split_interactions(histories(count), "rehearsal")
    np.testing.assert_array_equal(found.train, np.append(inner.train, np.zeros(count - kept, bool)))
    np.testing.assert_array_equal(found.held_out, np.append(inner.held_out, np.zeros(count - kept, bool)))
    # So whatever is trained for it may be evaluated on the test split.
    assert (found.train <= test.train).all()


def test_every_user_is_split_apart():
    split = split_interactions(histories(5, 0, 1, 10), "test")
    assert np.flatnonzero(split.held_out).tolist() == [4, 14, 15]


@pytest.mark.parametrize(("name", "begin", "end"), [("validation", 0.7, 0.8), ("test", 0.8, 1.0)])
def test_a_part_is_a_run_of_every_users_history(name, begin, end):
    counts = np.random.default_rng(0).integers(0, 40, 30) * 10
    split = split_interactions(histories(*counts), name)
    share = np.concatenate([np.arange(count) / count for count in counts if count])
    np.testing.assert_array_equal(split.train, share < begin - 1e-9)
    np.testing.assert_array_equal(split.held_out, (share >= begin - 1e-9) & (share < end - 1e-9))


def test_unknown_split():
    with pytest.raises(ValueError, match="split must be one of validation, test, all, rehearsal; received 'train'"):
        split_interactions(histories(5), "train")


def test_official_parts_of_gowalla_to_the_byte(tmp_path):
    file = DATASETS / "gowalla" / "interactions.csv.gz"
    if not file.is_file():
        pytest.skip(f"{file} is not here; set RD_TF_DATASETS to the folder of the datasets")
    settings = {"input": [str(file)], "time_column": "position", "dataset": str(tmp_path / "gowalla")}
    prepare(**default_flags(prepare) | settings)
    interactions = load_dataset(tmp_path / "gowalla")
    assert (interactions.num_users, interactions.num_items, len(interactions)) == (13_149, 14_009, 535_650)
    for name, rows, beginning in (("test", 102_294, "5cc03ad74b486933"), ("validation", 52_455, "fd0b6af1b9f6d9c7")):
        held_out = split_interactions(interactions, name).held_out
        assert held_out.sum() == rows
        pairs = zip(interactions.users[held_out], interactions.items[held_out], strict=True)
        lines = [(int(interactions.user_ids[user]), interactions.item_ids[item - 1]) for user, item in pairs]
        lines.sort(key=lambda line: line[0])
        text = "".join(f"{user} {item} 1\n" for user, item in lines)
        assert hashlib.sha256(text.encode()).hexdigest().startswith(beginning)

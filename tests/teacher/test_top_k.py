"""The teacher's lists: the authors' lists, a slow oracle for every mask, edges."""

import numpy as np
import pytest

from rd_tf.data.windows import UserItems, Windows, trained_items
from rd_tf.models.caser import Caser
from rd_tf.storage import InputError
from rd_tf.teacher.scoring import TopK

USERS = np.array([0, 0, 0, 2, 2], "int32")
ITEMS = np.array([1, 5, 9, 2, 5], "int32")


def make_windows(rows=37, num_items=15):
    random = np.random.default_rng(0)
    return Windows(
        users=random.integers(0, 3, rows).astype("int32"),
        positions=np.arange(rows, dtype="int32"),
        sequences=random.integers(0, num_items + 1, (rows, 3)).astype("int32"),
        targets=random.integers(1, num_items + 1, (rows, 2)).astype("int32"),
    )


def collect(top_k, rows, k):
    items, scores = np.zeros((rows, k), int), np.zeros((rows, k))

    def store(first, block_items, block_scores):
        items[first : first + len(block_items)] = block_items
        scores[first : first + len(block_scores)] = block_scores

    top_k.all_lists(store, lambda count: None)
    return items, scores


def test_lists_agree_with_the_authors_once_the_padding_is_dropped(conformance, caser_from_state):
    case = conformance("teacher_top_k")
    model = caser_from_state(case, case["state"], len(case["sequences"][0]))
    rows = len(case["users"])
    windows = Windows(
        np.array(case["users"], "int32"),
        np.arange(rows, dtype="int32"),
        np.array(case["sequences"], "int32"),
        np.array(case["targets"], "int32"),
    )
    k = case["K"]
    seen = UserItems(np.zeros(0, "int32"), np.zeros(0, "int32"), model.num_users)
    items, _ = collect(TopK(model, windows, seen, k, "target", 8), rows, k)
    for ours, theirs in zip(items.tolist(), case["items"], strict=True):
        without_padding = [item for item in theirs if item]
        assert ours[: len(without_padding)] == without_padding


@pytest.mark.parametrize("mask", ["target", "seen", "none"])
@pytest.mark.parametrize(("block_size", "blocks"), [(1, 3), (10, 1), (10, 3), (100, 1)])
def test_lists_equal_a_slow_oracle(monkeypatch, mask, block_size, blocks):
    monkeypatch.setattr("rd_tf.teacher.scoring.blocks_at_once", lambda: blocks)
    model, windows = Caser(3, 15, 3, 4), make_windows()
    items, scores = collect(TopK(model, windows, UserItems(USERS, ITEMS, 3), 6, mask, block_size), 37, 6)
    everything = np.array(model.score_all(model.encode(windows.users, windows.sequences)))
    for row in range(37):
        hidden = {
            "target": windows.targets[row],
            "seen": ITEMS[windows.users[row] == USERS],
            "none": [],
        }[mask]
        everything[row, np.array([0, *hidden])] = -np.inf
        np.testing.assert_array_equal(items[row], np.argsort(-everything[row], kind="stable")[:6])
        np.testing.assert_allclose(scores[row], everything[row, items[row]], atol=1e-5)


@pytest.mark.parametrize(("mask", "most"), [("target", 13), ("seen", 12), ("none", 15)])
def test_k_larger_than_what_the_mask_leaves_is_refused(mask, most):
    model, windows, seen = Caser(3, 15, 3, 4), make_windows(), UserItems(USERS, ITEMS, 3)
    items, _ = collect(TopK(model, windows, seen, most, mask, 16), 37, most)
    assert items.min() > 0
    with pytest.raises(InputError, match=rf"--k={most + 1} is larger than the catalogue of 15 items .* use --k={most}"):
        TopK(model, windows, seen, most + 1, mask, 16)


def test_a_teacher_that_is_not_finite_is_refused():
    model = Caser(3, 15, 3, 4)
    model.item_bias.assign(np.full(16, np.nan))
    top_k = TopK(model, make_windows(), UserItems(USERS, ITEMS, 3), 2, "none", 16)
    with pytest.raises(InputError, match="the model's weights are not finite"):
        collect(top_k, 37, 2)
    model.item_bias.assign(np.zeros(16))
    model.user_table.assign(np.full(model.user_table.shape, np.inf))
    with pytest.raises(InputError, match="the teacher's scores are not finite"):
        collect(top_k, 37, 2)


def test_lists_follow_the_weights():
    model, windows = Caser(3, 15, 3, 4), make_windows()
    top_k = TopK(model, windows, UserItems(USERS, ITEMS, 3), 4, "none", 16)
    before, _ = top_k.lists(np.arange(5))
    model.item_table.assign(-model.item_table)
    after, _ = top_k.lists(np.arange(5))
    assert (after == TopK(model, windows, UserItems(USERS, ITEMS, 3), 4, "none", 16).lists(np.arange(5))[0]).all()
    assert (after != before).any()


def test_items_without_a_training_row_are_in_no_list():
    model, windows = Caser(3, 15, 3, 4), make_windows()
    model.item_bias.assign(np.linspace(-1, 1, 16))
    seen = UserItems(USERS, ITEMS, 3)
    is_candidate = trained_items(ITEMS, 15)
    is_candidate[[14, 15]] = False
    most = int(is_candidate.sum())
    items, scores = collect(TopK(model, windows, seen, most, "none", 16, is_candidate=is_candidate), 37, most)
    assert (np.sort(items) == np.flatnonzero(is_candidate)).all()
    everything, _ = collect(TopK(model, windows, seen, 15, "none", 16), 37, 15)
    for row in range(37):
        kept = everything[row][is_candidate[everything[row]]]
        np.testing.assert_array_equal(items[row], kept)
    assert np.isfinite(scores).all()
    with pytest.raises(InputError, match=rf"the catalogue of {most} items with a training row"):
        TopK(model, windows, seen, most + 1, "none", 16, is_candidate=is_candidate)

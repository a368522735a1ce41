"""Scoring a catalogue block by block lists what scoring it at once does."""

import numpy as np
import pytest
import tensorflow as tf

from rd_tf.models.caser import Caser
from rd_tf.models.ranker import exclude_items
from rd_tf.serving.search import ExactSearch
from rd_tf.serving.weights import StoredRanker

NUM_ITEMS, K = 61, 9


@pytest.fixture(scope="module")
def model():
    model = Caser(3, NUM_ITEMS, sequence_length=2, dim=2)
    # Few values, so that many scores are equal.
    random = np.random.default_rng(0)
    model.item_table.assign(random.integers(0, 2, (NUM_ITEMS + 1, 4)))
    model.item_bias.assign(random.integers(0, 2, NUM_ITEMS + 1))
    return model


def by_sorting(model, query, exclude, k):
    scores = np.array(exclude_items(model.score_all(query), exclude))
    items = np.argsort(-scores, axis=1, kind="stable")[:, :k].astype(np.int32)
    best = np.take_along_axis(scores, items, 1)
    return np.where(np.isneginf(best), 0, items), best


@pytest.mark.parametrize("block", [1, 7, 31, 62, 100])
@pytest.mark.parametrize("rows", [0, 1, 5])
def test_blocks_list_what_sorting_all_does(model, block, rows):
    random = np.random.default_rng(1)
    query = random.integers(0, 3, (rows, 4)).astype(np.float32)
    exclude = random.integers(0, NUM_ITEMS + 1, (rows, 20)).astype(np.int32)
    items, scores = by_sorting(model, query, exclude, K)
    search = tf.function(ExactSearch(whole_rows=0, block_rows=block), autograph=False)
    found, values = search(model, tf.constant(query), tf.constant(exclude), K)
    np.testing.assert_array_equal(found, items)
    np.testing.assert_array_equal(values, scores)


@pytest.mark.parametrize("whole_rows", [0, 1000])
def test_a_list_longer_than_what_remains_ends_in_no_item(model, whole_rows):
    exclude = np.arange(1, NUM_ITEMS - 1, dtype=np.int32)[None]
    items, scores = ExactSearch(whole_rows, 16)(model, tf.ones((1, 4)), tf.constant(exclude), 5)
    assert sorted(np.array(items)[0, :2]) == [NUM_ITEMS - 1, NUM_ITEMS]
    assert np.array(items)[0, 2:].tolist() == [0, 0, 0]
    assert np.isneginf(np.array(scores)[0, 2:]).all()


@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_compact_tables_are_read_by_block_too(model, weights):
    stored = StoredRanker(model, weights)
    query, exclude = (
        tf.constant(np.random.default_rng(2).normal(size=(4, 4)).astype("float32")),
        tf.zeros((4, 0), "int32"),
    )
    whole = ExactSearch()(stored.ranker, query, exclude, K)
    blocks = ExactSearch(whole_rows=0, block_rows=8)(stored.ranker, query, exclude, K)
    np.testing.assert_array_equal(whole[0], blocks[0])
    np.testing.assert_allclose(whole[1], blocks[1], rtol=1e-6)

"""A clustered index finds nearly all, and all when it searches everywhere."""

import numpy as np
import pytest
import tensorflow as tf

from rd_tf.models.caser import Caser
from rd_tf.serving.quality import fewest_probes, made_up_queries, recall
from rd_tf.serving.search import ClusteredSearch, ExactSearch, is_among, make_cells
from rd_tf.serving.weights import item_vectors

NUM_ITEMS, CLUSTERS = 3000, 30


@pytest.fixture(scope="module")
def model():
    """Items around 30 centres."""
    model, random = Caser(50, NUM_ITEMS, sequence_length=2, dim=4), np.random.default_rng(0)
    centres = random.normal(size=(CLUSTERS, 8))
    near = centres[random.integers(0, CLUSTERS, NUM_ITEMS + 1)]
    model.item_table.assign(near + 0.1 * random.normal(size=near.shape))
    model.item_bias.assign(0.1 * random.normal(size=NUM_ITEMS + 1))
    return model


@pytest.fixture(scope="module")
def cells(model):
    return make_cells(item_vectors(model), CLUSTERS)


def test_every_item_is_in_one_cell_of_bounded_size(cells):
    assert sorted(cells.items) == list(range(1, NUM_ITEMS + 1))
    sizes = np.diff(cells.offsets)
    assert sizes.min() >= 1
    assert sizes.max() == cells.largest <= 2 * NUM_ITEMS / CLUSTERS
    assert cells.offsets[0] == 0
    assert cells.offsets[-1] == NUM_ITEMS
    assert len(cells.centroids) == len(sizes)


def test_a_centroid_is_the_mean_of_its_cell(model, cells):
    vectors = item_vectors(model)
    for cell in (0, len(cells.centroids) - 1):
        members = cells.items[cells.offsets[cell] : cells.offsets[cell + 1]]
        np.testing.assert_allclose(cells.centroids[cell], vectors[members - 1].mean(0), rtol=1e-5, atol=1e-6)


def test_few_cells_hold_nearly_all_of_the_best(model, cells):
    queries = made_up_queries(model, 50)
    few = recall(model, ClusteredSearch(cells, 10), queries, 20)
    assert set(few) == {"recall@1", "recall@10", "recall@20"}
    assert few["recall@20"] > 0.9


def test_all_cells_hold_all(model, cells):
    queries = made_up_queries(model, 20)
    assert set(recall(model, ClusteredSearch(cells, 1000), queries, 20).values()) == {1.0}


@pytest.mark.parametrize("wanted", [0.3, 0.8, 0.95, 1.0])
def test_as_few_cells_are_searched_as_a_recall_takes(model, cells, wanted):
    queries = made_up_queries(model, 50)
    probes = fewest_probes(model, cells, queries, 10, wanted)
    assert recall(model, ClusteredSearch(cells, probes), queries, 10)["recall@10"] >= wanted - 1e-9
    if probes > 1:
        assert recall(model, ClusteredSearch(cells, probes - 1), queries, 10)["recall@10"] < wanted


def test_scores_are_exact_and_excluded_items_stay_out(model, cells):
    query, exclude = (
        tf.constant(np.random.default_rng(3).normal(size=(3, 8)).astype("float32")),
        tf.zeros((3, 0), "int32"),
    )
    best, _ = ExactSearch()(model, query, exclude, 5)
    items, scores = ClusteredSearch(cells, 5)(model, query, best, 10)
    assert not np.isin(items, best).any()
    np.testing.assert_allclose(
        scores, np.take_along_axis(np.array(model.score_all(query)), np.array(items), 1), rtol=1e-5
    )


def test_a_list_longer_than_the_probed_cells_ends_in_no_item(model, cells):
    items, scores = ClusteredSearch(cells, 1)(model, tf.ones((2, 8)), tf.zeros((2, 0), tf.int32), 1000)
    assert items.shape == (2, 1000)
    assert (np.array(items)[:, -1] == 0).all()
    assert np.isneginf(np.array(scores)[:, -1]).all()


def test_no_rows(model, cells):
    items, _ = ClusteredSearch(cells, 2)(model, tf.zeros((0, 8)), tf.zeros((0, 3), tf.int32), 4)
    assert items.shape == (0, 4)


def test_is_among_equals_a_plain_loop():
    random = np.random.default_rng(0)
    for m in (0, 1, 5):
        items, some = random.integers(0, 9, (6, 7)).astype("int32"), random.integers(0, 9, (6, m)).astype("int32")
        wanted = [
            [item == 0 or item in row for item in line] for line, row in zip(items.tolist(), some.tolist(), strict=True)
        ]
        np.testing.assert_array_equal(is_among(tf.constant(items), tf.constant(some)), wanted)

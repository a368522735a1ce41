"""Weights in fewer bytes: what rounding does, by hand, and that graphs compute with what it left."""

import numpy as np
import pytest
import tensorflow as tf
from serving.small_world import small_caser

from rd_tf.models.fossil import Fossil
from rd_tf.models.sasrec import SASRec
from rd_tf.serving.weights import CompactTable, StoredRanker, quantize_rows, rounded, rounded_copy
from rd_tf.storage import InputError


def test_the_largest_row_by_hand():
    # 2.54 / 127 = 0.02 is the largest scale; 0.031 / 0.02 = 1.55 is level 2, off by 0.009, less than half a scale.
    levels, codes, scales = quantize_rows(np.array([[2.54, -1.27, 0.031, 0.0]], np.float32))
    assert levels.tolist() == [[127, -64, 2, 0]] or levels.tolist() == [[127, -63, 2, 0]]
    assert codes.tolist() == [0]
    assert scales[0] == pytest.approx(0.02)
    assert scales[16] == pytest.approx(0.01)
    assert rounded(np.array([[2.54, 0.031]], np.float32), "int8")[0].tolist() == pytest.approx([2.54, 0.04])


def test_a_smaller_row_has_a_smaller_scale():
    # The second row needs 0.635 / 127 = 0.005, a quarter of the largest: 32 steps of 2^(1/16) down.
    levels, codes, _ = quantize_rows(np.array([[2.54, 0.0], [0.635, 0.01]], np.float32))
    assert codes[1] in (31, 32)
    assert levels[1, 1] == 2
    assert 120 < levels[1, 0] <= 127


def test_errors_are_at_most_half_a_scale_and_scales_hardly_larger_than_needed():
    random = np.random.default_rng(0)
    table = (random.normal(size=(500, 20)) * 10.0 ** random.integers(-4, 3, (500, 1))).astype(np.float32)
    levels, codes, scales = quantize_rows(table)
    by_row = scales[codes][:, None]
    assert np.abs(levels).max() == 127
    assert (np.abs(rounded(table, "int8") - table) <= by_row / 2 * (1 + 1e-5)).all()
    needed = np.abs(table).max(1) / 127
    assert (scales[codes] >= needed).all()
    reachable = needed > scales[-1]
    assert (scales[codes][reachable] <= needed[reachable] * 1.045).all()


def test_a_table_of_zeros_stays_one():
    assert not rounded(np.zeros((3, 2), np.float32), "int8").any()


@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_a_stored_table_gives_back_rounded_rows_and_their_products(weights):
    random = np.random.default_rng(1)
    table, query = random.normal(size=(9, 4)).astype("float32"), random.normal(size=(2, 4)).astype("float32")
    stored, kept = CompactTable(table, weights), rounded(table, weights)
    np.testing.assert_array_equal(stored.take_rows(tf.constant([[0, 8], [3, 3]])), kept[[[0, 8], [3, 3]]])
    np.testing.assert_allclose(stored.query_products(tf.constant(query), 0, None), query @ kept.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        stored.query_products(tf.constant(query), 2, 5), query @ kept[2:7].T, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("weights", ["float32", "float16", "int8"])
@pytest.mark.parametrize(
    "make",
    [small_caser, lambda: Fossil(7, 20, sequence_length=3, dim=4), lambda: SASRec(7, 20, sequence_length=3, dim=4)],
    ids=["caser", "fossil", "sasrec"],
)
def test_a_stored_ranker_scores_as_its_rounded_copy(make, weights):
    model = make()
    copy, stored = rounded_copy(model, weights), StoredRanker(model, weights)
    users, sequences = np.array([0, 6]), np.array([[0, 1, 20], [3, 4, 5]])
    with stored.dense_weights_in_use() as ranker:
        scores = np.array(ranker.score_all(ranker.encode(users, sequences)))
    np.testing.assert_allclose(scores, copy.score_all(copy.encode(users, sequences)), rtol=1e-5, atol=1e-6)
    bytes_ = sum(variable.numpy().nbytes for variable in stored.variables)
    share = {"float32": 1.0, "float16": 0.5, "int8": 0.5}[weights]
    assert bytes_ <= share * 4 * model.count_params() + 6 * 1024


def test_a_weight_too_large_for_float16_is_refused():
    model = small_caser()
    model.item_bias.assign(np.full(21, 1e5, "float32"))
    with pytest.raises(InputError, match="larger than float16 holds, 65504; export with --weights=float32"):
        StoredRanker(model, "float16")

"""The random world that benchmarks run on, and the least work of a case against numbers computed by hand."""

import numpy as np
import pytest

from benchmarks.report import Work
from benchmarks.subjects import (
    CaserSizes,
    TableRows,
    batch_rows,
    encode_flops,
    load_world,
    random_world,
    ranking_work,
    step_work,
)
from rd_tf.data.windows import Windows, make_windows, split_interactions
from rd_tf.storage import InputError

# L = 2, d = 3, one vertical filter, two horizontal ones of height 1 and two of height 2.
SMALL = CaserSizes(dim=3, sequence_length=2, vertical_filters=1, horizontal_filters=2)


def test_a_query_costs_its_filters_and_its_dense_layer():
    # Height 1 at 2 places, height 2 at one: (2 * 1 + 1 * 2) * 3 * 2 = 24; vertical 2 * 3 = 6; dense (3 + 4) * 3 = 21.
    assert encode_flops(SMALL) == 2 * (24 + 6 + 21)


def test_the_papers_convolutions_are_35_times_dim_times_filters():
    with_filters, without = CaserSizes(100), CaserSizes(100, horizontal_filters=0)
    dense = 16 * 5 * 100
    assert encode_flops(with_filters) - encode_flops(without) == 2 * (35 * 100 * 16 + dense)


def test_network_weights_are_the_parameters_outside_the_tables():
    # Published for Gowalla: 5,584,102 parameters at d = 100, 13,149 users, 14,010 item rows.
    tables = 13_149 * 100 + 14_010 * 100 + 14_010 * 201
    assert CaserSizes(100).network_weights == 5_584_102 - tables


def test_a_step_trains_three_times_and_samples_once():
    rows = TableRows(users=2, sequence_items=4, scored_items=5, sampled_items=3)
    work = step_work(SMALL, batch_size=2, scored=4, sampled=10, rows=rows)
    # A score is 6 multiply-adds.
    assert work.flops == 2 * (3 * (102 + 4 * 12) + 10 * 12)
    # Horizontal (3 + 1 + 6 + 1) * 2 = 22, vertical 3, dense 8 * 3 = 24.
    trained = (2 + 4) * 3 + 5 * 7 + (22 + 3 + 24)
    assert work.bytes == 6 * 4 * trained + 4 * 3 * 7


def test_an_optimizer_with_one_slot_a_table_weight_moves_less():
    rows = TableRows(users=2, sequence_items=4, scored_items=5)
    two, one = (step_work(SMALL, 2, 4, 0, rows, table_slots=slots) for slots in (2, 1))
    assert two.bytes - one.bytes == 2 * 4 * ((2 + 4) * 3 + 5 * 7)


def test_ranking_reads_the_item_table_once_a_block():
    work = ranking_work(SMALL, queries=10, item_rows=100, block_size=4)
    assert work.flops == 10 * (102 + 100 * 12)
    assert work.bytes == 3 * 100 * 7 * 4


def test_work_takes_its_arithmetic_or_its_traffic():
    assert Work(2e9, 3e9).seconds(peak_gflops=4, bandwidth_gb=12) == pytest.approx(0.5)
    assert Work(2e9, 3e9).seconds(peak_gflops=8, bandwidth_gb=4) == pytest.approx(0.75)
    assert Work(2, 3) * 2 == Work(4, 6)


def test_rows_of_a_batch_are_counted_once():
    windows = Windows(
        users=np.zeros(8, np.int32),
        positions=np.arange(8, dtype=np.int32),
        sequences=np.tile(np.array([[3, 3]], np.int32), (8, 1)),
        targets=np.full((8, 1), 4, np.int32),
    )
    lists = np.full((8, 2), 1, np.int32)
    rows = batch_rows(windows, num_items=1, batch_size=8, negatives=3, lists=lists, draws=50, seed=0)
    # Of one item all draws are item 1, which the list has scored already.
    assert rows == TableRows(users=1, sequence_items=1, scored_items=2, sampled_items=0)


def test_a_world_has_exactly_the_windows_asked_for():
    world = random_world(num_users=50, num_items=200, num_windows=777, seed=3)
    windows = make_windows(world, split_interactions(world, "test").train, 5, 1)
    assert len(windows) == 777
    assert (world.num_users, world.num_items) == (50, 200)
    assert len(np.unique(windows.users)) == 50


def test_items_are_numbered_from_1_and_some_are_popular():
    items = random_world(100, 400, 20_000, 0).items
    assert items.min() >= 1
    assert items.max() <= 400
    counts = np.sort(np.bincount(items, minlength=401)[1:])[::-1]
    # Half of the visits go to the first quarter of the items.
    assert counts[:100].sum() / counts.sum() == pytest.approx(0.5, abs=0.05)


def test_the_same_seed_gives_the_same_world():
    one, other, third = (random_world(20, 50, 100, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.items, other.items)
    assert not np.array_equal(one.items[:100], third.items[:100])


def test_too_few_windows_are_refused():
    with pytest.raises(ValueError, match="received 3 windows for 5 users"):
        random_world(5, 50, 3, 0)


def test_a_dataset_that_is_none_is_refused():
    with pytest.raises(InputError, match="--dataset=/nowhere is not a directory"):
        load_world("/nowhere", 0)

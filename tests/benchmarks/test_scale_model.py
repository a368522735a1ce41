"""The model of large data counts what real objects of a small size hold, and takes its constants from records."""

import dataclasses
import json
import shutil
import socket
import sys
import threading

import numpy as np
import pytest

from benchmarks import scale_model as command
from benchmarks.scale_model_check import make_checks
from benchmarks.scale_model_page import PAGE, fill_scale
from benchmarks.scale_model_rankers import caser, distinct, fossil
from benchmarks.scale_model_records import RESULTS, Records
from benchmarks.scale_model_serving import index_bytes
from benchmarks.scale_model_stages import block_rows
from benchmarks.scale_model_step import UPKEEP_STEPS, Batch, batch_work
from benchmarks.scale_model_units import duration, size
from benchmarks.scale_model_world import World
from rd_tf.command_line import default_flags
from rd_tf.storage import InputError

USERS, ITEMS, CHECK_INS, LENGTH = 40, 60, 12, 5
WORLD = World(USERS, ITEMS, CHECK_INS, id_length=3)


@pytest.fixture(scope="module")
def data():
    from benchmarks.subjects import make_training_data
    from rd_tf.data.interactions import Interactions

    items = np.random.default_rng(0).integers(1, ITEMS + 1, USERS * CHECK_INS, np.int32)
    users, times = np.repeat(np.arange(USERS, dtype=np.int32), CHECK_INS), np.zeros(len(items), np.int64)
    names = [[f"{number:03}" for number in range(count)] for count in (USERS, ITEMS)]
    return make_training_data(Interactions(users, items, times, *names))


def make(name, dim):
    from rd_tf.models.registry import make_model
    from rd_tf.train import train
    from rd_tf.training.optimizers import make_optimizer

    model = make_model({**default_flags(train), "model": name, "dim": dim}, USERS, ITEMS)
    optimizer = make_optimizer("lazy_adam", 1e-3, 0.0)
    optimizer.build(model.trainable_variables)
    return model, optimizer


@pytest.mark.parametrize(("name", "counted"), [("caser", caser), ("fossil", fossil)])
def test_parameters_and_slots_are_those_of_the_model_and_its_optimizer(name, counted):
    model, optimizer = make(name, 6)
    ranker = counted(USERS, ITEMS, 6)
    assert ranker.parameters == model.count_params()
    tables = {variable.name for variable in model.trainable_variables if getattr(variable, "row_sparse", False)}
    assert set(ranker.tables) == tables
    # The optimizer's own counts of steps are a number each.
    slots = sum(4 * int(np.prod(variable.shape)) for variable in optimizer.variables if len(variable.shape))
    assert ranker.slot_bytes == slots
    assert optimizer.upkeep_steps == UPKEEP_STEPS


def test_a_checkpoint_takes_the_bytes_of_weights_and_slots(tmp_path):
    from rd_tf.training.checkpoints import BestEpoch, History, RunState, save_checkpoint

    state = RunState(*make("caser", 6), History(None), BestEpoch())
    save_checkpoint(tmp_path, 1, state.arrays(), {}, {})
    arrays = [np.load(path) for path in tmp_path.rglob("*.npy")]
    # Beside them only counts of steps and the states of random generators.
    numbers = sum(array.nbytes for array in arrays if array.shape and array.dtype == np.float32)
    assert numbers == caser(USERS, ITEMS, 6).replica_bytes


def test_counts_and_bytes_of_a_world_are_those_of_its_arrays(data):
    from rd_tf.data.windows import UserItems

    world, windows = data.interactions, data.windows
    assert (WORLD.rows, WORLD.windows) == (len(world), len(windows))
    assert (WORLD.train_rows, WORLD.targets) == (data.split.train.sum(), data.split.held_out.sum())
    assert WORLD.interactions_bytes == world.users.nbytes + world.items.nbytes + world.timestamps.nbytes
    assert WORLD.split_bytes == data.split.train.nbytes + data.split.held_out.nbytes
    arrays = windows.users, windows.positions, windows.sequences, windows.targets
    assert WORLD.windows_bytes == sum(array.nbytes for array in arrays)
    ids = [*world.user_ids, *world.item_ids]
    assert WORLD.ids_bytes == sum(map(sys.getsizeof, ids)) + 8 * len(ids)
    seen: UserItems = data.seen
    # An item and an offset more than there are rows and users.
    assert WORLD.user_items_bytes == seen._items.nbytes + seen._offsets.nbytes - 4 - 8


def test_a_short_history_is_one_window():
    assert World(7, 9, 3).windows == 7


def test_held_out_items_take_no_more_than_is_counted(data):
    from rd_tf.data.windows import split_interactions
    from rd_tf.evaluation.held_out import make_held_out

    found = make_held_out(data.interactions, split_interactions(data.interactions, "test"), LENGTH)
    names = ("users", "sequences", "targets", "target_offsets", "seen", "seen_offsets")
    real = sum(getattr(found, name).nbytes for name in names) + 8 * len(found.targets)
    # Repeats are counted but not held.
    assert 0.7 * WORLD.held_out_bytes < real <= WORLD.held_out_bytes + 2 * 8


def test_a_cache_takes_the_bytes_of_the_measured_one():
    # A window a user, K = 100; two headers and a manifest beside the lists.
    measured = Records().value("scale", "100,000 cache", "bytes")
    windows = round(Records().value("scale", "100,000 cache", "windows"))
    assert 0 < measured - World(windows, 100_000, 6).cache_bytes(100) < 2000


@pytest.mark.parametrize("is_distilled", [False, True])
def test_gathered_rows_are_those_of_a_steps_gradients(data, is_distilled):
    import tensorflow as tf

    from benchmarks.subjects import make_batches, random_lists
    from rd_tf.training.step import Distillation, TrainStep

    model, optimizer = make("caser", 6)
    found = {}
    optimizer.apply = lambda gradients, variables: found.update(
        {variable.name: gradient for gradient, variable in zip(gradients, variables, strict=True)}
    )
    lists = random_lists(len(data.windows), 10, ITEMS, 0) if is_distilled else None
    made = make_batches(data, 16, 1, 0, lists)
    context = tf.distribute.InputContext()
    dataset = dataclasses.replace(made, noise_width=model.noise_width).input_function(0, 1)(context)
    step = TrainStep(model, optimizer, Distillation() if is_distilled else None)
    step(next(iter(dataset)), with_discrepancy=is_distilled)
    batch = Batch(16, LENGTH, 14, 100) if is_distilled else Batch(16, LENGTH, 4)
    ranker = caser(USERS, ITEMS, 6)
    rows = {name: len(each.indices) for name, each in found.items() if isinstance(each, tf.IndexedSlices)}
    assert batch.gathered_rows(ranker) == rows
    numbers = [each.values if isinstance(each, tf.IndexedSlices) else each for each in found.values()]
    assert batch.gradient_numbers(ranker) == sum(int(tf.size(each)) for each in numbers)


@pytest.mark.parametrize(
    ("case", "dim", "batch"),
    [("teacher", 100, Batch(512, 5, 4)), ("distillation", 50, Batch(512, 5, 14, 100))],
)
def test_a_step_has_the_operations_of_the_benchmarks_floor(case, dim, batch):
    work = batch_work(caser(13_149, 14_009, dim), batch)
    assert work.flops == Records().value("train_step", case, "floor_flops")
    # Their batch is a real one; ours draws all rows uniformly.
    assert work.bytes == pytest.approx(Records().value("train_step", case, "floor_bytes"), rel=0.15)


def test_blocks_are_those_of_the_evaluation():
    from rd_tf.evaluation import ranks

    for rows in (14_010, 1_000_001, 10_000_001, 10**9):
        assert block_rows(1024, rows) == ranks.block_rows(1024, rows)


def test_exports_are_as_large_as_the_measured_ones():
    ranker = caser(1000, 1_000_000, 64)
    for case, expected in (
        ("d64", ranker.stored_bytes("float32")),
        ("d64_int8", ranker.stored_bytes("int8")),
        ("d64_clusters", ranker.stored_bytes("float32") + index_bytes(1_000_001, 128)),
    ):
        measured = Records().value("serving_million", f"{case} grpc b=1 c=1", "version_bytes")
        assert expected == pytest.approx(measured, rel=0.02)


def test_distinct_rows_are_those_that_uniform_draws_hit():
    drawn = np.random.default_rng(0).integers(0, 1000, (200, 1500))
    assert distinct(1500, 1000) == pytest.approx(np.mean([len(np.unique(row)) for row in drawn]), rel=0.01)
    assert distinct(10, 10**9) == pytest.approx(10)


def test_the_measured_million_is_met_within_a_factor_of_two():
    checks = make_checks(Records())
    assert all(0.5 < each.ratio < 2 for each in checks)
    bytes_ = {each.name: each.ratio for each in checks if each.unit == "MB"}
    assert [bytes_.pop(name) for name in ("weights", "optimizer", "windows")] == pytest.approx([1, 1, 1], abs=1e-3)
    # Unequal parts are padded, and packets have heads.
    assert list(bytes_.values()) == pytest.approx([1, 1], abs=0.1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda path: path.unlink(),
            r"scale_model_parts.jsonl is missing, from which the model takes 'update, 64 parts'",
        ),
        (lambda path: path.write_text('{"benchmark": "machine"}\n'), r"has no case 'update, 64 parts'"),
        (
            lambda path: path.write_text(
                json.dumps({"benchmark": "", "case": "update, 64 parts", "median": 1.0}) + "\n"
            ),
            r"the case 'update, 64 parts' has no number 'numbers'",
        ),
    ],
)
def test_a_missing_record_is_one_sentence(tmp_path, damage, message):
    shutil.copytree(RESULTS, tmp_path / "benchmarks")
    damage(tmp_path / "benchmarks" / "scale_model_parts.jsonl")
    with pytest.raises(
        InputError, match=message + r".*; make it (again )?with python -m benchmarks.scale_model_parts$"
    ):
        fill_scale("", tmp_path)


def test_the_page_shows_what_results_hold():
    page = PAGE.read_text(encoding="utf-8")
    assert fill_scale(page, RESULTS.parent) == page, "run python -m benchmarks.performance_page"


def test_the_command_prints_the_pages_tables_by_default(capsys):
    from rd_tf.flag_definitions import FLAGS

    with pytest.MonkeyPatch.context() as patch:
        for name, define in {**command.flags.BENCHMARK_FLAGS, **dict(command.FLAGS)}.items():
            patch.setitem(FLAGS, name, define)
        values = default_flags(command.scale_model)
    command.scale_model(**values)
    printed = capsys.readouterr().out
    assert printed.split("\n\n")[0].strip() in PAGE.read_text(encoding="utf-8")
    with pytest.raises(InputError, match="--batch_size=10 leaves some of --workers=64 without a window"):
        command.scale_model(**{**values, "batch_size": 10})


def test_units():
    assert [size(value) for value in (0, 999, 52e9, 123_456e6)] == ["", "999 B", "52 GB", "123 GB"]
    assert size(4.34e12, "FLOP") == "4.34 TFLOP"
    assert [duration(value) for value in (0.0042, 89, 91, 5400, 2e5)] == [
        "4.2 ms",
        "89 s",
        "1.52 min",
        "1.5 h",
        "2.31 days",
    ]


def test_an_update_is_timed_on_the_gradients_of_all_parts():
    from benchmarks.scale_model_parts import measure_update

    measured = measure_update(parts=2, table_rows=50, dim=4, repeats=1, seed=0)
    assert measured.extra["numbers"] == Batch(1024, 5, 4).gradient_numbers(caser(50, 50, 4))
    assert measured.seconds[0] > 0


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_bytes_on_the_loopback_device_are_counted():
    from benchmarks.scale_model_network import carried_bytes

    before, size_ = carried_bytes(), 1_000_000
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        receiver, _ = server.accept()
        with receiver:
            sender = threading.Thread(target=client.sendall, args=(bytes(size_),))
            sender.start()
            received = 0
            while received < size_:
                received += len(receiver.recv(1 << 16))
            sender.join()
    assert carried_bytes() - before >= size_

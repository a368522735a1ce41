"""The arithmetic of data of any size, against cases computed by hand, real objects of a small size and the records."""

import json

import numpy as np
import pytest

from benchmarks.report import RESULTS
from benchmarks.scale_estimate import (
    MEASURED,
    Data,
    caser,
    duration,
    estimate,
    fossil,
    gradient_numbers,
    received_bytes,
    size,
    step_seconds,
)
from rd_tf.command_line import default_flags

# Of 12 check-ins 10 are trained on, which gives 5 windows of 5 + 1.
SMALL = Data(users=40, items=60, check_ins=12)


def record(file, case):
    lines = (RESULTS / "benchmarks" / f"{file}.jsonl").read_text().splitlines()
    return next(each for each in map(json.loads, lines) if case in (each.get("case"), each["benchmark"]))


def test_counts_and_bytes_of_a_small_dataset():
    assert (SMALL.rows, SMALL.train_rows, SMALL.windows) == (480, 400, 200)
    assert Data(7, 9, 3).windows == 7
    # 16 bytes a row, 11 a raw id; 8 numbers of 4 bytes a window; 10 items of 6 bytes a window.
    assert (SMALL.dataset_bytes, SMALL.windows_bytes, SMALL.lists_bytes) == (480 * 16 + 1100, 200 * 32, 200 * 60)


@pytest.mark.parametrize(("name", "counted"), [("caser", caser), ("fossil", fossil)])
def test_numbers_are_those_of_the_model_and_its_optimizer(name, counted):
    from rd_tf.models.registry import ModelConfig, make_model
    from rd_tf.train import train
    from rd_tf.training.optimizers import make_optimizer

    model = make_model(ModelConfig.of({**default_flags(train), "model": name, "dim": 6}), SMALL.users, SMALL.items)
    optimizer = make_optimizer("lazy_adam", 1e-3, 0.0)
    optimizer.build(model.trainable_variables)
    slots = sum(4 * int(np.prod(variable.shape)) for variable in optimizer.variables if len(variable.shape))
    found = counted(SMALL, 6)
    assert found.weight_bytes == 4 * model.count_params()
    assert found.training_bytes == found.weight_bytes + slots


def test_bytes_of_the_measured_million_are_met():
    data = Data(1_000_000, 1_000_000, 31)
    weights = record("scale", "1,000,000 memory model")["structures_mb"]
    windows = record("scale", "1,000,000 memory data")["structures_mb"]
    model = caser(data, 64)
    assert model.weight_bytes / 1e6 == pytest.approx(weights["weights"], rel=1e-3)
    assert model.training_bytes / 1e6 == pytest.approx(weights["weights"] + weights["slots"], rel=1e-3)
    assert data.windows_bytes / 1e6 == pytest.approx(windows["windows_sequences"] + windows["windows_other"], rel=1e-3)


@pytest.mark.parametrize("workers", [2, 3])
def test_bytes_between_workers_are_those_that_were_measured(workers):
    measured = record("scale_model_network", f"{workers} workers")
    steps = -(-measured["windows"] // measured["batch_size"])
    a_step = received_bytes(measured["dim"], 4, workers, measured["windows"] / steps / workers)
    # Unequal parts are padded, and packets have heads.
    assert workers * steps * a_step / 1e6 == pytest.approx(measured["median"], rel=0.05)


def test_a_step_on_several_workers_by_hand():
    # 512 windows of 1 + 5 rows of 10 numbers and 4 of 21.
    assert gradient_numbers(10, 4) == 512 * 144
    one, four = (step_seconds(SMALL, 10, 4, workers, 2, 1.0) for workers in (1, 4))
    assert one["network"] == 0
    assert four["computing"] == one["computing"] > 0
    # 6.1 core-ns a number, two cores.
    assert four["update"] == pytest.approx(4 * 512 * 144 * 6.1e-9 / 2)
    assert four["network"] == pytest.approx(received_bytes(10, 4, 4) / 1e9)


def test_constants_are_those_of_the_records():
    machine, step = record("scale", "machine"), record("scale", "1,000,000 step")
    cores, value = machine["cores"], {name: entry[0] for name, entry in MEASURED.items()}
    update = record("scale_model_parts", "update, 64 parts")
    assert value["update of gathered rows"] == pytest.approx(1e6 * update["median"] / update["numbers"], rel=0.01)
    computing = cores * step["median"] / 1e3 - value["update of gathered rows"] * 1e-9 * gradient_numbers(64, 4)
    assert value["computing of a step"] == pytest.approx(computing / step["floor_flops"] * 1e9, rel=0.01)
    upkeep = cores * record("scale", "1,000,000 finish_epoch")["median"] / 1.028
    assert value["upkeep of all rows"] == pytest.approx(upkeep / 1e3, rel=0.01)
    for name, case in (("teacher's lists", "top_k"), ("evaluation", "evaluate")):
        found = record("scale", f"1,000,000 {case}")
        assert value[name] == pytest.approx(found["floor_flops"] / found["median"] / cores / 1e9, rel=0.01)
    assert value["memory traffic"] == pytest.approx(machine["bandwidth_gb"] / cores, rel=0.01)
    beam = record("beam_prepare", "beam, 10,000,000 rows")
    assert value["preparing by Beam"] == pytest.approx(1e6 * beam["cpu_s"] / beam["rows"], rel=0.01)


def test_the_page_shows_what_the_command_prints_by_default():
    lines = estimate(Data(100_000_000, 10_000_000, 30), 100, 64, 32, 3.0, 1.0)
    page = (RESULTS.parent / "docs" / "scale.md").read_text(encoding="utf-8")
    assert "\n".join(lines) in page, "paste what python -m benchmarks.scale_estimate prints"


def test_units():
    assert [size(value) for value in (0, 999, 52e9, 123_456e6)] == ["0 B", "999 B", "52 GB", "123 GB"]
    assert [duration(value) for value in (0.0042, 89, 121, 9000, 2e5)] == [
        "0.0042 s",
        "89 s",
        "2.02 min",
        "2.5 h",
        "2.31 days",
    ]

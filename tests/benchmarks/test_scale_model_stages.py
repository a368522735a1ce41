"""What the model says of stages, memory and GPUs."""

import dataclasses

import pytest

from benchmarks.scale_model_constants import read_constants
from benchmarks.scale_model_gpus import make_gpu_floors
from benchmarks.scale_model_memory import make_choices
from benchmarks.scale_model_page import LARGE, MILLION
from benchmarks.scale_model_rankers import caser
from benchmarks.scale_model_records import Records
from benchmarks.scale_model_stages import make_stages


@pytest.fixture(scope="module")
def constants():
    return read_constants(Records())


def test_stages_tell_what_limits_them(constants):
    def limit(name, batch_size=LARGE.batch_size, **changed):
        cluster = dataclasses.replace(LARGE.cluster, **changed)
        plan = dataclasses.replace(LARGE, batch_size=batch_size, cluster=cluster)
        return next(each.limit for each in make_stages(plan, constants) if each.name == name)

    assert limit("teacher: an epoch", network_gb=0.1) == "network"
    assert limit("teacher: an epoch", network_gb=1000.0, latency_ms=0.0) == "update of all workers' rows"
    assert limit("teacher: an epoch", batch_size=512, workers=1) == "upkeep of all rows"
    assert limit("teacher: a checkpoint", disk_gb=0.01) == "disk"
    assert limit("prepare: a round of the k-core", network_gb=0.01) == "network"
    # Of ten million items a block has 3 queries, for which the whole table is read.
    assert limit("evaluation: all users") == "memory bandwidth"
    evaluation = next(each for each in make_stages(MILLION, constants) if each.name == "evaluation: all users")
    assert evaluation.limit == "cores"


def test_an_export_puts_every_item_into_its_nearest_cell(constants):
    export = make_stages(MILLION, constants)[-1]
    # 2,000 cells of vectors of 101 numbers: ten rounds over 50 items a cell, and once over all.
    assert export.flops == pytest.approx(2 * 101 * 2000 * (10 * 100_000 + 1_000_001))
    assert export.disk == pytest.approx(2 * caser(10**6, 10**6, 50).weight_bytes, rel=0.01)


def test_memory_of_the_ways_to_train():
    choices = {each.name: each for each in make_choices(LARGE)}
    teacher = choices["Caser, d = 100"]
    assert teacher.model == pytest.approx(4 * (1e8 * 100 + 1e7 * 301), rel=1e-3)
    assert teacher.total > 256e9 > choices["Caser, d = 100, a tenth of the users"].total
    assert choices["Fossil, d = 100"].model < teacher.model / 5
    fits = {each.gpu.name: each.fits for each in make_gpu_floors(LARGE)}
    assert fits["H100 SXM"] == (False, True)

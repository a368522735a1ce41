"""A simulated step on several workers, against times computed by hand and measured."""

import dataclasses

import pytest

from benchmarks.scale_model_constants import read_constants
from benchmarks.scale_model_rankers import caser
from benchmarks.scale_model_records import Records
from benchmarks.scale_model_step import Batch, Cluster, Message, messages, simulate_step


@pytest.fixture(scope="module")
def constants():
    return read_constants(Records())


def test_a_ring_passes_every_part_to_all_others():
    cluster = Cluster(workers=5, cores=2, memory_gb=1, network_gb=2, latency_ms=1, disk_gb=1)
    # 4 parts of 3 GB come in at 2 GB/s, 4 hops of 3 gathers.
    assert Message(3e9, 0, True).seconds(cluster) == pytest.approx(6 + 0.012)
    assert Message(3e9, 0, True).received(cluster) == 12e9
    # 2 * 4 / 5 of 3 GB.
    assert Message(3e9, 0, False).seconds(cluster) == pytest.approx(2.4 + 0.008)


def test_a_single_worker_waits_for_nobody(constants):
    time = simulate_step(caser(10**6, 10**6, 64), Batch(512, 5, 4), Cluster(1, 2, 24, 3, 0.05, 1), constants)
    assert (time.network, round(time.waiting, 12)) == (0, 0)
    measured = Records().value("scale", "1,000,000 step", "median") / 1000
    assert time.computing + time.update == pytest.approx(measured, rel=0.3)


def test_workers_wait_for_the_slowest_and_update_the_rows_of_all(constants):
    ranker, batch, at_once = caser(10**6, 10**6, 64), Batch(512, 5, 4), Cluster(1, 2, 24, 1e9, 0, 1)
    times = [simulate_step(ranker, batch, dataclasses.replace(at_once, workers=n), constants) for n in (2, 4, 8)]
    assert times[0].waiting < times[1].waiting < times[2].waiting
    assert [time.update / times[0].update for time in times] == pytest.approx([1, 2, 4])
    assert max(time.network for time in times) < 1e-6
    assert simulate_step(ranker, batch, at_once, constants) == simulate_step(ranker, batch, at_once, constants)


def test_a_part_of_the_network_is_hidden_behind_the_backward_pass(constants):
    ranker, batch = caser(10**6, 10**6, 64), Batch(512, 5, 4)
    cluster = Cluster(2, 2, 24, 3, 0.05, 1)
    found = messages(ranker, batch)
    together = sum(message.seconds(cluster) for message in found)
    late = sum(message.seconds(cluster) for message in found if message.ready == 1)
    time = simulate_step(ranker, batch, cluster, constants)
    assert late == pytest.approx(time.network, rel=1e-6)
    assert time.network < together
    assert 1 / 3 < found[0].ready < 1

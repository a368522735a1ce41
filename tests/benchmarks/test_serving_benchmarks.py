"""The load test and the soak of a model server, with a small export, and their bounds."""

from unittest import mock

import numpy as np
import pytest

from benchmarks.model_server import random_request, serving_process
from benchmarks.serving import CASES, LARGE_CASES, Load, measure_load, serving
from benchmarks.soak import SoakCounts, check_bounds, make_exports, soak_exports
from rd_tf.storage import InputError

QUIET = {"tracebacks": 0, "last_version_served": True, "exit_code": 0}


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    # Unchecked: the server itself is asked enough.
    with mock.patch("rd_tf.serving.export.check_agreement", return_value={}):
        return make_exports(tmp_path_factory.mktemp("soak") / "sources", 0)


def test_a_server_under_valid_and_malformed_requests_stays_as_it_is(exports):
    record = soak_exports(exports, 300, clients=3, switch_seconds=0.1, seed=0, binary="never")
    # So short a soak is all warm-up.
    check_bounds(record, most_growth=50)
    assert (record["requests"], record["malformed"], record["failed"], record["accepted"]) == (300, 3, 0, 0)
    assert len(record["outcomes"]) == 3
    assert record["versions"] > 1


def test_a_load_is_measured_by_both_interfaces_and_refused_answers_end_it(exports):
    ids = [f"user-{user}" for user in range(9)], [f"item-{item}" for item in range(9)]
    asked = random_request("serving_default", 2, *ids, 4, 3, np.random.default_rng(0))
    wrong = random_request("none", 2, *ids, 4, 3, np.random.default_rng(0))
    with serving_process(exports[0].parent) as server:
        for load in (
            Load("rest", server.rest_port, [asked.rest()], clients=2, seconds=0.1),
            Load("grpc", server.port, [asked.grpc()], clients=1, seconds=0.1),
        ):
            latencies = measure_load(load)
            assert len(latencies.seconds) >= load.clients
            assert (latencies.seconds > 0).all()
            assert latencies.requests_per_s > 0
        with pytest.raises(InputError, match="did not answer a request with a result: ConnectionError: 400"):
            measure_load(Load("rest", server.rest_port, [wrong.rest()], clients=1, seconds=0.1))


def counted(failed=0, growth=0, files=0):
    counts = SoakCounts(1000)
    for number in range(1000):
        if number % 100 == 50:
            counts.add_malformed("bad", "400")
        elif number < failed:
            counts.add_valid("500 b''")
        else:
            counts.add_valid()
        grown = number > 500
        counts.samples.append((counts.done, 10**8 + grown * growth * 10**6, 20 + grown * files, 5))
    return {**counts.record(), **QUIET}


def test_bounds_hold_where_nothing_grows_and_nothing_fails():
    record = counted(growth=4, files=10)
    assert (record["first_rss_mb"], record["rss_mb"], record["open_files"]) == (100.0, 104.0, 30)
    assert record["rss_mb_by_tenth"] == [100.0] * 5 + [104.0] * 5
    assert record["outcomes"] == {"bad": {"400": 10}}
    check_bounds(record, most_growth=5)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (counted(failed=2), "2 valid requests failed, such as 500 b''; 500 b''"),
        (counted(growth=6), "memory grew by 6.0 % from 100.0 MB"),
        (counted(files=11), "file descriptors grew from 20 to 31"),
        ({**counted(), "tracebacks": 1}, "the server's log has 1 tracebacks"),
        ({**counted(), "last_version_served": False}, "the last version was not served"),
        ({**counted(), "exit_code": -9}, "the server ended with -9"),
    ],
)
def test_a_broken_bound_is_named(record, message):
    with pytest.raises(InputError, match=message):
        check_bounds(record, most_growth=5)


@pytest.mark.parametrize("outcome", ["200", "OK", "UNAVAILABLE", "DEADLINE_EXCEEDED", "TimeoutError"])
def test_a_malformed_request_that_is_not_refused_is_named(outcome):
    counts = SoakCounts(1)
    counts.add_malformed("half body", outcome)
    counts.samples.append((1, 10**8, 20, 5))
    with pytest.raises(InputError, match="1 malformed requests were not refused: half body"):
        check_bounds({**counts.record(), **QUIET}, most_growth=5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"clients": ["many"]}, "--clients=many is no whole number from 1"),
        ({"rows": []}, "--rows is empty"),
        ({"cases": ["d64"]}, f"choose from {','.join(CASES)}"),
        ({"cases": ["teacher"], "items": 200_001}, f"choose from {','.join(LARGE_CASES)}"),
        ({"output": "/"}, "--output=/ is a directory"),
    ],
)
def test_bad_flags_of_the_load_test_are_one_sentence(changed, message):
    flags = {"cases": [], "items": 300, "users": 10, "run_dirs": [], "dataset": "", "clients": ["1"], "rows": ["1"]}
    rest = {"seconds": 0.1, "repeats": 1, "binary": "never", "seed": 0, "output": ""}
    with pytest.raises(InputError, match=message):
        serving(**{**flags, **rest, **changed})

"""Results come in order, no more than asked for wait, and errors come in their place."""

import threading

import pytest

from rd_tf.runtime import compute_ahead


@pytest.mark.parametrize("ahead", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 9])
def test_results_come_in_order(ahead, count):
    assert list(compute_ahead(lambda number: number**2, range(count), ahead)) == [n**2 for n in range(count)]


@pytest.mark.parametrize("ahead", [1, 3])
def test_no_more_calls_are_made_than_asked_for(ahead):
    calls, called = [], threading.Semaphore(0)

    def function(number):
        calls.append((number, threading.current_thread()))
        called.release()
        return number

    for used, result in enumerate(compute_ahead(function, range(10), ahead)):
        for _ in range(1 if used else ahead + 1):
            assert used + ahead >= 10 or called.acquire(timeout=10)
        assert result == used
        assert len(calls) == min(10, used + 1 + ahead)
    assert {thread for _, thread in calls}.isdisjoint({threading.current_thread()})


def test_an_error_comes_in_its_place_and_ends_it():
    results, calls = [], []

    def function(number):
        calls.append(number)
        if number == 2:
            raise KeyError("two")
        return number

    with pytest.raises(KeyError, match="two"):
        results.extend(result for result in compute_ahead(function, range(100), 1))
    assert calls[-1] <= 3


def test_whoever_stops_early_stops_the_thread():
    before = threading.active_count()
    for result in compute_ahead(lambda number: number, range(100), 2):
        if result == 3:
            break
    assert threading.active_count() == before


def test_several_threads_keep_the_order():
    # One thread alone would wait at the barrier for ever.
    barrier = threading.Barrier(3)

    def square(number):
        barrier.wait(timeout=10)
        return number * number

    assert list(compute_ahead(square, range(6), ahead=3, threads=3)) == [0, 1, 4, 9, 16, 25]

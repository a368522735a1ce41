"""Results of a function, computed while the ones before are used."""

import collections
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Argument = TypeVar("Argument")
Result = TypeVar("Result")


def compute_ahead(
    function: Callable[[Argument], Result], arguments: Iterable[Argument], ahead: int, threads: int = 1
) -> Iterator[Result]:
    """Calls a function in threads of its own, a few calls before its results are asked for.

    It pays where the function and whoever uses the results both leave the interpreter's lock to others, as TensorFlow
    and NumPy do.

    Args:
        function: called once an argument; what it raises is raised in its result's place.
        arguments: taken from the thread that iterates.
        ahead: finished or begun results that may wait while one is used, at least 1.
        threads: calls at the same time; with 1 they come one after the other.

    Yields:
        `function(argument)` of all arguments, in order.
    """
    waiting: collections.deque[Future[Result]] = collections.deque()
    pool = ThreadPoolExecutor(threads)
    try:
        for argument in arguments:
            waiting.append(pool.submit(function, argument))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)

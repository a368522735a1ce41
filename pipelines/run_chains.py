"""Runs chains beside each other, each on its own share of the cores."""

import dataclasses
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import IO

from pipelines.chain import Chain
from rd_tf.storage import InputError

Say = Callable[[str], None]
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_END = 20.0


@dataclasses.dataclass
class _Running:
    chain: Chain
    slot: int
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    begin: float


def run_chains(chains: Sequence[Chain], at_once: int, say: Say = print) -> list[str]:
    """Runs chains, and keeps each one's evidence as soon as it has finished.

    A chain that fails stops no other; its log stays, and the next attempt is written after it. When this process is
    stopped, so are its children; what they had finished is kept in their run directories, and the same chains go on
    from there.

    Args:
        chains: in the order of their beginning.
        at_once: chains that run at the same time. Where the machine allows, each has as many cores as the other.
        say: gets a line for every chain that begins or ends.

    Returns:
        A phrase for every chain that failed, naming its log.
    """
    shares = core_shares(at_once)
    waiting, running, failures = list(chains), dict[int, _Running](), list[str]()
    try:
        while waiting or running:
            for slot in range(at_once):
                if waiting and slot not in running:
                    chain = waiting.pop(0)
                    say(f"{chain.title}: begins, {len(waiting)} after it, output in {chain.log}")
                    running[slot] = _start(chain, slot, shares)
            ended = [each for each in running.values() if each.process.poll() is not None]
            for each in ended:
                del running[each.slot]
                each.log.close()
                failures += _finish(each, say)
            if not ended:
                time.sleep(_SECONDS_BETWEEN_LOOKS)
    finally:
        _stop(list(running.values()))
    return failures


def core_shares(at_once: int) -> list[set[int]]:
    """Splits the cores that this process may use into equal shares; none where there are too few or no such call."""
    if not hasattr(os, "sched_setaffinity"):
        return []
    cores = sorted(os.sched_getaffinity(0))
    size = len(cores) // at_once
    return [set(cores[slot * size : (slot + 1) * size]) for slot in range(at_once)] if size else []


def _start(chain: Chain, slot: int, shares: list[set[int]]) -> _Running:
    chain.log.parent.mkdir(parents=True, exist_ok=True)
    log = open(chain.log, "ab")  # noqa: SIM115
    if log.tell():
        log.write(f"\n=== again, {time.strftime('%Y-%m-%d %H:%M:%S')} ===\n".encode())
        log.flush()
    process = subprocess.Popen(chain.command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    if shares:
        # Python is still starting: all threads of the child are made later and inherit this.
        os.sched_setaffinity(process.pid, shares[slot])
    return _Running(chain, slot, process, log, time.monotonic())


def _finish(each: _Running, say: Say) -> list[str]:
    minutes = (time.monotonic() - each.begin) / 60
    trouble = f"ended with {each.process.returncode}" if each.process.returncode else ""
    if not trouble:
        try:
            each.chain.keep()
        # Of its own evidence only, such as a damaged file or a full disk: the others go on.
        except (InputError, OSError, ValueError) as error:
            trouble = str(error)
    if trouble:
        say(f"{each.chain.title}: failed after {minutes:.1f} minutes")
        return [f"{each.chain.title} {trouble} (see {each.chain.log})"]
    say(f"{each.chain.title}: finished in {minutes:.1f} minutes")
    return []


def _stop(running: list[_Running]) -> None:
    for each in running:
        each.process.terminate()
    for each in running:
        try:
            each.process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            each.process.kill()
            each.process.wait()
        each.log.close()

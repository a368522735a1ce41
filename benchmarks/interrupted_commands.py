"""Commands that are killed at random moments: python -m benchmarks.interrupted_commands --kills=60.

A command gets SIGKILL, with all its children, at a moment that is drawn over the seconds it takes or, every second
time, up to 20 ms after one of the changes of its files. Then no reader may find half of anything, and the same command,
which may be killed twice more, has to end with what it leaves undisturbed. A kill loses nothing that was
written, as a power cut would: against that there is fsync, whose order a test checks.
"""

import json
import random
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.interrupted_commands_cases import CASES, with_what_they_start_from
from benchmarks.interrupted_commands_world import World
from benchmarks.interruption import Interruption
from benchmarks.report import check_cases, check_output, checkpoint_minutes_flag, run_benchmark
from rd_tf import run_directory, storage
from rd_tf.errors import InputError
from rd_tf.quiet_tensorflow import import_quietly


def interrupted_commands(*, kills: int, cases: list[str], checkpoint_minutes: float, seed: int, output: str) -> None:
    """Kills commands and the pipeline at random moments, runs them again and compares what they leave."""
    check_output(output)
    import_quietly()
    chosen = check_cases(cases, list(CASES))
    found = run_directory.environment()
    machine = {"processor": found["machine"]["processor"], "cores": found["machine"]["cores"]}
    common = {"checkpoint_minutes": checkpoint_minutes, "seed": seed, **machine, "git_revision": found["git_revision"]}
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as root:
        world = World(Path(root), seed, checkpoint_minutes)
        for name in with_what_they_start_from(chosen):
            if name not in chosen:
                world.make_reference(name, CASES[name])
                continue
            interruption = Interruption(name, CASES[name], world, random.Random(f"{seed} {name}"))
            place = chosen.index(name)
            record = interruption.interrupt(kills // len(chosen) + (place < kills % len(chosen)))
            records.append({"benchmark": "interrupted_commands", "case": name, **record, **common})
            _write(records, output)
    records.append({"benchmark": "interrupted_commands", "case": "all", **summary(records), **common})
    _write(records, output)
    if records[-1]["failures"]:
        raise InputError(f"{records[-1]['failures']} failures; the lines above name them")


def _write(records: list[dict[str, Any]], output: str) -> None:
    # After each case: all of them take an hour.
    print(json.dumps(records[-1]), flush=True)
    if output:
        storage.write_text(output, "".join(f"{json.dumps(record)}\n" for record in records))


def summary(records: list[dict[str, Any]]) -> Mapping[str, Any]:
    """The last line: sums over the cases."""
    failures = sum(len(record["failures"]) for record in records)
    return {
        "cases": len(records),
        **{name: sum(record[name] for record in records) for name in ("kills", "reruns", "ended_before")},
        "failures": failures,
        "verdict": "failed" if failures else "passed",
    }


if __name__ == "__main__":
    run_benchmark(interrupted_commands, checkpoint_minutes_flag(0.001))

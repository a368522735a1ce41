"""What a dtype policy does to MAP and to the time of an epoch: python -m benchmarks.mixed_precision --seeds=0,1,2.

Runs the three trainings of `configs/quickstart.cfg` (teacher, student alone, distilled student, on the built-in world)
under every policy with the same seeds, hence the same data, initial weights, negatives and dropout: only the rounding
differs. A policy's distilled student learns from that policy's teacher, as in `pipelines.distill --dtype_policy=...`.

A line holds MAP of the held-out part by seed, its mean, the mean by that of float32, and the seconds of an epoch, one
repeat a seed: the median of the epochs but the first, which traces the graph.

Measured in results/benchmarks/mixed_precision.jsonl, seeds 0 and 1: MAP of every run is within .3 % of float32's, the
means within .15 %. On 2 cores that know bfloat16 (AVX512-BF16), shared with other work, the median epoch takes .79 to
.94 of float32's time in bfloat16 and .97 to 1.3 in float16, where float32's own two repeats of one case differ by up to
a factor of 2: no gain that would make either of them the default here.
"""

import dataclasses
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.report import (
    Measurement,
    Report,
    check_cases,
    check_output,
    measure_machine,
    run_benchmark,
    significant,
)
from pipelines.distill import distill_flags, parse_seeds, stages
from pipelines.records import ROLES
from rd_tf import run_directory
from rd_tf.command_line import choose
from rd_tf.prepare import prepare
from rd_tf.runtime import import_quietly
from rd_tf.storage import read_json
from rd_tf.train import train

POLICIES = ("float32", "mixed_bfloat16", "mixed_float16")
_QUICKSTART = f"--flagfile={Path(__file__).parents[1] / 'configs' / 'quickstart.cfg'}"


@dataclasses.dataclass(frozen=True)
class Trained:
    """MAP of the held-out part, and the median seconds of the epochs but the first."""

    map: float
    epoch_seconds: float


def mixed_precision(*, seeds: list[str], cases: list[str], output: str) -> None:
    """Compares MAP and time of the dtype policies with those of float32, on the world of configs/quickstart.cfg.

    Cases: teacher, student, distilled. Prints JSON lines and a table; `x float32` is the mean MAP over the seeds by
    that of float32.
    """
    roles, numbers = check_cases(cases, list(ROLES)), parse_seeds(seeds)
    check_output(output)
    import_quietly()
    report = Report("mixed_precision", measure_machine(), output)
    with tempfile.TemporaryDirectory() as directory:
        found = train_roles(Path(directory), [_QUICKSTART], roles, numbers)
    for role in roles:
        maps = {policy: [each.map for each in found[policy][role]] for policy in POLICIES}
        for policy in POLICIES:
            mean = float(np.mean(maps[policy]))
            extra = {
                "seeds": numbers,
                "maps": [significant(value) for value in maps[policy]],
                "map": significant(mean),
                "map_ratio": significant(mean / float(np.mean(maps["float32"]))),
            }
            seconds = [each.epoch_seconds for each in found[policy][role]]
            report.add(Measurement(f"{role} {policy}", "s/epoch", seconds, extra=extra))
    report.finish()


def train_roles(
    directory: Path, arguments: Sequence[str], roles: Sequence[str], seeds: Sequence[int]
) -> dict[str, dict[str, list[Trained]]]:
    """Prepares a dataset and trains on it under every policy.

    Args:
        directory: gets the dataset and the runs.
        arguments: of `pipelines.distill`: how the dataset is made and how the models are trained.
        roles: of `pipelines.roles`; "distilled" trains a teacher too.
        seeds: of the students.

    Returns:
        Policy -> role -> what each seed came to.
    """
    values = distill_flags([*arguments, f"--dataset={directory / 'dataset'}"])
    prepare(**choose(prepare, values, seed=0))
    needed = [role for role in ROLES if role in roles or (role == "teacher" and "distilled" in roles)]
    found: dict[str, dict[str, list[Trained]]] = {policy: {role: [] for role in needed} for policy in POLICIES}
    # The policies of a seed one after another, so that they meet the machine in the same state.
    for seed in seeds:
        for policy in POLICIES:
            paths = {role: directory / f"seed-{seed}" / policy / role for role in ROLES}
            for role, settings in stages(paths, seed, {**values, "dtype_policy": policy}).items():
                if role in needed:
                    train(**settings)
                    found[policy][role].append(_read(paths[role]))
    return found


def _read(run: Path) -> Trained:
    seconds = pd.read_csv(run / run_directory.HISTORY)["seconds/epoch"].tolist()
    metrics = read_json(run / run_directory.METRICS)["metrics"]
    return Trained(metrics["map"], statistics.median(seconds[1:] or seconds))


if __name__ == "__main__":
    run_benchmark(mixed_precision)

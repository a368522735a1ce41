"""MAP with dense and with row-sparse Adam, run by run, from results/gowalla/."""

from pathlib import Path

import numpy as np

from pipelines.records import ROLES
from rd_tf import run_directory
from rd_tf.storage import read_json

# Folders below results/gowalla/: dense Adam, row-sparse Adam, otherwise the same flags.
PAIRS = (("validation-adam", "validation-lazy_adam"), ("caser-adam", "caser"))


def optimizers_table(results: Path) -> str:
    """Markdown: every run that is there with both optimizers, and the mean by role.

    Args:
        results: `results/gowalla`.
    """
    lines = ["", "| | split | seed | MAP, adam | MAP, lazy_adam | difference |", "|---|---|---|---|---|---|"]
    for role, title in ROLES.items():
        for dense, lazy in PAIRS:
            found = _found(results / dense, results / lazy, role)
            lines += [_row(title, split, str(seed), *values) for seed, (split, *values) in sorted(found.items())]
            if len(found) > 1:
                split = next(iter(found.values()))[0]
                means = np.mean([values for _, *values in found.values()], axis=0)
                lines.append(_row(f"**{title}**", split, "mean", *means))
    return "\n".join([*lines, ""])


def _found(dense: Path, lazy: Path, role: str) -> dict[int, tuple[str, float, float]]:
    """Seed -> split and both MAPs."""
    found = {}
    for path in dense.glob(f"seed-*/{role}/{run_directory.METRICS}"):
        other = lazy / path.relative_to(dense)
        if other.is_file():
            first, second = read_json(path), read_json(other)
            seed = int(path.parts[-3].removeprefix("seed-"))
            found[seed] = (first["split"], first["metrics"]["map"], second["metrics"]["map"])
    return found


def _row(title: str, split: str, seed: str, dense: float, lazy: float) -> str:
    return f"| {title} | {split} | {seed} | {dense:.4f} | {lazy:.4f} | {100 * (lazy / dense - 1):+.1f} % |"

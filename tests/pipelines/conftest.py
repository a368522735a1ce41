"""Results directories of invented runs, so that tables need no training."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.records import keep_evidence
from rd_tf.command_line import default_flags
from rd_tf.storage import write_json
from rd_tf.train import train

USERS = 40
_COLUMNS = [f"{name}@{n}" for name in ("precision", "ndcg", "ndcg_tang") for n in (3, 5, 10)]
_LEVELS = {"teacher": 0.30, "student": 0.20, "distilled": 0.25}
_DIMS = {"teacher": 100, "student": 50, "distilled": 50}


@pytest.fixture(scope="session")
def make_run():
    """Writes a finished run's directory, without weights; the keywords are flags."""

    def make(
        directory: Path, role: str, seed: int, /, split: str = "test", fingerprint: str = "f" * 64, **flags: Any
    ) -> Path:
        generator = np.random.default_rng([seed, *role.encode()])
        values = _LEVELS[role] + generator.normal(0, 0.02, (USERS, len(_COLUMNS) + 1))
        table = pd.DataFrame({"user": np.arange(USERS), **dict(zip([*_COLUMNS, "ap"], values.T, strict=True))})
        metrics = {**{name: float(table[name].mean()) for name in _COLUMNS}, "map": float(table["ap"].mean())}
        directory.mkdir(parents=True)
        table.to_parquet(directory / "per_user.parquet", index=False)
        (directory / "flags.cfg").write_text(f"--seed={seed}\n")
        (directory / "log.txt").write_text("epoch 1\n")
        (directory / "history.csv").write_text("epoch,validation/map\n1,\n2,0.1\n4,0.2\n")
        left_out = ("users_without_targets", "unknown_targets", "repeated_targets")
        counts = {"users": 40, "targets": 400, **dict.fromkeys(left_out, 0)}
        write_json(directory / "metrics.json", {"split": split, "metrics": metrics, "counts": counts})
        manifest = {
            "flags": {
                **default_flags(train),
                "dim": _DIMS[role],
                "seed": seed,
                "run_dir": str(directory),
                "split": split,
                "teacher": "runs/teacher" if role == "distilled" else "",
                **flags,
            },
            "split": split,
            "seed": seed,
            "dataset": {"path": "d", "fingerprint": fingerprint},
            "teacher": {"teacher": f"teacher {seed}"} if role == "distilled" else None,
            "model": {
                "class": "caser",
                "config": {},
                "dtype_policy": "float32",
                "parameters": 1000 * _DIMS[role],
                "fingerprint": f"{role} {seed}",
            },
            "seconds": 1.0,
        }
        write_json(directory / "manifest.json", manifest)
        return directory

    return make


@pytest.fixture(scope="session")
def make_cell(make_run, tmp_path_factory):
    """Fills `<results>/<dataset>/<model>` with the evidence of some seeds; a role better than the other by rule.

    `stages` are the flags of every role, where they are not all the default ones.
    """

    def make(directory: Path, seeds: list[int], stages: dict[str, Any] | None = None, **changed: Any) -> None:
        runs = tmp_path_factory.mktemp("runs")
        for seed in seeds:
            for role in _LEVELS:
                run = make_run(runs / str(seed) / role, role, seed, **{**changed, **(stages or {}).get(role, {})})
                keep_evidence(run, directory / f"seed-{seed}" / role, per_user=True)

    return make


@pytest.fixture(scope="session")
def efficiency():
    """What `efficiency.json` holds of the models of seed 0."""
    role = {"parameters": 5_000_000, "seconds": 2.0, "seconds_of_repeats": [2.0] * 5, "savedmodel_bytes": 20_000_000}
    half = {name: value / 2 if name != "seconds_of_repeats" else value for name, value in role.items()}
    half["parameters"] = 2_500_000
    roles = {"teacher": role, "distilled": half}
    return {
        "k": 10,
        "block": 1024,
        "seed": 0,
        "device": "CPU:0",
        "roles": {name: {"fingerprint": f"{name} 0", **one} for name, one in roles.items()},
        "machine": {"processor": "EPYC", "cores": 2, "load": 0.1},
    }

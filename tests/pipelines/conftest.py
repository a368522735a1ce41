"""Results directories of invented runs, so that tables need no training."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pipelines.evidence import keep_evidence
from rd_tf import storage

USERS = 40
_COLUMNS = [f"{name}@{n}" for name in ("precision", "ndcg", "ndcg_tang") for n in (3, 5, 10)]
_LEVELS = {"teacher": 0.30, "student": 0.20, "distilled": 0.25}
_DIMS = {"teacher": 100, "student": 50, "distilled": 50}


@pytest.fixture(scope="session")
def make_run():
    """Writes a finished run's directory, without weights."""

    def make(directory: Path, role: str, seed: int, split: str = "test", **changed: Any) -> Path:
        generator = np.random.default_rng([seed, *role.encode()])
        values = _LEVELS[role] + generator.normal(0, 0.02, (USERS, len(_COLUMNS) + 1))
        table = pd.DataFrame({"user": np.arange(USERS), **dict(zip([*_COLUMNS, "ap"], values.T, strict=True))})
        metrics = {**{name: float(table[name].mean()) for name in _COLUMNS}, "map": float(table["ap"].mean())}
        directory.mkdir(parents=True)
        table.to_parquet(directory / "per_user.parquet", index=False)
        (directory / "flags.cfg").write_text(f"--seed={seed}\n")
        (directory / "log.txt").write_text("epoch 1\n")
        (directory / "history.csv").write_text("epoch,validation/map\n1,\n2,0.1\n4,0.2\n")
        storage.write_json(directory / "metrics.json", {"split": split, "metrics": metrics, "counts": {}})
        manifest = {
            "flags": {"dim": _DIMS[role], "seed": seed, "alpha": 1.0, "k": 10, "run_dir": str(directory), **changed},
            "split": split,
            "seed": seed,
            "dataset": {"path": "d", "fingerprint": "f" * 64},
            "model": {
                "class": "caser",
                "config": {},
                "dtype_policy": "float32",
                "parameters": 1000 * _DIMS[role],
                "fingerprint": "w",
            },
            "seconds": 1.0,
        }
        storage.write_json(directory / "manifest.json", manifest)
        return directory

    return make


@pytest.fixture(scope="session")
def make_cell(make_run, tmp_path_factory):
    """Fills `<results>/<dataset>/<model>` with the evidence of some seeds; a role better than the other by rule."""

    def make(directory: Path, seeds: list[int], **changed: Any) -> None:
        runs = tmp_path_factory.mktemp("runs")
        for seed in seeds:
            for role in _LEVELS:
                run = make_run(runs / str(seed) / role, role, seed, **changed)
                keep_evidence(run, directory / f"seed-{seed}" / role, per_user=True)

    return make


@pytest.fixture(scope="session")
def efficiency():
    """What `efficiency.json` holds."""
    role = {"parameters": 5_000_000, "seconds": 2.0, "seconds_of_repeats": [2.0] * 5, "savedmodel_bytes": 20_000_000}
    half = {name: value / 2 if name != "seconds_of_repeats" else value for name, value in role.items()}
    half["parameters"] = 2_500_000
    return {
        "k": 10,
        "block": 1024,
        "roles": {"teacher": role, "distilled": half},
        "machine": {"processor": "EPYC", "cores": 2, "load": 0.1},
    }

"""The commands that are interrupted, each with what it starts from and what it leaves."""

import csv
import dataclasses
from collections.abc import Mapping
from pathlib import Path

from rd_tf.data.synthetic import synthetic_interactions

CHECK_INS = "check_ins.csv"
# Sixteen steps an epoch, so that checkpoints fall within epochs too.
_SHORT = ("--epochs=4", "--batch_size=128", "--steps_per_call=5", "--cutoffs=3,10", "--rank_samples=20")
_SMALL_TRAINING = (*_SHORT, "--dim=8")
_DISCREPANCY = "--discrepancy_start_epoch=2"
_DISTILLED = (_DISCREPANCY, "--dim=4")


@dataclasses.dataclass(frozen=True)
class Case:
    """A command.

    Attributes:
        arguments: of Python; paths are relative to the directory it runs in.
        starts_from: name in that directory -> "case/name", what another case left there, or a file of the world.
        leaves: name in that directory -> its kind, see `benchmarks.interrupted_commands_artefacts.KINDS`. A name of
            `starts_from` too is replaced, and has to be old or new at every moment.
    """

    arguments: tuple[str, ...]
    starts_from: Mapping[str, str]
    leaves: Mapping[str, str]


def _case(command: str, *flags: str, starts_from: Mapping[str, str], leaves: Mapping[str, str]) -> Case:
    return Case(("-m", f"rd_tf.{command}", *flags), starts_from, leaves)


_CITY = ("--format=synthetic", "--synthetic_users=200", "--synthetic_items=150", "--synthetic_visits=30")
_DATASET = {"dataset": "prepare synthetic/dataset"}
_TEACHER = {**_DATASET, "teacher": "train teacher/run"}
_TRAIN = ("--dataset=dataset", "--run_dir=run", *_SMALL_TRAINING)
_PIPELINE = ("--teacher_dim=8", "--student_dim=4", "--seeds=0", "--run_dir=runs", "--export_dir=exports")
_RUNS = "runs/seed-0"
_EXPORT = ("--run_dir=run", "--dataset=dataset", "--export_dir=exports", "--export_name=model")
# In this order: a case starts from what those before it have left.
CASES = {
    "prepare csv": _case(
        "prepare",
        f"--input={CHECK_INS}",
        "--min_user_items=3",
        "--dataset=dataset",
        starts_from={CHECK_INS: CHECK_INS},
        leaves={"dataset": "dataset"},
    ),
    "prepare --shards": _case(
        "prepare",
        f"--input={CHECK_INS}",
        "--shards=3",
        "--dataset=dataset",
        starts_from={CHECK_INS: CHECK_INS},
        leaves={"dataset": "dataset"},
    ),
    "prepare synthetic": _case("prepare", *_CITY, "--dataset=dataset", starts_from={}, leaves={"dataset": "dataset"}),
    "prepare --force": _case(
        "prepare",
        *_CITY,
        "--dataset=dataset",
        "--force",
        starts_from={"dataset": "prepare csv/dataset"},
        leaves={"dataset": "dataset"},
    ),
    "train teacher": _case("train", *_TRAIN, starts_from=_DATASET, leaves={"run": "run"}),
    "teach": _case(
        "teach",
        "--teacher=teacher",
        "--dataset=dataset",
        "--cache=cache",
        starts_from=_TEACHER,
        leaves={"cache": "cache"},
    ),
    "train distilled": _case(
        "train",
        *_TRAIN,
        *_DISTILLED,
        "--teacher=teacher",
        starts_from=_TEACHER,
        leaves={"run": "run", "teacher/top_k/test-k10-target": "cache"},
    ),
    "train fossil": _case("train", *_TRAIN, "--model=fossil", starts_from=_DATASET, leaves={"run": "run"}),
    "train --force": _case(
        "train",
        *_TRAIN,
        "--seed=1",
        "--force",
        starts_from={**_DATASET, "run": "train fossil/run"},
        leaves={"run": "run"},
    ),
    "teach --force": _case(
        "teach",
        "--teacher=teacher",
        "--dataset=dataset",
        "--cache=cache",
        "--k=5",
        "--force",
        starts_from={**_TEACHER, "cache": "teach/cache"},
        leaves={"cache": "cache"},
    ),
    "export": _case(
        "export", *_EXPORT, starts_from={**_DATASET, "run": "train distilled/run"}, leaves={"exports": "exports"}
    ),
    "export --keep_versions": _case(
        "export",
        *_EXPORT,
        "--weights=int8",
        "--keep_versions=1",
        starts_from={**_DATASET, "run": "train fossil/run", "exports": "export/exports"},
        leaves={"exports": "exports"},
    ),
    "distill": Case(
        ("-m", "pipelines.distill", *_CITY, "--dataset=dataset", *_PIPELINE, *_SHORT, _DISCREPANCY),
        starts_from={},
        leaves={
            "dataset": "dataset",
            **{f"{_RUNS}/{role}": "run" for role in ("teacher", "student", "distilled")},
            f"{_RUNS}/teacher/top_k/test-k10-target": "cache",
            "exports": "exports",
            "runs/report.json": "report",
        },
    ),
}


def with_what_they_start_from(chosen: list[str]) -> list[str]:
    """Cases together with those whose results they start from, in the order of `CASES`."""
    wanted, unseen = set(chosen), list(chosen)
    while unseen:
        sources = {source.split("/")[0] for source in CASES[unseen.pop()].starts_from.values()} & CASES.keys()
        unseen += sources - wanted
        wanted |= sources
    return [name for name in CASES if name in wanted]


def write_check_ins(directory: Path, seed: int) -> None:
    """Writes the world's one file: check-ins of 150 users as a user would bring them."""
    world = synthetic_interactions(num_users=150, num_items=120, mean_visits=25.0, seed=seed)
    with open(directory / CHECK_INS, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("user_id", "item_id", "timestamp"))
        for user, item, time in zip(world.users, world.items, world.timestamps, strict=True):
            writer.writerow((world.user_ids[user], world.item_ids[item - 1], time))

"""The three trainings of a distillation, as flags of rd_tf.train."""

from pathlib import Path
from typing import Any

from pipelines.roles import ROLES
from pipelines.seeds import TEACHER_SEED
from rd_tf.command_line import choose
from rd_tf.train import train


def stages(paths: dict[str, Path], seed: int, flags: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The flags of `rd_tf.train` for every role, in the order of training.

    Args:
        paths: role -> run directory.
        seed: of the students; the teacher has another one.
        flags: every flag of `pipelines.distill`.
    """
    own: dict[str, dict[str, Any]] = {
        "teacher": {
            "dim": flags["teacher_dim"],
            "seed": seed + TEACHER_SEED,
            "teacher": "",
            "epochs": flags["teacher_epochs"] or flags["epochs"],
        },
        "student": {"dim": flags["student_dim"], "teacher": ""},
        "distilled": {
            "dim": flags["student_dim"],
            "teacher": str(paths["teacher"]),
            "epochs": flags["distilled_epochs"] or flags["epochs"],
            "dropout": flags["dropout"] if flags["distilled_dropout"] < 0 else flags["distilled_dropout"],
        },
    }
    return {role: choose(train, flags, **{"run_dir": str(paths[role]), "seed": seed, **own[role]}) for role in ROLES}

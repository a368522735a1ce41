"""The three trainings of a distillation, as flags of rd_tf.train."""

from pathlib import Path
from typing import Any

from pipelines.roles import ROLES
from rd_tf.command_line import choose
from rd_tf.train import train

# With the student's seed the teacher would see the same batches and negatives in the same order, and the noise of its
# last steps would be the student's too: their lists would agree by shared chance, not by learning.
_TEACHER_SEED = 1000


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
            "seed": seed + _TEACHER_SEED,
            "teacher": "",
            "epochs": flags["teacher_epochs"] or flags["epochs"],
        },
        "student": {"dim": flags["student_dim"], "teacher": ""},
        "distilled": {"dim": flags["student_dim"], "teacher": str(paths["teacher"])},
    }
    return {role: choose(train, flags, **{"run_dir": str(paths[role]), "seed": seed, **own[role]}) for role in ROLES}

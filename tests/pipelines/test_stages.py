"""What each role's training is told."""

import pytest

from pipelines.distill import distill, stages
from pipelines.records import ROLES
from rd_tf import command_line

PATHS = {role: f"runs/{role}" for role in ROLES}


def values_of(name, *arguments):
    flags = command_line.parse(distill, ["--dataset=data", "--epochs=7", "--dropout=0.5", *arguments])
    return {role: values[name] for role, values in stages(PATHS, 3, flags).items()}


def test_the_roles_share_epochs_and_dropout():
    assert values_of("epochs") == dict.fromkeys(ROLES, 7)
    assert values_of("dropout") == dict.fromkeys(ROLES, 0.5)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_the_distilled_student_may_have_a_dropout_of_its_own(dropout):
    assert values_of("dropout", f"--distilled_dropout={dropout}") == {
        "teacher": 0.5,
        "student": 0.5,
        "distilled": dropout,
    }


def test_epochs_of_teacher_and_distilled_student_may_be_their_own():
    assert values_of("epochs", "--teacher_epochs=2", "--distilled_epochs=9") == {
        "teacher": 2,
        "student": 7,
        "distilled": 9,
    }


def test_the_teacher_has_a_seed_of_its_own():
    assert values_of("seed") == {"teacher": 1003, "student": 3, "distilled": 3}

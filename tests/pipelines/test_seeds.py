"""--seeds."""

import pytest
from absl import flags

from pipelines.distill import TEACHER_SEED, parse_seeds
from rd_tf import command_line
from rd_tf.storage import InputError
from rd_tf.train import train


def test_seeds_are_numbers():
    assert parse_seeds(["0", "12", " 3"]) == [0, 12, 3]


@pytest.mark.parametrize("texts", [[], ["x"], ["-1"], ["1.5"], ["0", "0"], ["0", "00"], ["1", "01"]])
def test_what_is_no_seed_or_twice_the_same_is_refused(texts):
    with pytest.raises(InputError, match="seeds are different whole numbers from 0, such as 0,1,2"):
        parse_seeds(texts)


def test_the_teachers_seed_fits_too():
    highest = 1_000_000
    assert command_line.parse(train, [f"--seed={highest}"])["seed"] == highest
    with pytest.raises(flags.Error):
        command_line.parse(train, [f"--seed={highest + 1}"])
    assert parse_seeds([str(highest - TEACHER_SEED)]) == [highest - TEACHER_SEED]
    with pytest.raises(InputError, match=r"999001 is too large, since the teacher's seed is 1000 more and at most"):
        parse_seeds(["0", str(highest - TEACHER_SEED + 1)])

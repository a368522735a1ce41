"""The seeds of a pipeline, checked."""

from rd_tf.storage import InputError

# With the student's seed the teacher would see the same batches and negatives in the same order, and the noise of its
# last steps would be the student's too: their lists would agree by shared chance, not by learning.
TEACHER_SEED = 1000
# The bound of --seed.
_HIGHEST = 1_000_000


def parse_seeds(texts: list[str]) -> list[int]:
    """Reads --seeds.

    Raises:
        InputError: there is none, one is no whole number from 0, stands twice, or is too large for the teacher's seed.
    """
    seeds = [int(text) for text in texts if text.strip().isdecimal()]
    given = f"--seeds={','.join(texts)}"
    if not texts or len(set(seeds)) < len(texts):
        raise InputError(f"{given}: seeds are different whole numbers from 0, such as 0,1,2")
    if max(seeds) + TEACHER_SEED > _HIGHEST:
        raise InputError(
            f"{given}: {max(seeds)} is too large, since the teacher's seed is {TEACHER_SEED} more and at most "
            f"{_HIGHEST}; use seeds up to {_HIGHEST - TEACHER_SEED}"
        )
    return seeds

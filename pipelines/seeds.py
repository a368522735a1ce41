"""The seeds of a pipeline, checked."""

from rd_tf.errors import InputError


def parse_seeds(texts: list[str]) -> list[int]:
    """Reads --seeds.

    Raises:
        InputError: there is none, one is no whole number from 0, or one stands twice.
    """
    if not texts or not all(text.strip().isdecimal() for text in texts) or len(set(texts)) < len(texts):
        raise InputError(f"--seeds={','.join(texts)}: seeds are different whole numbers from 0, such as 0,1,2")
    return [int(text) for text in texts]

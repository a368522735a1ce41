"""Whether two runs of rd_tf.train had the same settings."""

from collections.abc import Collection
from typing import Any

from rd_tf.command_line import default_flags
from rd_tf.train import flags_without_part, train

# What a flag was before it existed, where that is not its default.
_BEFORE_IT_EXISTED = {"optimizer": "adam"}


def flag_difference(
    found: dict[str, Any], expected: dict[str, Any], but: Collection[str] = ()
) -> tuple[str, Any, Any] | None:
    """The first flag that makes one result another than the other.

    Flags without a part in the result are left out: those of other models and, where one of the two had no teacher,
    those of distillation. Of a teacher it counts whether there was one; which, its fingerprint tells. A flag that an
    older manifest lacks was what it is by default, except that the only optimizer was adam.

    Args:
        found: flags of `rd_tf.train`, as a manifest holds them.
        expected: flags of `rd_tf.train` too.
        but: names of more flags to leave out.

    Returns:
        The flag's name, its value in `found` and in `expected`; None where all are the same.
    """
    before, now = _complete(found), _complete(expected)
    if bool(before["teacher"]) != bool(now["teacher"]) and "teacher" not in but:
        return "teacher", before["teacher"], now["teacher"]
    left_out = {*flags_without_part(before), *flags_without_part(now), *but}
    for name, value in now.items():
        if name not in left_out and not _is_same(before[name], value):
            return name, before[name], value
    return None


def _complete(flags: dict[str, Any]) -> dict[str, Any]:
    return {name: flags.get(name, value) for name, value in {**default_flags(train), **_BEFORE_IT_EXISTED}.items()}


def _is_same(one: Any, other: Any) -> bool:
    # 1 is 1.0, but no true.
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)

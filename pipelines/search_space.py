"""What --search of pipelines.tune says: which flags of a training vary, and within what."""

import dataclasses
import itertools
import re
import typing
from typing import TYPE_CHECKING, Any

from absl import flags

from rd_tf import command_line, plugins, run_directory
from rd_tf.command_line import default_flags, parameter_names
from rd_tf.storage import InputError
from rd_tf.train import train

if TYPE_CHECKING:
    import optuna

Value = int | float | str | bool
# These decide which flags after them have a part in the result.
_DECIDING = ("teacher", "model", "ranking_loss", "distillation_loss")
_NAMED = {
    "model": plugins.RANKERS,
    "ranking_loss": plugins.RANKING_LOSSES,
    "distillation_loss": plugins.DISTILLATION_LOSSES,
}
# Where and how fast, what is looked at, and luck: no settings.
_NO_SETTINGS = (run_directory.NO_PART_OF_THE_RESULT | {"split", "seed", "cutoffs"}) - {"teacher"}
_RANGE = re.compile(r"(.+?)\.\.(.+?)(:log)?")


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included; whole ones where `low` is; on a logarithmic scale with `log`."""

    low: int | float
    high: int | float
    log: bool

    def suggest(self, trial: "optuna.Trial", name: str) -> Value:
        """The trial's value."""
        if isinstance(self.low, int):
            return trial.suggest_int(name, self.low, int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)

    def holds(self, value: Value) -> bool:
        """Whether a value lies within."""
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclasses.dataclass(frozen=True)
class Choices:
    """Some values."""

    values: tuple[Value, ...]

    def suggest(self, trial: "optuna.Trial", name: str) -> Value:
        """The trial's value."""
        return typing.cast(Value, trial.suggest_categorical(name, self.values))

    def holds(self, value: Value) -> bool:
        """Whether a value is one of them."""
        return value in self.values


SearchSpace = dict[str, Range | Choices]


def parse_search(texts: list[str], fixed: dict[str, Any]) -> SearchSpace:
    """Reads --search.

    Args:
        texts: such as `dropout=0.2..0.6`, `alpha=0.25..4:log` or `mask=target|seen`.
        fixed: every flag of `rd_tf.train`; those of imported plug-ins are among them.

    Raises:
        InputError: there is none, one has not this form, is of no flag that can vary or twice of the same, has a value
            that the flag does not take, or would change nothing.
    """
    if not texts:
        raise InputError("--search is empty; name flags and values, such as dropout=0.2..0.6,k=10|20|50")
    space: SearchSpace = {}
    for text in texts:
        name, equals, values = (part.strip() for part in text.partition("="))
        if not equals:
            raise InputError(f"--search: {text!r} has no values; write {text}=low..high or {text}=value|value")
        if name not in parameter_names(train):
            raise InputError(f"--search: {name!r} is no flag of rd_tf.train; python -m rd_tf.train --help lists them")
        if name in _NO_SETTINGS:
            raise InputError(f"--search: {name} is not a setting to search over; give it as --{name}=...")
        if name in space:
            raise InputError(f"--search names {name} twice; name each flag once")
        space[name] = _read(name, values)
    for flag, table in _NAMED.items():
        for value in getattr(space.get(flag), "values", (fixed[flag],)):
            plugins.find(table, flag, str(value))
    useless = _without_part(space, fixed)
    if useless:
        raise InputError(
            f"--search: {useless[0]} changes nothing with the other flags (--teacher={fixed['teacher']}, --model="
            f"{fixed['model']} and the losses); leave it out"
        )
    return space


def suggest(trial: "optuna.Trial", space: SearchSpace, fixed: dict[str, Any]) -> dict[str, Any]:
    """Every flag of a trial: those of the search that have a part in its result as the trial has it, others as fixed.

    Args:
        trial: gives the values.
        space: what varies.
        fixed: every flag of `rd_tf.train`.
    """
    values = dict(fixed)
    for name in (*(name for name in _DECIDING if name in space), *(name for name in space if name not in _DECIDING)):
        if name == "teacher" or name not in run_directory.flags_without_part(values):
            values[name] = space[name].suggest(trial, name)
    return values


def _read(name: str, text: str) -> Range | Choices:
    kind = type(default_flags(train)[name])
    match = _RANGE.fullmatch(text)
    # Paths may have ".." in them.
    if kind in (int, float) and match:
        low, high = _value(name, match[1]), _value(name, match[2])
        assert isinstance(low, int | float)
        assert isinstance(high, int | float)
        if not low < high:
            raise InputError(f"--search: {name}={text} has no room between its ends; write the lower end first")
        if match[3] and low <= 0:
            raise InputError(f"--search: {name}={text}: a logarithmic scale begins above 0; use a higher low end")
        return Range(low, high, bool(match[3])) if kind is int else Range(float(low), float(high), bool(match[3]))
    if "|" not in text:
        form = "low..high or value|value" if kind in (int, float) else "value|value"
        raise InputError(f"--search: {name}={text} is nothing to choose from; write {name}={form}, or give --{name}")
    values = tuple(_value(name, part.strip()) for part in text.split("|"))
    if len(set(values)) < len(values):
        raise InputError(f"--search: {name}={text} has a value twice; name each once")
    return Choices(values)


def _value(name: str, text: str) -> Value:
    """A value as the flag's own parser takes it."""
    try:
        value: Value = command_line.parse(train, [f"--{name}={text}"])[name]
    except flags.Error as error:
        raise InputError(f"--search: {' '.join(str(error).split())}") from None
    return value


def _without_part(space: SearchSpace, fixed: dict[str, Any]) -> list[str]:
    """Those that change nothing, whatever the deciding flags of the search are."""
    deciding = {name: found.values for name, found in space.items() if name in _DECIDING and isinstance(found, Choices)}
    useless = set(space) - {"teacher"}
    for values in itertools.product(*deciding.values()):
        useless &= run_directory.flags_without_part({**fixed, **dict(zip(deciding, values, strict=True))})
    return sorted(useless)

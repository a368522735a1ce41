"""Rankers and losses by name: ours, and those that a user's own package registers.

Importing this module imports neither TensorFlow nor Keras: ours are named by where they are, and imported when used.
"""

import importlib
import inspect
import pathlib
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from rd_tf import flag_definitions, import_place
from rd_tf.storage import InputError

Class = TypeVar("Class", bound=type)
# Every ranker has these; what the dataset or other flags decide is no flag of a ranker.
_EVERY_RANKERS = ("num_users", "num_items", "sequence_length", "dim", "seed", "unknown_user", "dtype", "name")


class Plugin:
    """A class by name, and which flags are which of its constructor's keywords.

    Args:
        place: the class, or "module:Class" for one that is imported when used.
        flags: the constructor's keywords and the flags that set them.
    """

    def __init__(self, place: str | type, flags: dict[str, str]) -> None:
        self._place = place
        self.flags = flags

    def load(self) -> type:
        if isinstance(self._place, str):
            self._place = import_place(self._place)
        return typing.cast(type, self._place)

    def arguments(self, values: dict[str, Any]) -> dict[str, Any]:
        """The constructor's keywords, out of the values of all flags."""
        return {keyword: values[flag] for keyword, flag in self.flags.items()}

    def is_ours(self) -> bool:
        module = self._place.partition(":")[0] if isinstance(self._place, str) else self._place.__module__
        return module.partition(".")[0] == "rd_tf"


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


RANKERS: dict[str, Plugin] = {
    "caser": Plugin(
        "rd_tf.models.caser:Caser",
        _same("vertical_filters", "horizontal_filters", "conv_activation", "dense_activation", "dropout"),
    ),
    "fossil": Plugin("rd_tf.models.fossil:Fossil", _same("history", "history_exponent", "dropout")),
    "sasrec": Plugin("rd_tf.models.sasrec:SASRec", _same("heads", "blocks", "dropout")),
}
RANKING_LOSSES: dict[str, Plugin] = {
    "pointwise": Plugin("rd_tf.losses.ranking:PointwiseLogLoss", {}),
    "bpr": Plugin("rd_tf.losses.ranking:BayesianPersonalizedRanking", {}),
    "sampled_softmax": Plugin("rd_tf.losses.ranking:SampledSoftmax", {}),
    "softmax": Plugin("rd_tf.losses.ranking:FullSoftmax", {}),
    "gbce": Plugin("rd_tf.losses.ranking:GeneralizedBinaryCrossEntropy", _same("calibration")),
}
DISTILLATION_LOSSES: dict[str, Plugin] = {
    "weighted_pointwise": Plugin(
        "rd_tf.losses.distillation:WeightedPointwiseDistillation",
        {
            "temperature": "position_temperature",
            "sharpness": "discrepancy_sharpness",
            "renormalize": "renormalize_weights",
        },
    ),
    "listwise": Plugin("rd_tf.losses.distillation:ListwiseSoftmaxDistillation", _same("score_temperature")),
    "rrd": Plugin(
        "rd_tf.losses.distillation:RelaxedRankingDistillation", _same("position_temperature", "list_samples")
    ),
    "cd": Plugin(
        "rd_tf.losses.distillation:CollaborativeDistillation",
        _same("position_temperature", "list_samples", "score_temperature", "score_bias"),
    ),
    "dcd": Plugin(
        "rd_tf.losses.distillation:DualCorrectionDistillation",
        {"sharpness": "discrepancy_sharpness", "list_samples": "list_samples"},
    ),
    "unkd": Plugin(
        "rd_tf.losses.distillation:UnbiasedDistillation",
        _same("position_temperature", "list_samples", "popularity_groups"),
    ),
    "margin_mse": Plugin("rd_tf.losses.distillation:MarginMSEDistillation", _same("score_temperature")),
    "rankdistil": Plugin("rd_tf.losses.distillation:RankDistil", _same("score_temperature", "list_samples")),
}
_TABLES = (RANKERS, RANKING_LOSSES, DISTILLATION_LOSSES)


def register_ranker(name: str) -> Callable[[Class], Class]:
    """Makes a ranker known: `--model=NAME` in every command, and its constructor's typed keywords as flags.

    A decorator of a subclass of `rd_tf.SequenceRanker` whose constructor takes `num_users`, `num_items`,
    `sequence_length`, `dim`, `seed`, `unknown_user` and `**kwargs`; its further keywords of type int, float, bool or
    str become flags of that name with that default. A flag that exists keeps its default and its range. Keras can save
    and load the class, too (`keras.saving.register_keras_serializable`).

    Args:
        name: letters, digits and "_".

    Raises:
        ValueError: the name is taken, the class is no ranker, or a keyword is a flag of another type.
    """

    def register(cls: Class) -> Class:
        from rd_tf.models.ranker import SequenceRanker

        if not issubclass(cls, SequenceRanker):
            raise ValueError(f"{cls.__name__} is registered as a ranker but is no rd_tf.SequenceRanker")
        return _register(RANKERS, "ranker", name, cls, _EVERY_RANKERS)

    return register


def register_loss(name: str) -> Callable[[Class], Class]:
    """Makes a loss known: `--distillation_loss=NAME` or `--ranking_loss=NAME`, its constructor's keywords as flags.

    A decorator of a subclass of `rd_tf.losses.DistillationLoss`, or of any other `keras.losses.Loss`, which is a
    ranking loss. Keywords of type int, float, bool or str become flags as for `register_ranker`.

    Args:
        name: letters, digits and "_".

    Raises:
        ValueError: the name is taken, the class is no loss, or a keyword is a flag of another type.
    """

    def register(cls: Class) -> Class:
        import keras

        from rd_tf.losses.distillation import DistillationLoss

        if not issubclass(cls, keras.losses.Loss):
            raise ValueError(f"{cls.__name__} is registered as a loss but is no keras.losses.Loss")
        is_distillation = issubclass(cls, DistillationLoss)
        table = DISTILLATION_LOSSES if is_distillation else RANKING_LOSSES
        kind = "distillation loss" if is_distillation else "ranking loss"
        return _register(table, kind, name, cls, ("reduction", "name", "dtype"))

    return register


def constructor_keywords(made: Any, attributes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The keywords that made an object, each read from the attribute of its name: what `get_config` has to give.

    Args:
        made: the object.
        attributes: keywords and the attributes that hold them, where the names differ.

    Raises:
        ValueError: a keyword is no attribute; keep it as one, or override `get_config`.
    """
    found = {}
    for name, parameter in inspect.signature(type(made).__init__).parameters.items():
        if name == "self" or parameter.kind is inspect.Parameter.VAR_KEYWORD:
            continue
        attribute = (attributes or {}).get(name, name)
        if not hasattr(made, attribute):
            raise ValueError(f"{type(made).__name__} cannot be saved: its keyword {name} is no attribute of it")
        found[name] = getattr(made, attribute)
    return found


def import_modules(names: Sequence[str]) -> None:
    """Imports modules that register rankers and losses.

    Args:
        names: dotted names, importable from the current directory or the Python path.

    Raises:
        InputError: one cannot be imported.
    """
    if str(pathlib.Path.cwd()) not in sys.path and "" not in sys.path:
        sys.path.append(str(pathlib.Path.cwd()))
    for name in names:
        try:
            importlib.import_module(name)
        except Exception as error:
            raise InputError(
                f"--import_module={name} cannot be imported ({type(error).__name__}: {error}); name a module that "
                "`python -c 'import ...'` finds here"
            ) from error


def find(table: dict[str, Plugin], flag: str, name: str) -> Plugin:
    """The entry of a name.

    Raises:
        InputError: there is none.
    """
    if name not in table:
        raise InputError(
            f"--{flag}={name} is not known; it is one of {', '.join(table)}, or name the module that registers it with "
            "--import_module"
        )
    return table[name]


def flag_names() -> list[str]:
    """Flags that plug-ins have beside those of our own, in the order they were registered."""
    own = {flag for table in _TABLES for plugin in table.values() if plugin.is_ours() for flag in plugin.flags.values()}
    found = {flag: None for table in _TABLES for plugin in table.values() for flag in plugin.flags.values()}
    return [flag for flag in found if flag not in own]


def flags_of_others(*names: str) -> set[str]:
    """Flags that make no difference, since only entries that were not chosen have them.

    Args:
        names: the chosen ranker, ranking loss and distillation loss.
    """
    every = {flag for table in _TABLES for plugin in table.values() for flag in plugin.flags.values()}
    # Of all tables together: a keyword of the chosen ranker may be one of another loss, too.
    chosen = [table[name] for table, name in zip(_TABLES, names, strict=True) if name in table]
    return every - {flag for plugin in chosen for flag in plugin.flags.values()}


def _register(table: dict[str, Plugin], kind: str, name: str, cls: Class, no_flags: Sequence[str]) -> Class:
    import keras

    if name in table and table[name].is_ours() and cls.__module__.partition(".")[0] == "rd_tf":
        # Ours, named here already with its flags.
        return keras.saving.register_keras_serializable("rd_tf", cls.__name__)(cls)
    known = table.get(name)
    if known is not None and (known.is_ours() or _source(known.load()) != _source(cls)):
        raise ValueError(f"a {kind} named {name!r} is registered already; choose another name")
    if not name.isidentifier():
        raise ValueError(f"a {kind}'s name must be of letters, digits and _; received {name!r}")
    flags = {}
    for keyword, kind_of_value, default in _typed_keywords(cls):
        if keyword not in no_flags:
            try:
                flag_definitions.add_flag(keyword, kind_of_value, default, f"{keyword} of the {kind} {name}.")
            except ValueError as error:
                raise ValueError(f"{kind} {name}: {error}") from None
            flags[keyword] = keyword
    table[name] = Plugin(cls, flags)
    return keras.saving.register_keras_serializable(name, cls.__name__)(cls)


def _source(cls: type) -> tuple[str, str]:
    # A notebook cell that is run again registers a new class of the same name.
    return cls.__module__, cls.__qualname__


def _typed_keywords(cls: type) -> Iterator[tuple[str, type, Any]]:
    hints = typing.get_type_hints(cls.__init__)  # type: ignore[misc]
    for parameter in inspect.signature(cls).parameters.values():
        kind = hints.get(parameter.name)
        if kind in (int, float, bool, str):
            default = kind() if parameter.default is inspect.Parameter.empty else parameter.default
            yield parameter.name, kind, default

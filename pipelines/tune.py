"""python -m pipelines.tune: searches over flags of rd_tf.train on the validation split, with Optuna."""

import dataclasses
import itertools
import os
import re
import sys
import typing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from pipelines.paper.chains import Child, Children
from pipelines.records import read_history
from pipelines.report import head, picture, row, short
from rd_tf import command_line, plugins, run_directory
from rd_tf.command_line import choose, default_flags, flag_lines, parameter_names
from rd_tf.runtime import cluster, print_line
from rd_tf.storage import (
    InputError,
    atomic_directory,
    directory_lock,
    json_sha256,
    remove,
    write_json,
    write_text,
)
from rd_tf.train import TRAIN_FLAGS, teacher_fingerprint, train

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


TRIALS = "trials.md"
_SHOWN = 20
# Of fewer trials the importance would be chance.
_FEWEST_FOR_IMPORTANCE = 5


def repeated_trials(study: "optuna.Study") -> set[int]:
    """Numbers of the trials that were interrupted, and are or will be tried again under another number."""
    trials = study.get_trials(deepcopy=False)
    return {int(trial.user_attrs["repeats"]) for trial in trials if "repeats" in trial.user_attrs}


def count_ended(study: "optuna.Study") -> int:
    """How many trials have ended, those that failed included and those that are repeated left out."""
    repeated = repeated_trials(study)
    trials = study.get_trials(deepcopy=False)
    return sum(1 for trial in trials if trial.state.is_finished() and trial.number not in repeated)


def best_trial(study: "optuna.Study") -> "optuna.trial.FrozenTrial | None":
    """The trial with the highest MAP of those that came to their end, the first of equals; None where none did."""
    from optuna.trial import TrialState

    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(trials, key=lambda trial: (trial.value, -trial.number), default=None)


def describe(trial: "optuna.trial.FrozenTrial") -> dict[str, Any]:
    """A trial as JSON values: number, state, best MAP and its epoch, seconds, and what the search set."""
    return {
        "trial": trial.number,
        "state": trial.state.name.lower(),
        "map": trial.value,
        "epoch": trial.user_attrs.get("epoch"),
        "seconds": trial.user_attrs.get("seconds"),
        "settings": dict(trial.params),
    }


def setting_text(value: Value) -> str:
    """A value as people read it, with four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def trials_table(study: "optuna.Study", space: SearchSpace, fixed: dict[str, Any]) -> str:
    """Markdown of a search: what was searched, how many trials there were, and the best of them, best first.

    Args:
        study: Optuna's.
        space: what varies.
        fixed: every flag of `rd_tf.train`.
    """
    from optuna.trial import TrialState

    repeated, defaults = repeated_trials(study), default_flags(train)
    trials = [trial for trial in study.get_trials(deepcopy=False) if trial.number not in repeated]
    counts = {state: sum(1 for trial in trials if trial.state == state) for state in TrialState}
    left_out = run_directory.flags_without_part(fixed) | {"split", *space}
    others = {name: value for name, value in fixed.items() if name not in left_out and value != defaults[name]}
    facts = [
        f"Search over `{' '.join(study.user_attrs['identity']['search'])}`",
        f"other flags `{' '.join(flag_lines(others).splitlines()) or 'by default'}`",
        f"{counts[TrialState.COMPLETE]} trials to the end, {counts[TrialState.PRUNED]} stopped early, "
        f"{counts[TrialState.FAIL]} failed",
    ]
    shares = importance(study, space)
    if shares:
        facts.append(f"importance {', '.join(f'{name} {value:.2f}' for name, value in shares.items())}")
    # Those with the values of an earlier trial were not trained again.
    shown = [trial for trial in trials if trial.state == TrialState.COMPLETE and "same_as" not in trial.user_attrs]
    shown.sort(key=lambda trial: (-(trial.value or 0.0), trial.number))
    lines = head("trial", "validation MAP", "epoch", *space)
    for trial in shown[:_SHOWN]:
        settings = [setting_text(trial.params[name]) if name in trial.params else "" for name in space]
        lines.append(row(str(trial.number), short(trial.value or 0.0), str(trial.user_attrs["epoch"]), *settings))
    return "; ".join(facts) + ".\n\n" + "\n".join(lines) + "\n"


def importance(study: "optuna.Study", space: SearchSpace) -> dict[str, float]:
    """How much each flag decides whether a trial is among the best, in shares of 1, the most important one first.

    PED-ANOVA (Watanabe et al., IJCAI 2023) over the trials that came to their end.

    Args:
        study: Optuna's.
        space: what varies.

    Returns:
        Flag -> share; nothing where there are too few trials.
    """
    import optuna

    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    varying = [name for name in space if len({trial.params.get(name) for trial in trials}) > 1]
    if len(trials) < _FEWEST_FOR_IMPORTANCE or not varying or len({trial.value for trial in trials}) == 1:
        return {}
    found = optuna.importance.get_param_importances(study, params=varying)
    return {name: float(value) for name, value in found.items()}


def plot_importance(shares: dict[str, float], path: Path) -> None:
    """Plots how much each flag decides, the most important one on top; nothing of none.

    Args:
        shares: what `importance` returns.
        path: the picture.
    """
    if not shares:
        return
    with picture(path, figsize=(5.0, 0.8 + 0.3 * len(shares))) as axis:
        axis.barh(list(shares)[::-1], list(shares.values())[::-1], color="#4878a8")
        axis.set(xlabel="importance (PED-ANOVA), share of all")
        axis.grid(alpha=0.3, axis="x")


STUDY = "study.db"
BEST = "best.cfg"
IMPORTANCE = "importance.png"
TRIAL = "trial.json"
TRAINER = "rd_tf.train"
_MAP = "validation/map"
# One may have drawn values that do not fit together; of so many in a row the cause is another.
_MOST_FAILURES = 3


def tune(**flags: Any) -> dict[str, Any]:
    """Searches over flags of rd_tf.train for the highest validation MAP.

    Every trial is a training in a process of its own, --jobs at a time, under <run_dir>/trial-NNNN; values come from
    Optuna's TPE sampler, and trials that fall behind are stopped early (--pruner). --results gets the study
    (study.db), every trial's flags and history, the best trial's flags as a flagfile (best.cfg), a table (trials.md)
    and the flags' importance (importance.png). The same command goes on up to --trials; trials that were interrupted
    are repeated from their checkpoints. Weights are kept of the best trial only. The validation part is all that is
    read: any other --split is refused.

    Args:
        **flags: values of `tune.flag_names` and of plug-ins' flags; those not given have the command's defaults.

    Returns:
        The best trial, as its `trial.json` has it.

    Raises:
        InputError: a flag, the dataset, a teacher or a directory cannot be used, Optuna is not installed, or three
            trainings in a row failed.
    """
    flags = command_line.complete(tune, flags)
    if flags["split"] != "validation":
        raise InputError(
            f"--split={flags['split']}: a search reads the validation part only; give --split=validation or none"
        )
    for name, purpose in (("run_dir", "the trials' runs"), ("results", "the search"), ("dataset", "the dataset")):
        if not flags[name]:
            raise InputError(f"--{name} is empty; name a directory for {purpose}")
    if cluster()[1] > 1:
        raise InputError("TF_CONFIG in the environment names several workers, but a search runs on one machine")
    results, run_dir = Path(flags["results"]), Path(flags["run_dir"])
    if results.resolve() == run_dir.resolve():
        raise InputError(f"--results={results} is the --run_dir too; name two directories")
    fixed = choose(train, flags, force=False)
    space = parse_search(flags["search"], fixed)
    _import_optuna()
    with directory_lock(results), directory_lock(run_dir):
        study = open_study(results / STUDY, _identity(flags["search"], space, fixed), run_dir)
        study.pruner = make_pruner(flags["pruner"], flags["prune_from_epoch"])
        search = Search(study, space, fixed, run_dir, results)
        search.begin()
        search.run(flags["trials"], flags["jobs"])
        return search.finish()


tune.flag_names = [  # type: ignore[attr-defined]
    *(name for name in TRAIN_FLAGS if name != "force"),
    *("search", "trials", "jobs", "pruner", "prune_from_epoch", "results"),
]
tune.flag_defaults = {"split": "validation"}  # type: ignore[attr-defined]


def _import_optuna() -> None:
    try:
        import optuna
    except ImportError:
        raise InputError("Optuna is not installed; pip install -r requirements-tune.txt") from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def _identity(search: list[str], space: SearchSpace, fixed: dict[str, Any]) -> dict[str, Any]:
    """What must be the same for a search to go on, as JSON values."""
    from rd_tf.data.dataset import load_manifest

    teachers = getattr(space.get("teacher"), "values", (fixed["teacher"],))
    left_out = run_directory.NO_PART_OF_THE_RESULT | set(space)
    return {
        "search": [text.strip() for text in search],
        "dataset": load_manifest(fixed["dataset"])["fingerprint"],
        "teacher": [teacher_fingerprint(str(teacher)) for teacher in teachers],
        "flags": {name: value for name, value in fixed.items() if name not in left_out},
    }


def open_study(path: Path, identity: dict[str, Any], run_dir: Path) -> "optuna.Study":
    """Opens the study of a search, or begins one.

    Args:
        path: the SQLite file.
        identity: JSON values `search`, `dataset`, `teacher` and `flags` that belong to it.
        run_dir: holds the runs of its trials.

    Raises:
        InputError: the file is damaged or holds another search, or the runs are there without a study.
    """
    import optuna
    import sqlalchemy

    if not path.exists() and any(run_dir.glob("trial-*")):
        raise InputError(
            f"--run_dir={run_dir} holds trials, but {path} is not there; give the --results of their search, or name "
            "another --run_dir"
        )
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{path.absolute()}")
        study = optuna.create_study(storage=storage, study_name="tune", direction="maximize", load_if_exists=True)
        before = study.user_attrs.get("identity")
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.OptunaError, RuntimeError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{path} cannot be used ({first}); restore it, or name another --results") from None
    if before is None:
        study.set_user_attr("identity", identity)
        return study
    difference = _difference(before, identity)
    if difference:
        name, found, wanted = difference
        raise InputError(
            f"--results={path.parent} holds a search with --{name}={found}, not {wanted}; name another --results and "
            "--run_dir"
        )
    return study


def _difference(before: dict[str, Any], now: dict[str, Any]) -> tuple[str, Any, Any] | None:
    """The first flag that makes one search another than the other, and its values."""
    for name in ("search", "teacher", "dataset"):
        if before[name] != now[name]:
            return name, _short(before[name]), _short(now[name])
    # A search that is older than a flag had its default.
    flags = {**default_flags(train), **before["flags"]}
    return next(((name, flags[name], value) for name, value in now["flags"].items() if flags[name] != value), None)


def _short(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(_short, value))
    return "(none)" if value is None else str(value)[:16] if str(value).isalnum() else str(value)


def make_pruner(name: str, from_epoch: int) -> "optuna.pruners.BasePruner":
    """The pruner of a name.

    Args:
        name: "median", "halving" or "none".
        from_epoch: first epoch at which it may stop a trial.
    """
    import optuna

    if name == "median":
        return optuna.pruners.MedianPruner(n_warmup_steps=from_epoch)
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=from_epoch)
    return optuna.pruners.NopPruner()


@dataclasses.dataclass
class Watched:
    """A trial whose training goes on.

    Attributes:
        trial: Optuna's.
        flags: every flag of its training.
        history: the file that the training fills.
        maps: epoch -> validation MAP, as far as it is there.
        is_pruned: whether it was asked to end.
    """

    trial: "optuna.Trial"
    flags: dict[str, Any]
    history: Path
    maps: dict[int, float] = dataclasses.field(default_factory=dict)
    is_pruned: bool = False
    _changed: int = 0

    @property
    def best_epoch(self) -> int:
        """The epoch with the best MAP, the first of them; there must be one."""
        return max(self.maps, key=lambda epoch: (self.maps[epoch], -epoch))

    def look(self) -> bool:
        """Tells Optuna of the epochs that are new in the history.

        Returns:
            Whether the trial is to be stopped, which is said once.

        Raises:
            InputError: the history is damaged.
        """
        try:
            changed = self.history.stat().st_mtime_ns
        except FileNotFoundError:
            return False
        if changed == self._changed:
            return False
        self._changed = changed
        table = read_history(self.history.parent)
        table = table.dropna(subset=_MAP) if _MAP in table else table[:0]
        new = {int(epoch): float(map_) for epoch, map_ in zip(table["epoch"], table.get(_MAP, ()), strict=True)}
        for epoch in sorted(set(new) - set(self.maps)):
            self.maps[epoch] = new[epoch]
            self.trial.report(new[epoch], epoch)
        # After the last epoch there is nothing to save.
        if self.is_pruned or not self.maps or max(self.maps) >= self.flags["epochs"]:
            return False
        self.is_pruned = self.trial.should_prune()
        return self.is_pruned


class Search:
    """Asks a study for trials, trains them, and keeps what they show.

    Args:
        study: Optuna's.
        space: what varies.
        fixed: every flag of `rd_tf.train`.
        run_dir: gets the runs, `trial-NNNN`.
        results: gets the evidence.
    """

    def __init__(
        self, study: "optuna.Study", space: SearchSpace, fixed: dict[str, Any], run_dir: Path, results: Path
    ) -> None:
        self._study, self._space, self._fixed = study, space, fixed
        self._run_dir, self._results = run_dir, results
        self._failures = 0

    def begin(self) -> None:
        """Has the flags' own values tried first, and what an earlier call left unfinished tried again.

        Raises:
            InputError: the training of such a trial still goes on.
        """
        from optuna.trial import TrialState

        trials = self._study.get_trials(deepcopy=False)
        if not trials:
            own = {name: self._fixed[name] for name, values in self._space.items() if values.holds(self._fixed[name])}
            if own:
                self._study.enqueue_trial(own)
        repeated = repeated_trials(self._study)
        for trial in trials:
            if trial.state != TrialState.RUNNING:
                continue
            run = self._run_dir / trial_name(trial.number)
            if run.is_dir():
                # Held by a training that has outlived its search.
                with directory_lock(run):
                    pass
            if trial.number not in repeated:
                self._study.enqueue_trial(trial.params, user_attrs={"repeats": trial.number})
            self._study.tell(trial.number, state=TrialState.FAIL)
            remove(self._results / trial_name(trial.number))
            print_line(f"trial {trial.number}: was interrupted, is repeated")

    def run(self, trials: int, jobs: int) -> None:
        """Trains until the search has as many trials as it should.

        Args:
            trials: of the search, those of earlier calls included.
            jobs: at the same time.

        Raises:
            InputError: three trainings in a row failed.
        """
        running: dict[Child, Watched] = {}
        with Children(jobs) as children:
            while True:
                while children.has_room() and count_ended(self._study) + len(running) < trials:
                    watched = self._ask()
                    if watched is not None:
                        log = self._run_dir / f"{trial_name(watched.trial.number)}.log"
                        command = [sys.executable, "-m", TRAINER, *flag_lines(watched.flags).splitlines()]
                        running[children.start(command, log)] = watched
                if not running:
                    return
                for child in children.ended():
                    self._end(running.pop(child), child)
                for child, watched in running.items():
                    if watched.look():
                        child.stop()

    def finish(self) -> dict[str, Any]:
        """Writes the table and the plot.

        Returns:
            The best trial, as its `trial.json` has it.

        Raises:
            InputError: no trial came to its end.
        """
        best = best_trial(self._study)
        if best is None:
            raise InputError(f"no trial of {self._results} came to its end; see {self._run_dir}/trial-*.log")
        self._write()
        plot_importance(importance(self._study, self._space), self._results / IMPORTANCE)
        print_line(f"best: trial {best.number}, validation MAP {short(best.value or 0.0)}, {self._results / BEST}")
        return describe(best)

    def _ask(self) -> Watched | None:
        """The next trial; None where one with the same values has ended, whose results it then has."""
        import optuna

        left_out = repeated_trials(self._study)
        trials = [trial for trial in self._study.get_trials(deepcopy=False) if trial.number not in left_out]
        begun = sum(1 for trial in trials if trial.state != optuna.trial.TrialState.WAITING)
        # What a trial draws depends on the seed, its place and the trials before it, not on when the search was
        # interrupted.
        seed = int(json_sha256([self._fixed["seed"], begun])[:8], 16)
        self._study.sampler = optuna.samplers.TPESampler(seed=seed)
        trial = self._study.ask()
        name = trial_name(trial.number)
        flags = suggest(trial, self._space, {**self._fixed, "run_dir": str(self._run_dir / name)})
        settings = " ".join(f"{one}={setting_text(value)}" for one, value in trial.params.items())
        states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
        for other in self._study.get_trials(deepcopy=False, states=states):
            if other.params == trial.params:
                for epoch, map_ in other.intermediate_values.items():
                    trial.report(map_, epoch)
                for attribute in ("epoch", "seconds"):
                    trial.set_user_attr(attribute, other.user_attrs[attribute])
                trial.set_user_attr("same_as", other.user_attrs.get("same_as", other.number))
                self._tell(trial.number, other.state, other.value)
                print_line(f"trial {trial.number}: {settings}: the same as trial {other.number}")
                return None
        before = self._run_dir / trial_name(trial.user_attrs.get("repeats", trial.number))
        if before != self._run_dir / name and before.is_dir():
            os.rename(before, self._run_dir / name)
        print_line(f"trial {trial.number}: {settings}")
        return Watched(trial, flags, self._run_dir / name / run_directory.HISTORY)

    def _tell(self, number: int, state: "optuna.trial.TrialState", map_: float | None) -> None:
        from optuna.trial import TrialState

        # Of a pruned trial Optuna takes the last value itself.
        self._study.tell(number, map_ if state == TrialState.COMPLETE else None, state)

    def _end(self, watched: Watched, child: Child) -> None:
        """Keeps what a training that has ended left, and tells Optuna."""
        from optuna.trial import TrialState

        trial, code, was_stopped = watched.trial, child.process.returncode, watched.is_pruned
        watched.look()
        state = TrialState.FAIL
        if watched.maps and code == 0:
            state = TrialState.COMPLETE
        elif was_stopped:
            state = TrialState.PRUNED
        log = Path(str(child.log.name))
        epoch = watched.best_epoch if watched.maps else 0
        trial.set_user_attr("seconds", round(child.seconds, 1))
        trial.set_user_attr("epoch", epoch)
        self._keep(watched, state)
        self._tell(trial.number, state, watched.maps.get(epoch))
        minutes = f"{child.seconds / 60:.1f} minutes"
        if state == TrialState.FAIL:
            self._failures += 1
            print_line(f"trial {trial.number}: failed with {code} after {minutes}, see {log}")
            if self._failures == _MOST_FAILURES:
                raise InputError(
                    f"{self._failures} trainings in a row failed, the last one with {code} (see {log}); mend what it "
                    "says and run the same command again"
                )
            return
        self._failures = 0
        what = f"stopped at epoch {max(watched.maps)}, best" if state == TrialState.PRUNED else "ended, best"
        print_line(f"trial {trial.number}: {what} MAP {short(watched.maps[epoch])} (epoch {epoch}), {minutes}")
        self._remove_weights()
        self._write()

    def _keep(self, watched: Watched, state: "optuna.trial.TrialState") -> None:
        target = self._results / trial_name(watched.trial.number)
        with atomic_directory(target, replace=True) as temporary:
            write_text(temporary / run_directory.FLAGS, flag_lines(watched.flags))
            if watched.history.is_file():
                (temporary / run_directory.HISTORY).write_bytes(watched.history.read_bytes())
            frozen = self._study.get_trials(deepcopy=False)[watched.trial.number]
            maps = {"state": state.name.lower(), "map": max(watched.maps.values(), default=None)}
            write_json(temporary / TRIAL, {**describe(frozen), **maps})

    def _remove_weights(self) -> None:
        best = best_trial(self._study)
        for trial in self._study.get_trials(deepcopy=False):
            if trial.state.is_finished() and (best is None or trial.number != best.number):
                run = self._run_dir / trial_name(trial.number)
                for name in (run_directory.WEIGHTS, run_directory.CHECKPOINT):
                    remove(run / name)

    def _write(self) -> None:
        """Writes the table and the best trial's flagfile as they are now."""
        best = best_trial(self._study)
        if best is None:
            return
        params = {name: value for name, value in self._fixed.items() if name not in ("run_dir", "force")}
        lines = flag_lines({**params, **best.params})
        said = (
            f"# Trial {best.number} of {self._results}: validation MAP {short(best.value or 0.0)} in epoch "
            f"{best.user_attrs['epoch']}.\n# For the test part add --split=test and that epoch as --epochs.\n"
        )
        write_text(self._results / BEST, said + lines)
        write_text(self._results / TRIALS, trials_table(self._study, self._space, self._fixed))


def trial_name(number: int) -> str:
    """Name of a trial's directories."""
    return f"trial-{number:04d}"


if __name__ == "__main__":
    command_line.run(tune)

"""What the study of a search shows: which trials count, the best one, the table, the importance of the flags."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipelines.report import head, picture, row, short
from pipelines.search_space import SearchSpace, Value
from rd_tf import run_directory
from rd_tf.command_line import default_flags, flag_lines
from rd_tf.train import train

if TYPE_CHECKING:
    import optuna

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

"""Refuses to publish a model that ranks worse than it may."""

import math
import os
import re
from collections.abc import Mapping, Sequence

from rd_tf.evaluation.metrics import AT_CUTOFF
from rd_tf.serving.measured import Measured, measured_run, measured_version
from rd_tf.serving.publishing import versions
from rd_tf.storage import InputError

LAST = "last"
# So that a value at the bound passes whichever way a product of decimals is rounded.
_ROUNDING = 1e-9
_METRIC = re.compile(rf"map|(?:{'|'.join(AT_CUTOFF)})@[1-9][0-9]*")


def parse_min_metric_ratio(values: Sequence[str]) -> dict[str, float]:
    """Reads --min_metric_ratio.

    Args:
        values: `metric:ratio` each.

    Returns:
        Metric -> the least share of the reference's value.

    Raises:
        InputError: no such metric, one that stands twice, or a ratio that is no finite number above 0.
    """
    given, ratios = ",".join(values), {}
    for value in values:
        metric, colon, text = (part.strip() for part in value.partition(":"))
        if not colon:
            raise InputError(f"--min_metric_ratio={given}: {value!r} is not metric:ratio, such as map:0.98")
        if _METRIC.fullmatch(metric) is None:
            names = ", ".join(f"{name}@n" for name in AT_CUTOFF)
            raise InputError(f"--min_metric_ratio={given}: {metric!r} is no metric; choose from map, {names}")
        if metric in ratios:
            raise InputError(f"--min_metric_ratio={given}: {metric} stands twice")
        try:
            ratio = float(text)
        except ValueError:
            raise InputError(f"--min_metric_ratio={given}: the ratio {text!r} of {metric} is not a number") from None
        if not (math.isfinite(ratio) and ratio > 0):
            raise InputError(f"--min_metric_ratio={given}: the ratio {text} of {metric} is not a number above 0")
        ratios[metric] = ratio
    return ratios


def find_reference(gate_against: str, directory: str | os.PathLike[str]) -> Measured | None:
    """What a model is held against.

    Args:
        gate_against: a run directory; "" or "last" for the highest version of the served model.
        directory: the served model's directory.

    Returns:
        None where "last" is asked for and there is no version yet.

    Raises:
        InputError: no finished run, or the last version has no usable report.
    """
    if gate_against not in ("", LAST):
        return measured_run(gate_against, "gate_against")
    found = versions(directory)
    return measured_version(found[-1]) if found else None


def check_gate(candidate: Measured, reference: Measured, ratios: Mapping[str, float]) -> None:
    """Refuses a model that is worse than a share of the reference.

    Args:
        candidate: the model to publish.
        reference: what it is held against.
        ratios: see `parse_min_metric_ratio`.

    Raises:
        InputError: a metric is too low, was not measured, or was measured on another dataset or split.
    """
    if not ratios:
        return
    for what, mine, theirs in (
        ("dataset", candidate.dataset[:16], reference.dataset[:16]),
        ("split", candidate.split, reference.split),
    ):
        if mine != theirs:
            raise InputError(
                f"{candidate.source} was measured on the {what} {mine}, but {reference.source} on {theirs}, so they "
                "cannot be compared; name another run by --gate_against"
            )
    given = ",".join(f"{metric}:{ratio:g}" for metric, ratio in ratios.items())
    for metric, ratio in ratios.items():
        for measured in (candidate, reference):
            if metric not in measured.metrics:
                raise InputError(
                    f"--min_metric_ratio={given}: {measured.source} has no {metric}, only {', '.join(measured.metrics)}"
                )
        own, other = candidate.metrics[metric], reference.metrics[metric]
        if own < ratio * other * (1 - _ROUNDING):
            share = f"{own / other:.4f} times " if other else ""
            raise InputError(
                f"--min_metric_ratio={given}: {metric} of {candidate.source} is {own:.6g}, {share}the {other:.6g} of "
                f"{reference.source}; at least {ratio:g} times that, {ratio * other:.6g}, is asked for, so nothing is "
                "published"
            )

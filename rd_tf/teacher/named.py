"""Teachers as a command names them: run directories and teachers that are solved, alone or several fused."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from rd_tf import run_directory
from rd_tf.data.windows import Dataset, SplitData
from rd_tf.evaluation.evaluator import Evaluator
from rd_tf.flag_definitions import CHOOSING_SPLITS, SOLVED_TEACHERS
from rd_tf.storage import InputError
from rd_tf.teacher.linear import PopularityTeacher, ease, ease_cost, item_knn, solved_fingerprint
from rd_tf.teacher.scoring import FusedTeacher, RankerTeacher, Teacher, evaluate_teacher, fused_fingerprint

# Values of ease's lambda that are tried first; the search goes on beyond an end that is the best.
EASE_L2 = (100.0, 200.0, 400.0)
_LEAST_L2, _LARGEST_L2 = 1.0, 1e5
# Shares that a search of fusion weights gives to one teacher more.
_SHARES = (0.15, 0.3, 0.5, 0.7, 0.85)
Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class TeacherNames:
    """What a command says of its teachers.

    Attributes:
        names: run directories and names in `SOLVED_TEACHERS`.
        fusion: "zscore" or "rrf"; of one teacher it says nothing.
        weights: one a teacher; none for equal ones.
        ease_l2: lambda of `ease`; 0 for the best one on the validation split.
    """

    names: tuple[str, ...]
    fusion: str = "zscore"
    weights: tuple[float, ...] = ()
    ease_l2: float = 0.0

    @classmethod
    def parse(
        cls, teacher: str, fusion: str = "zscore", weights: Sequence[str] = (), ease_l2: float = 0.0
    ) -> "TeacherNames":
        """Reads --teacher and --fusion_weights.

        Raises:
            InputError: a name stands twice, or the weights are no numbers or don't fit.
        """
        names = tuple(name.strip() for name in teacher.split(","))
        if not all(names) or len(set(names)) < len(names):
            raise InputError(f"--teacher={teacher}: each teacher stands there once, with commas between them")
        try:
            numbers = tuple(float(text) for text in weights)
        except ValueError:
            numbers = (-1.0,)
        is_finite = all(0 <= number < float("inf") for number in numbers)
        if numbers and (len(numbers) != len(names) or not is_finite or not sum(numbers) > 0):
            raise InputError(
                f"--fusion_weights={','.join(weights)}: it takes {len(names)} numbers from 0, one a teacher, not all 0"
            )
        return cls(names, fusion, numbers, ease_l2)

    def fingerprint(self, data: SplitData) -> str:
        """The fingerprint of what `make_teacher` makes, without making it.

        Raises:
            InputError: a run cannot be used, or is of another dataset or split.
        """
        parts = []
        for name in self.names:
            if name in SOLVED_TEACHERS:
                # Whatever lambda the search finds, it finds it from these data.
                tuned = f" l2={self.ease_l2:g}" if name == "ease" else ""
                parts.append(solved_fingerprint(f"named {name}{tuned}", data))
            else:
                parts.append(_check_run(name, data)["model"]["fingerprint"])
        if len(parts) == 1:
            return parts[0]
        return fused_fingerprint(self.fusion, parts, self.weights or (1.0,) * len(parts))


def make_teacher(named: TeacherNames, data: SplitData, log: Log = print) -> Teacher:
    """Loads or solves teachers and fuses them.

    Args:
        named: the teachers.
        data: the dataset and its split.
        log: told what is solved, and what it takes.

    Returns:
        The teacher, whose fingerprint is `named.fingerprint(data)`.

    Raises:
        InputError: a run cannot be used, or a teacher does not fit into memory.
    """
    fingerprint = named.fingerprint(data)
    teachers = [_make_one(name, named, data, log) for name in named.names]
    teacher = teachers[0]
    if len(teachers) > 1:
        teacher = FusedTeacher(teachers, named.fusion, named.weights)
    teacher.fingerprint = fingerprint
    return teacher


def _make_one(name: str, named: TeacherNames, data: SplitData, log: Log) -> Teacher:
    if name == "popularity":
        return PopularityTeacher(data)
    if name == "item_knn":
        return item_knn(data)
    if name == "ease":
        l2 = named.ease_l2 or choose_ease_l2(data, log)
        return _solve_ease(data, l2, log)
    _check_run(name, data)
    from rd_tf.models.registry import load_model

    return RankerTeacher(load_model(name, "teacher"), data)


def _solve_ease(data: SplitData, l2: float, log: Log) -> Teacher:
    size = int(data.is_candidate.sum())
    needed, operations = ease_cost(size)
    log(f"ease, l2 = {l2:g}: {size:,} items, {needed / 1e9:.1f} GB, {operations / 1e12:.1f} TFLOP")
    begin = time.monotonic()
    teacher = ease(data, l2)
    log(f"ease, l2 = {l2:g}: solved in {time.monotonic() - begin:.0f} s")
    return teacher


def choose_ease_l2(data: SplitData, log: Log = print) -> float:
    """The lambda of `ease` with the best MAP on a split for choosing: that of the data or else the validation split.

    Args:
        data: the dataset.
        log: told of every trial.
    """
    validation = data if data.name in CHOOSING_SPLITS else Dataset(data.interactions).split("validation")
    evaluator, found = Evaluator(validation, 1), {}

    def quality(l2: float) -> float:
        if l2 not in found:
            found[l2] = evaluate_teacher(_solve_ease(validation, l2, lambda line: None), evaluator=evaluator).metrics[
                "map"
            ]
            log(f"ease, l2 = {l2:g}: {validation.name} MAP {found[l2]:.4f}")
        return found[l2]

    best = max(EASE_L2, key=quality)
    while best in (min(found), max(found)) and _LEAST_L2 < best < _LARGEST_L2:
        further = best / 2 if best == min(found) else best * 2
        if quality(further) <= quality(best):
            break
        best = further
    return best


def choose_weights(
    teachers: Sequence[Teacher], fusion: str, evaluator: Evaluator, log: Log = print, alone: Sequence[float] = ()
) -> tuple[tuple[float, ...], float]:
    """Weights of a fusion with the best MAP: teachers are added one by one, the best first, as long as MAP rises.

    Args:
        teachers: of the same data, at least one.
        fusion: "zscore" or "rrf".
        evaluator: of the data.
        log: told of every trial that is better than those before.
        alone: the teachers' own MAP, where they are known.

    Returns:
        The weights, which sum to 1 (0 for a teacher that does not help), and the fusion's MAP.
    """
    alone = alone or [evaluate_teacher(teacher, evaluator=evaluator).metrics["map"] for teacher in teachers]
    order = np.argsort(-np.array(alone), kind="stable")
    weights, best = np.zeros(len(teachers)), alone[order[0]]
    weights[order[0]] = 1.0
    for number in order[1:]:
        before = weights
        for share in _SHARES:
            tried = (1 - share) * before
            tried[number] = share
            fused = FusedTeacher(teachers, fusion, tried.tolist())
            found = evaluate_teacher(fused, evaluator=evaluator).metrics["map"]
            if found > best:
                weights, best = tried, found
                log(f"{fusion} {', '.join(f'{weight:.2f}' for weight in weights)}: MAP {best:.4f}")
            elif found < best and (weights != before).any():
                # MAP rises and falls once.
                break
    return tuple(round(float(weight), 4) for weight in weights), best


def _check_run(name: str, data: SplitData) -> dict:  # type: ignore[type-arg]
    if not Path(name).is_dir():
        raise InputError(
            f"--teacher={name} is neither a directory nor one of {', '.join(SOLVED_TEACHERS)}; name a "
            "teacher's run directory"
        )
    manifest = run_directory.load_run_manifest(name, "teacher")
    if manifest["dataset"]["fingerprint"] != data.fingerprint or manifest["split"] != data.name:
        raise InputError(
            f"--teacher={name} was trained on dataset {manifest['dataset']['fingerprint'][:16]}, split "
            f"{manifest['split']}, but these data are dataset {data.fingerprint[:16]}, split {data.name}; use a "
            "teacher of the same"
        )
    return manifest

"""Milliseconds of a training step and seconds of an epoch: python -m benchmarks.train_step --reference=DIR.

Measured is `rd_tf.training.trainer.Trainer` as `rd_tf.train` uses it, the tf.data input included, with the paper's
settings (Caser, L = 5, T = 1, 3 negatives, K = 10, 100 rank samples, batch 512):

    teacher           d = 100, target and negatives: 4 items a row
    student           d = 50, the same
    distillation      d = 50, 4 + 10 items, and 100 rank samples for w^b
    distillation_w_a  d = 50, 4 + 10 items, the first epochs without w^b

and from them `epoch_teacher` and `epoch_distillation`, a pass over all windows with its negatives. What an optimizer
leaves for the end of an epoch (lazy_adam brings unused rows up to date) is no part of a step; it is shown as
`<case> finish_epoch` and counted in the epochs.

Floor: `benchmarks.floors.step_work` of the rows that the batch touches, at the measured peaks. Adam's own definition
moves every row of every table in every step; --optimizer=adam prints the floor of that as `all_rows_floor` too.

The authors' side is one epoch of their `fit` over a reduced set of windows (as many random users' as make
--reference_steps batches; tables keep their full size), called again and again on one instance. The time inside their
`_generate_negative_samples` is taken apart: the rest by batches is their step, and an epoch is that step times the
steps of an epoch plus the sampling by window times all windows. They always score all 4 + 10 + 100 items, with
gradients. Their lists of unseen items are built before the clock runs, and only for the few users: both favours them.

Measured figures: docs/performance.md.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import flags
from benchmarks.harness import Measurement, Report, check_cases, check_output, measure_machine, significant, take_pairs
from benchmarks.reference_process import ReferenceProcess, reference_process
from rd_tf.data.interactions import distinct_keys
from rd_tf.runtime import import_quietly


@dataclasses.dataclass(frozen=True)
class Case:
    """One kind of training step.

    Attributes:
        dim: d.
        is_distilled: whether the teacher's lists are learned from.
        with_discrepancy: whether w^b is in the weights.
    """

    dim: int
    is_distilled: bool = False
    with_discrepancy: bool = False


CASES = {
    "teacher": Case(100),
    "student": Case(50),
    "distillation": Case(50, True, True),
    "distillation_w_a": Case(50, True, False),
}
_EPOCHS = ("teacher", "distillation")


@dataclasses.dataclass(frozen=True)
class _Settings:
    data: Any  # benchmarks.subjects.TrainingData, which imports TensorFlow
    optimizer: str
    batch_size: int
    steps: int
    steps_per_call: int
    repeats: int
    reference_steps: int
    seed: int


def train_step(
    *,
    dataset: str,
    cases: list[str],
    optimizer: str,
    batch_size: int,
    steps: int,
    steps_per_call: int,
    threads_per_operation: int,
    repeats: int,
    reference: str,
    reference_python: str,
    reference_steps: int,
    seed: int,
    output: str,
) -> None:
    """Measures training steps and epochs with the paper's settings, and with --reference the authors' beside them.

    Cases: teacher, student, distillation, distillation_w_a. Prints JSON lines and a table; the ratio is the authors'
    time by ours, the median over pairs taken in turn.
    """
    chosen = check_cases(cases, list(CASES))
    check_output(output)
    with reference_process(reference, reference_python) as authors:
        import_quietly()
        from benchmarks.subjects import load_training_data

        data = load_training_data(dataset, seed, threads_per_operation)
        report = Report("train_step", measure_machine(), output)
        settings = _Settings(data, optimizer, batch_size, steps, steps_per_call, repeats, reference_steps, seed)
        for name in chosen:
            for measurement in _measure(name, CASES[name], authors, settings):
                report.add(measurement)
        report.finish()


def _measure(name: str, case: Case, authors: ReferenceProcess | None, settings: _Settings) -> Iterator[Measurement]:
    from benchmarks.subjects import K, random_lists, step_floor

    data, seed, batch_size = settings.data, settings.seed, settings.batch_size
    lists = random_lists(len(data.windows), K, data.interactions.num_items, seed) if case.is_distilled else None
    ours = _our_steps(case, lists, settings)
    theirs = None if authors is None else _their_steps(case, authors, lists, settings)
    found, answers = take_pairs(lambda: next(ours), theirs, settings.repeats)
    floor, all_rows = step_floor(data, case.dim, batch_size, settings.optimizer, seed, lists, case.with_discrepancy)
    batches = -(-len(data.windows) // batch_size)
    step_seconds = [times.step for times in found]
    finish_seconds = [times.finish_epoch for times in found]
    # Adam by its definition moves every row.
    dense = all_rows if settings.optimizer == "adam" else None
    extra = {"optimizer": settings.optimizer, "batch_size": batch_size}
    yield Measurement(name, "ms/step", step_seconds, floor, [answer["step"] for answer in answers], dense, extra)
    if settings.optimizer == "lazy_adam":
        yield Measurement(f"{name} finish_epoch", "ms/epoch", finish_seconds)
    if name in _EPOCHS:
        yield Measurement(
            f"epoch_{name}",
            "s/epoch",
            [times.step * batches + times.finish_epoch for times in found],
            floor * batches,
            [answer["step"] * batches + answer["sampling_per_window"] * len(data.windows) for answer in answers],
            extra={
                "steps": batches,
                "windows": len(data.windows),
                "reference_sampling_ms_per_step": [
                    significant(answer["sampling_per_window"] * batch_size * 1e3) for answer in answers
                ],
            },
        )


def _our_steps(case: Case, lists: np.ndarray | None, settings: _Settings) -> Iterator[Any]:
    from benchmarks import subjects
    from rd_tf.training.step import Distillation

    data, seed, repeats = settings.data, settings.seed, settings.repeats + 1
    model = subjects.make_caser(data.interactions, case.dim, seed)
    distillation = None
    if case.is_distilled:
        # Counted in epochs: from the first one on, or never.
        distillation = Distillation(discrepancy_start_epoch=0 if case.with_discrepancy else repeats)
    batches = subjects.make_batches(data, settings.batch_size, settings.steps, seed, lists)
    optimizer = subjects.make_built_optimizer(settings.optimizer, model)
    return subjects.time_steps(model, optimizer, batches, distillation, settings.steps_per_call, repeats)


def _their_steps(
    case: Case, authors: ReferenceProcess, lists: np.ndarray | None, settings: _Settings
) -> Callable[[], dict[str, float]]:
    from benchmarks import subjects

    data, batch_size = settings.data, settings.batch_size
    arrays = reduced_training_set(data, settings.reference_steps * batch_size, lists, settings.seed)
    windows = len(arrays["users"])
    named = {
        "num_users": data.interactions.num_users,
        "num_item_rows": data.interactions.num_item_rows,
        "dim": case.dim,
        "batch_size": batch_size,
        "negatives": subjects.NEGATIVES,
        "learning_rate": subjects.LEARNING_RATE,
        "l2": subjects.L2,
    }
    if case.is_distilled:
        distilled = {"k": subjects.K, "rank_samples": subjects.RANK_SAMPLES, "with_discrepancy": case.with_discrepancy}
        authors.make("distillation", arrays, **named, **distilled)
    else:
        authors.make("training", arrays, **named)

    def run() -> dict[str, float]:
        answer = authors.run()
        step = (answer["seconds"] - answer["sampling"]) / -(-windows // batch_size)
        return {"step": step, "sampling_per_window": answer["sampling"] / windows}

    return run


def reduced_training_set(data: Any, count: int, lists: np.ndarray | None, seed: int) -> dict[str, np.ndarray]:
    """The windows of some random users, who are numbered anew from 0.

    Args:
        data: a `benchmarks.subjects.TrainingData`.
        count: windows to take, or all where there are fewer.
        lists: `[windows, K] int32`, the teacher's, or None.
        seed: of the users.

    Returns:
        `users`, `sequences`, `targets`, `seen` and `seen_offsets` (the users' items one after another) and `lists`.
    """
    windows, world = data.windows, data.interactions
    by_user = np.bincount(windows.users, minlength=world.num_users)
    order = np.random.default_rng(seed).permutation(world.num_users)
    needed = int(np.searchsorted(np.cumsum(by_user[order]), count)) + 1
    chosen = np.sort(order[:needed])
    rows = np.flatnonzero(np.isin(windows.users, chosen))[:count]
    train = data.split.train & np.isin(world.users, chosen)
    keys = distinct_keys(np.searchsorted(chosen, world.users[train]), world.items[train], world.num_item_rows)
    owners, seen = np.divmod(keys, world.num_item_rows)
    arrays = {
        "users": np.searchsorted(chosen, windows.users[rows]),
        "sequences": windows.sequences[rows],
        "targets": windows.targets[rows],
        "seen": seen,
        "seen_offsets": np.searchsorted(owners, np.arange(len(chosen) + 1)),
    }
    return arrays if lists is None else {**arrays, "lists": lists[rows]}


if __name__ == "__main__":
    flags.run(train_step)

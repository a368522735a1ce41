"""Training steps, the teacher's lists and evaluations beside their floors: python -m benchmarks.speed --reference=DIR.

With the paper's settings (Caser, L = 5, T = 1, 3 negatives, K = 10, 100 rank samples, batch 512) and random weights:

    teacher           a training step, d = 100, target and negatives: 4 items a row
    student           d = 50, the same
    distillation      d = 50, 4 + 10 items, and 100 rank samples for w^b
    distillation_w_a  d = 50, 4 + 10 items, the first epochs without w^b
    listwise          d = 50, sampled softmax, list-wise distillation: 1 + 50 items, 1,000 negatives shared by a batch
    k=10, k=100       the teacher's lists for 1,000 windows, d = 100, only the window's own target masked
    d=100, d=50       an evaluation of 1,000 users and of all users over all items

Steps are those of `rd_tf.training.loop.Trainer`, the tf.data input included. `epoch_teacher` and
`epoch_distillation` follow from them, a pass over all windows with its negatives. What an optimizer leaves for the end
of an epoch (lazy_adam brings unused rows up to date) is no part of a step; it is shown as `<case> finish_epoch` and
counted in the epochs. Lists are those of `rd_tf.teacher.scoring.TopK`, evaluations those of
`rd_tf.evaluation.evaluator.Evaluator`; with --epoch_seconds an evaluation's share of that epoch is printed too.

Floors, at the measured peaks: of a step, `benchmarks.subjects.step_work` of the rows that the batch touches (Adam's own
definition moves every row of every table: --optimizer=adam prints the floor of that as `all_rows_floor` too); of lists
and evaluations `benchmarks.subjects.ranking_work`, the matrix products and the item table read once a block. Selecting,
masking, counting and the scores' own way through memory are not in it.

The authors' side, a repeat of each in turn:

    steps        one epoch of their `fit` over the windows of as many random users as make --reference_steps batches;
                 tables keep their full size. The time inside their `_generate_negative_samples` is taken apart: the
                 rest by batches is their step, and an epoch is that step times the steps of an epoch plus the sampling
                 by window times all windows. They always score all 4 + 10 + 100 items, with gradients. Their lists of
                 unseen items are built before the clock runs, and only for the few users: both favours them.
    lists        their `_get_teacher_topk` over --reference_windows windows, 16 at a time as it does
    evaluations  their `evaluate_ranking` with the cutoffs 3, 5 and 10 for --reference_users random users

Measured figures: docs/performance.md.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.reference import ReferenceProcess, reference_process
from benchmarks.report import (
    Measurement,
    Report,
    check_cases,
    check_optimizer,
    check_output,
    measure_machine,
    run_benchmark,
    seconds_of,
    significant,
    take_pairs,
)
from rd_tf.data.interactions import distinct_keys
from rd_tf.runtime import import_quietly
from rd_tf.storage import InputError


@dataclasses.dataclass(frozen=True)
class Step:
    """One kind of training step.

    Attributes:
        dim: d.
        is_distilled: whether the teacher's lists are learned from.
        with_discrepancy: whether w^b is in the weights.
        is_listwise: whether the losses are sampled softmax and list-wise distillation, not the paper's.
    """

    dim: int
    is_distilled: bool = False
    with_discrepancy: bool = False
    is_listwise: bool = False


STEPS = {
    "teacher": Step(100),
    "student": Step(50),
    "distillation": Step(50, True, True),
    "distillation_w_a": Step(50, True, False),
    "listwise": Step(50, True, False, True),
}
# Case -> K.
LISTS = {"k=10": 10, "k=100": 100}
# Case -> d.
EVALUATIONS = {"d=100": 100, "d=50": 50}
_EPOCHS = ("teacher", "distillation")
_TEACHER_DIM = 100
_CUTOFFS = (3, 5, 10)
_PER = 1000


@dataclasses.dataclass(frozen=True)
class _Settings:
    data: Any  # benchmarks.subjects.TrainingData, which imports TensorFlow
    optimizer: str
    batch_size: int
    steps: int
    steps_per_call: int
    windows: int
    block_size: int
    epoch_seconds: float
    repeats: int
    reference_steps: int
    reference_windows: int
    reference_users: int
    seed: int

    @property
    def table_sizes(self) -> dict[str, int]:
        """As the authors' code takes them."""
        world = self.data.interactions
        return {"num_users": world.num_users, "num_item_rows": world.num_item_rows}


def speed(
    *,
    dataset: str,
    cases: list[str],
    optimizer: str,
    batch_size: int,
    steps: int,
    steps_per_call: int,
    threads_per_operation: int,
    windows: int,
    block_size: int,
    epoch_seconds: float,
    repeats: int,
    reference: str,
    reference_python: str,
    reference_steps: int,
    reference_windows: int,
    reference_users: int,
    seed: int,
    output: str,
) -> None:
    """Measures training steps, the teacher's lists and evaluations, and with --reference the authors' beside them.

    Cases: teacher, student, distillation, distillation_w_a, listwise (steps and epochs), k=10, k=100 (lists), d=100,
    d=50 (evaluations). Prints JSON lines and a table; the ratio is the authors' time by ours, the median over pairs
    taken in turn.
    """
    chosen = check_cases(cases, [*STEPS, *LISTS, *EVALUATIONS])
    check_output(output)
    check_optimizer(optimizer)
    with reference_process(reference, reference_python) as authors:
        import_quietly()
        from benchmarks.subjects import load_training_data

        data = load_training_data(dataset, seed, threads_per_operation)
        for case in chosen:
            # The authors' code sorts out 2 K items of a window.
            if 2 * LISTS.get(case, 0) > data.interactions.num_items:
                raise InputError(
                    f"--dataset={dataset} has only {data.interactions.num_items} items, too few for the case {case}"
                )
        settings = _Settings(
            data,
            optimizer,
            batch_size,
            steps,
            steps_per_call,
            windows,
            block_size,
            epoch_seconds,
            repeats,
            reference_steps,
            reference_windows,
            reference_users,
            seed,
        )
        report = Report("speed", measure_machine(), output)
        for case in chosen:
            measure = _measure_steps if case in STEPS else _measure_lists if case in LISTS else _measure_evaluation
            for measurement in measure(case, authors, settings):
                report.add(measurement)
        report.finish()


def _measure_steps(name: str, authors: ReferenceProcess | None, settings: _Settings) -> Iterator[Measurement]:
    from benchmarks.subjects import LISTWISE_K, SHARED_NEGATIVES, K, random_lists, step_floor

    case = STEPS[name]
    data, seed, batch_size = settings.data, settings.seed, settings.batch_size
    k = LISTWISE_K if case.is_listwise else K
    lists = random_lists(len(data.windows), k, data.interactions.num_items, seed) if case.is_distilled else None
    ours = _our_steps(case, lists, settings)
    # The authors' code has no such loss.
    theirs = None if authors is None or case.is_listwise else _their_steps(case, authors, lists, settings)
    found, answers = take_pairs(lambda: next(ours), theirs, settings.repeats)
    shared = SHARED_NEGATIVES if case.is_listwise else 0
    floor, all_rows = step_floor(
        data, case.dim, batch_size, settings.optimizer, seed, lists, case.with_discrepancy, shared
    )
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


def _our_steps(case: Step, lists: np.ndarray | None, settings: _Settings) -> Iterator[Any]:
    from benchmarks import subjects

    data, seed, repeats = settings.data, settings.seed, settings.repeats + 1
    model = subjects.make_caser(data.interactions, case.dim, seed)
    with_student_rank = case.with_discrepancy if case.is_distilled else None
    if case.is_listwise:
        assert lists is not None
        batches = subjects.make_listwise_batches(data, settings.batch_size, settings.steps, seed, lists)
    else:
        batches = subjects.make_batches(data, settings.batch_size, settings.steps, seed, lists)
    optimizer = subjects.make_built_optimizer(settings.optimizer, model)
    settled = optimizer, batches, with_student_rank, settings.steps_per_call, repeats, case.is_listwise
    return subjects.time_steps(model, *settled)


def _their_steps(
    case: Step, authors: ReferenceProcess, lists: np.ndarray | None, settings: _Settings
) -> Callable[[], dict[str, float]]:
    from benchmarks import subjects

    data, batch_size = settings.data, settings.batch_size
    arrays = reduced_training_set(data, settings.reference_steps * batch_size, lists, settings.seed)
    windows = len(arrays["users"])
    named = {
        **settings.table_sizes,
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


def _measure_lists(name: str, authors: ReferenceProcess | None, settings: _Settings) -> Iterator[Measurement]:
    from benchmarks.subjects import CaserSizes, make_caser, ranking_work, some_windows

    data, k, block_size = settings.data, LISTS[name], settings.block_size
    model = make_caser(data.interactions, _TEACHER_DIM, settings.seed)
    some = some_windows(data.windows, settings.windows, settings.seed)
    theirs = None if authors is None else _their_lists(authors, k, settings)
    ours, answers = take_pairs(our_lists(model, some, data.seen, k, block_size), theirs, settings.repeats)
    floor = ranking_work(CaserSizes(_TEACHER_DIM), _PER, data.interactions.num_item_rows, block_size)
    extra = {"windows": len(some), "block_size": block_size, "items": data.interactions.num_items}
    yield Measurement(name, "s/1,000 windows", ours, floor, answers, extra=extra)


def our_lists(model: Any, windows: Any, seen: Any, k: int, block_size: int) -> Callable[[], float]:
    """A repeat of ours: seconds for 1,000 windows."""
    from rd_tf.teacher.scoring import TopK

    lists = TopK(model, windows, seen, k, "target", block_size)
    items = np.zeros((len(windows), k), np.int32)
    scores = np.zeros((len(windows), k), np.float16)

    def store(first: int, block_items: np.ndarray, block_scores: np.ndarray) -> None:
        items[first : first + len(block_items)] = block_items
        scores[first : first + len(block_scores)] = block_scores

    return lambda: seconds_of(lambda: lists.all_lists(store, lambda _: None)) / len(windows) * _PER


def _their_lists(authors: ReferenceProcess, k: int, settings: _Settings) -> Callable[[], float]:
    from benchmarks.subjects import some_windows

    windows = some_windows(settings.data.windows, settings.reference_windows, settings.seed)
    arrays = {
        "users": windows.users,
        "sequences": windows.sequences,
        "targets": windows.targets,
        "seen": np.zeros(0, np.int32),
        "seen_offsets": np.zeros(1, np.int32),
    }
    authors.make("top_k", arrays, **settings.table_sizes, dim=_TEACHER_DIM, k=k)
    return lambda: authors.run()["seconds"] / len(windows) * _PER


def _measure_evaluation(name: str, authors: ReferenceProcess | None, settings: _Settings) -> Iterator[Measurement]:
    from benchmarks.subjects import SEQUENCE_LENGTH, CaserSizes, make_caser, ranking_work
    from rd_tf.data.windows import SplitData
    from rd_tf.evaluation.evaluator import Evaluator

    data, dim, block_size = settings.data, EVALUATIONS[name], settings.block_size
    evaluator = Evaluator(SplitData(data.interactions, data.split), SEQUENCE_LENGTH, _CUTOFFS, block_size)
    users = evaluator.held_out.counts["users"]
    model = make_caser(data.interactions, dim, settings.seed)
    theirs = None if authors is None else _their_evaluation(authors, dim, settings)
    ours, answers = take_pairs(lambda: seconds_of(lambda: evaluator.evaluate(model)), theirs, settings.repeats)
    floor = ranking_work(CaserSizes(dim), users, data.interactions.num_item_rows, block_size)
    extra: dict[str, float] = {"users": users, "items": data.interactions.num_items, "block_size": block_size}
    per = [seconds / users * _PER for seconds in ours]
    yield Measurement(f"{name} users", "s/1,000 users", per, floor * (_PER / users), answers, extra=extra)
    if settings.epoch_seconds:
        extra["share_of_epoch"] = significant(float(np.median(ours)) / settings.epoch_seconds)
    whole = [answer / _PER * users for answer in answers]
    yield Measurement(f"{name} all", "s", ours, floor, whole, extra=extra)


def _their_evaluation(authors: ReferenceProcess, dim: int, settings: _Settings) -> Callable[[], float]:
    from benchmarks.subjects import SEQUENCE_LENGTH

    arrays = some_users(settings.data, SEQUENCE_LENGTH, settings.reference_users, settings.seed)
    evaluated = len(arrays["sequences"])
    authors.make("evaluation", arrays, **settings.table_sizes, dim=dim, cutoffs=list(_CUTOFFS))
    return lambda: authors.run()["seconds"] / evaluated * _PER


def some_users(data: Any, sequence_length: int, count: int, seed: int) -> dict[str, np.ndarray]:
    """What it takes to evaluate some random users, who are numbered anew from 0.

    Args:
        data: a `benchmarks.subjects.TrainingData`.
        sequence_length: L.
        count: users, or all that have a held-out item where those are fewer.
        seed: of the choice.

    Returns:
        `sequences` `[users, L]`; `seen` and `targets`, the users' distinct items one after another, and where each
        user's begin, `seen_offsets` and `target_offsets` `[users + 1]`.
    """
    from rd_tf.data.windows import SplitData
    from rd_tf.evaluation.held_out import make_held_out

    held_out = make_held_out(SplitData(data.interactions, data.split), sequence_length)
    size = min(count, len(held_out.users))
    rows = np.sort(np.random.default_rng(seed).choice(len(held_out.users), size, replace=False))
    seen, seen_offsets = _cut(held_out.seen, held_out.seen_offsets, rows)
    targets, target_offsets = _cut(held_out.targets, held_out.target_offsets, rows)
    return {
        "sequences": held_out.sequences[rows],
        "seen": seen,
        "seen_offsets": seen_offsets,
        "targets": targets,
        "target_offsets": target_offsets,
    }


def _cut(values: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    parts = [values[offsets[row] : offsets[row + 1]] for row in rows]
    return np.concatenate(parts), np.concatenate([[0], np.cumsum([len(part) for part in parts])])


if __name__ == "__main__":
    run_benchmark(speed)

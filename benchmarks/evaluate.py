"""Seconds of an evaluation over the full catalogue: python -m benchmarks.evaluate --reference=DIR.

Measured is `rd_tf.evaluation.evaluator.Evaluator.evaluate` of a random Caser for all users of the test split: every
item scored, the user's training items excluded, ranks of the held-out items, all metrics. Cases `d=100` and `d=50`, a
line for 1,000 users and one for all users each. With --epoch_seconds a share of that epoch is printed too.

Floor: `benchmarks.floors.ranking_work`, the matrix products and the item table read once a block, at the measured
peaks. Counting ranks and the scores' own way through memory are not in it.

The authors' side is their `evaluate_ranking` with the cutoffs 3, 5 and 10 for --reference_users random users, scaled
to all users.

Measured figures: docs/performance.md.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import flags
from benchmarks.floors import CaserSizes, ranking_work
from benchmarks.harness import (
    Measurement,
    Report,
    check_cases,
    check_output,
    measure_machine,
    seconds_of,
    significant,
    take_pairs,
)
from benchmarks.reference_process import ReferenceProcess, reference_process
from rd_tf.runtime import import_quietly

CASES = {"d=100": 100, "d=50": 50}
_CUTOFFS = (3, 5, 10)
_PER = 1000


def evaluate(
    *,
    dataset: str,
    cases: list[str],
    block_size: int,
    epoch_seconds: float,
    repeats: int,
    reference: str,
    reference_python: str,
    reference_users: int,
    seed: int,
    output: str,
) -> None:
    """Measures an evaluation of all users over all items, and with --reference the authors' beside it.

    Cases: d=100, d=50. Prints JSON lines and a table; the ratio is the authors' time by ours, the median over pairs
    taken in turn.
    """
    chosen = check_cases(cases, list(CASES))
    check_output(output)
    with reference_process(reference, reference_python) as authors:
        import_quietly()
        from benchmarks.subjects import SEQUENCE_LENGTH, load_training_data, make_caser
        from rd_tf.evaluation.evaluator import Evaluator

        data = load_training_data(dataset, seed)
        report = Report("evaluate", measure_machine(), output)
        evaluator = Evaluator(data.interactions, data.split, SEQUENCE_LENGTH, _CUTOFFS, block_size)
        users = evaluator.held_out.counts["users"]
        for case in chosen:
            dim = CASES[case]
            model = make_caser(data.interactions, dim, seed)
            theirs = None if authors is None else _their_evaluation(authors, data, dim, reference_users, seed)
            ours, answers = take_pairs(our_evaluation(evaluator, model), theirs, repeats)
            floor = ranking_work(CaserSizes(dim), users, data.interactions.num_item_rows, block_size)
            extra: dict[str, float] = {"users": users, "items": data.interactions.num_items, "block_size": block_size}
            per = [seconds / users * _PER for seconds in ours]
            report.add(Measurement(f"{case} users", "s/1,000 users", per, floor * (_PER / users), answers, extra=extra))
            if epoch_seconds:
                extra["share_of_epoch"] = significant(float(np.median(ours)) / epoch_seconds)
            whole = [answer / _PER * users for answer in answers]
            report.add(Measurement(f"{case} all", "s", ours, floor, whole, extra=extra))
        report.finish()


def our_evaluation(evaluator: Any, model: Any) -> Callable[[], float]:
    """A repeat of ours: seconds of `Evaluator.evaluate`."""
    return lambda: seconds_of(lambda: evaluator.evaluate(model))


def _their_evaluation(authors: ReferenceProcess, data: Any, dim: int, count: int, seed: int) -> Callable[[], float]:
    from benchmarks.subjects import SEQUENCE_LENGTH

    arrays = some_users(data, SEQUENCE_LENGTH, count, seed)
    evaluated = len(arrays["sequences"])
    sizes = {"num_users": data.interactions.num_users, "num_item_rows": data.interactions.num_item_rows}
    authors.make("evaluation", arrays, **sizes, dim=dim, cutoffs=list(_CUTOFFS))
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
    from rd_tf.evaluation.held_out import make_held_out

    held_out = make_held_out(data.interactions, data.split, sequence_length)
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
    flags.run(evaluate)

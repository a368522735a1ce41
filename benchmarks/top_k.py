"""Seconds of the teacher's top-K for 1,000 windows: python -m benchmarks.top_k --reference=DIR.

Measured is `rd_tf.teacher.top_k.TopK.all_lists` of a random Caser (d = 100) over --windows random windows of the world,
only the window's own target masked (the paper), into arrays in memory; cases `k=10` and `k=100`.

Floor: `benchmarks.floors.ranking_work`, the matrix products and the item table read once a block, at the measured
peaks. Keeping the best K of 14,010 scores, their masking and the scores' own way through memory are not in it.

The authors' side is their `_get_teacher_topk` over --reference_windows windows, 16 at a time as it does.

Measured figures: docs/performance.md.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import flags
from benchmarks.floors import CaserSizes, ranking_work
from benchmarks.harness import Measurement, Report, check_cases, check_output, measure_machine, seconds_of, take_pairs
from benchmarks.reference_process import ReferenceProcess, reference_process
from rd_tf.runtime import import_quietly
from rd_tf.storage import InputError

CASES = {"k=10": 10, "k=100": 100}
_DIM = 100
_PER = 1000


def top_k(
    *,
    dataset: str,
    cases: list[str],
    windows: int,
    block_size: int,
    repeats: int,
    reference: str,
    reference_python: str,
    reference_windows: int,
    seed: int,
    output: str,
) -> None:
    """Measures the teacher's lists for 1,000 windows (d = 100), and with --reference the authors' beside them.

    Cases: k=10, k=100. Prints JSON lines and a table; the ratio is the authors' time by ours, the median over pairs
    taken in turn.
    """
    chosen = check_cases(cases, list(CASES))
    check_output(output)
    with reference_process(reference, reference_python) as authors:
        import_quietly()
        from benchmarks.subjects import load_training_data, make_caser, some_windows

        data = load_training_data(dataset, seed)
        num_items = data.interactions.num_items
        for case in chosen:
            # The authors' code sorts out 2 K items of a window.
            if 2 * CASES[case] > num_items:
                raise InputError(f"--dataset={dataset} has only {num_items} items, too few for the case {case}")
        report = Report("top_k", measure_machine(), output)
        model = make_caser(data.interactions, _DIM, seed)
        some = some_windows(data.windows, windows, seed)
        for case in chosen:
            k = CASES[case]
            theirs = None if authors is None else _their_lists(authors, data, reference_windows, k, seed)
            ours, answers = take_pairs(our_lists(model, some, data.seen, k, block_size), theirs, repeats)
            floor = ranking_work(CaserSizes(_DIM), _PER, data.interactions.num_item_rows, block_size)
            extra = {"windows": len(some), "block_size": block_size, "items": num_items}
            report.add(Measurement(case, "s/1,000 windows", ours, floor, answers, extra=extra))
        report.finish()


def our_lists(model: Any, windows: Any, seen: Any, k: int, block_size: int) -> Callable[[], float]:
    """A repeat of ours: seconds for 1,000 windows.

    Args:
        model: the ranker.
        windows: `Windows` to list for.
        seen: `UserItems`.
        k: K.
        block_size: windows a matrix product.
    """
    from rd_tf.teacher.top_k import TopK

    lists = TopK(model, windows, seen, k, "target", block_size)
    items = np.zeros((len(windows), k), np.int32)
    scores = np.zeros((len(windows), k), np.float16)

    def store(first: int, block_items: np.ndarray, block_scores: np.ndarray) -> None:
        items[first : first + len(block_items)] = block_items
        scores[first : first + len(block_scores)] = block_scores

    return lambda: seconds_of(lambda: lists.all_lists(store, lambda _: None)) / len(windows) * _PER


def _their_lists(authors: ReferenceProcess, data: Any, count: int, k: int, seed: int) -> Callable[[], float]:
    from benchmarks.subjects import some_windows

    windows = some_windows(data.windows, count, seed)
    arrays = {
        "users": windows.users,
        "sequences": windows.sequences,
        "targets": windows.targets,
        "seen": np.zeros(0, np.int32),
        "seen_offsets": np.zeros(1, np.int32),
    }
    sizes = {"num_users": data.interactions.num_users, "num_item_rows": data.interactions.num_item_rows}
    authors.make("top_k", arrays, **sizes, dim=_DIM, k=k)
    return lambda: authors.run()["seconds"] / len(windows) * _PER


if __name__ == "__main__":
    flags.run(top_k)

"""From check-ins to a student at a given MAP: python -m benchmarks.time_to_quality --repeats=1.

The stages, timed one after another, as a user runs them by hand:

    prepare   reads the check-ins and writes the dataset directory
    teacher   solves EASE (--ease_l2, no search) from the training rows of the test split, and lists K items a user
    student   trains Caser, d = --student_dim, with sampled softmax and list-wise distillation, epoch by epoch, until
              MAP on the test split reaches --target; the looks at the test split are no part of the time, and nothing
              is chosen by them but where the clock stops
    all       the three together

The default data are Gowalla as the paper has it, and the target is the MAP that the paper reports for its distilled
Caser, .0969 (Tang & Wang, KDD 2018, table 2).

Beside `all` stand the authors' epochs times their measured epoch: 50 of the teacher and 50 of the student, on the
machine of results/benchmarks/train_step.jsonl, whose lines are read; their evaluation and their top-K are left out,
which favours them.

Floor of `all`: the arithmetic of the inverse (n^3 multiply-adds for n items) and of the matrix products of the steps
(forward and backward, 6 operations a weight and row), at the measured peak.

Measured figures: docs/performance.md.
"""

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.report import Measurement, Report, Work, check_output, flag, measure_machine, run_benchmark, significant
from rd_tf.command_line import choose, default_flags
from rd_tf.prepare import prepare
from rd_tf.runtime import import_quietly, share_cores
from rd_tf.storage import InputError

_AUTHORS_EPOCHS = 50
_AUTHORS = Path(__file__).parents[1] / "results" / "benchmarks" / "train_step.jsonl"
_K, _NEGATIVES, _BATCH = 50, 1000, 512
_MOST_EPOCHS = 50


def time_to_quality(
    *, check_ins: str, target: float, student_dim: int, ease_l2: float, repeats: int, seed: int, output: str
) -> None:
    """Measures the time from check-ins to a student at a given MAP, teacher included."""
    check_output(output)
    if not Path(check_ins).is_file():
        raise InputError(f"--check_ins={check_ins} is not there; name a file of check-ins: user_id, item_id, position")
    import_quietly()
    share_cores(0)
    report = Report("time_to_quality", measure_machine(), output)
    runs = [_once(check_ins, target, student_dim, ease_l2, seed + number) for number in range(repeats)]
    for stage in ("prepare", "teacher", "student", "all"):
        extra: dict[str, Any] = {}
        if stage in ("student", "all"):
            extra = {"epochs": [run["epochs"] for run in runs], "map": significant(min(run["map"] for run in runs))}
        floor = Work(max(run["flops"] for run in runs), 0.0) if stage == "all" else None
        authors = [_authors_seconds()] * len(runs) if stage == "all" and _AUTHORS.is_file() else ()
        report.add(Measurement(stage, "s", [run[stage] for run in runs], floor, authors, extra=extra))
    report.finish()


def _once(check_ins: str, target: float, dim: int, l2: float, seed: int) -> dict[str, Any]:
    from rd_tf.data.windows import open_dataset
    from rd_tf.evaluation.evaluator import Evaluator
    from rd_tf.losses.distillation import ListwiseSoftmaxDistillation
    from rd_tf.losses.ranking import SampledSoftmax
    from rd_tf.models.caser import Caser
    from rd_tf.teacher.named import ease
    from rd_tf.teacher.scoring import lists_of
    from rd_tf.training.distiller import RankingDistiller
    from rd_tf.training.optimizers import LazyAdam

    found: dict[str, Any] = {}
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        given = {"input": [check_ins], "time_column": "position", "dataset": f"{directory}/dataset", "windows": ""}
        prepare(**choose(prepare, default_flags(prepare), **given))
        found["prepare"] = time.perf_counter() - begin
        begin = time.perf_counter()
        data = open_dataset(f"{directory}/dataset").split("test")
    teacher = ease(data, l2)
    student = Caser.for_dataset(data, sequence_length=5, dim=dim, dropout=0.5, seed=seed)
    lists = lists_of(teacher, data.windows(5, 1), _K, "seen")
    del teacher
    found["teacher"] = time.perf_counter() - begin
    distiller = RankingDistiller(student, lists)
    distiller.compile(
        LazyAdam(1e-3, l2=1e-6), SampledSoftmax(), ListwiseSoftmaxDistillation(0.1), shared_negatives=_NEGATIVES
    )
    evaluator, seconds, quality, epoch = Evaluator(data, 5, (3, 5, 10)), 0.0, 0.0, 0
    while quality < target:
        if epoch == _MOST_EPOCHS:
            raise InputError(f"MAP is {quality:.4f} after {epoch} epochs, below --target={target}; name a lower one")
        begin = time.perf_counter()
        distiller.fit(data, epochs=epoch + 1, initial_epoch=epoch, seed=seed, verbose=0)
        seconds += time.perf_counter() - begin
        epoch += 1
        quality = evaluator.evaluate(student).metrics["map"]
        print(f"epoch {epoch}: {seconds:.1f} s, MAP {quality:.4f}", flush=True)
    items = int(data.is_candidate.sum())
    # What every row is multiplied with: the rows of the item table that it meets, and the dense layers of Caser.
    layers = sum(weight.shape.num_elements() for weight in student.trainable_variables if len(weight.shape) == 2)
    tables = student.item_table.shape.num_elements() + dim * (data.num_items + 1) + dim * data.num_users
    weights = (1 + _K + _NEGATIVES) * student.query_dim + max(0, layers - tables)
    flops = 2.0 * items**3 + 6.0 * weights * len(data.windows(5, 1)) * epoch
    found |= {"student": seconds, "epochs": epoch, "map": quality, "flops": flops}
    return {**found, "all": found["prepare"] + found["teacher"] + seconds}


def _authors_seconds() -> float:
    """Seconds of the authors' epochs of teacher and student, from the measured ones."""
    lines = [json.loads(line) for line in _AUTHORS.read_text(encoding="utf-8").splitlines()]
    epochs = {line["case"]: line["reference_median"] for line in lines if "reference_median" in line}
    return float(_AUTHORS_EPOCHS * (epochs["epoch_teacher"] + epochs["epoch_distillation"]))


if __name__ == "__main__":
    run_benchmark(
        time_to_quality,
        flag("check_ins", "../shared/datasets/gowalla/interactions.csv.gz", "Check-ins: user_id, item_id, position."),
        flag("target", 0.0969, "MAP on the test split at which the clock stops.", 0.0),
        flag("ease_l2", 200.0, "lambda of the teacher, in visits.", 1e-3),
        flag("repeats", 1, "Times that all is done, with a seed one higher.", 1),
    )

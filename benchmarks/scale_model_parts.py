"""What benchmarks.scale_model needs and no other benchmark measures alone: python -m benchmarks.scale_model_parts.

    update, N parts   the optimizer's part of a step for the gradients of N workers' batches of 512 windows, as every
                      worker does it after they have been gathered: Caser, d = 100, 100,000 users and items, uniform
                      rows, 3 negatives
    checkpoint        arrays to a checkpoint on disk: looked through for NaN, written, read for their SHA-256; a GB
    sha256            of a GB in memory, as for fingerprints of datasets, windows and caches

All times are those of cores that were busy (CPU time of the process), so that waiting for a disk or for other work on
the machine is not in them.

Measured figures: docs/scale.md.
"""

import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks import flags
from benchmarks.harness import Measurement, Report, check_output, measure_machine
from rd_tf.runtime import import_quietly
from rd_tf.training.checkpoints import save_checkpoint

BATCH_SIZE, NEGATIVES, TARGETS, LENGTH = 512, 3, 1, 5
PARTS = (1, 8, 64)
_ROWS, _DIM = 100_000, 100
_ARRAYS, _ARRAY_FLOATS = 8, 2**23
_GB = 1e9


def scale_model_parts(*, repeats: int, seed: int, output: str) -> None:
    """Measures updates of gathered gradients, checkpoints and hashes, in seconds of busy cores.

    Prints JSON lines and a table.
    """
    check_output(output)
    import_quietly()
    from rd_tf.runtime import share_cores

    # As rd_tf.train does.
    share_cores(0)
    report = Report("scale_model_parts", measure_machine(), output)
    for parts in PARTS:
        report.add(measure_update(parts, _ROWS, _DIM, repeats, seed))
    for measure in (_checkpoint, _sha256):
        report.add(measure(repeats, seed))
    report.finish()


def measure_update(parts: int, table_rows: int, dim: int, repeats: int, seed: int) -> Measurement:
    """Times the optimizer on the gradients of several batches together.

    Args:
        parts: batches of 512 windows.
        table_rows: users, and items.
        dim: d.
        repeats: timed updates, after a warm-up.
        seed: of the rows.
    """
    import tensorflow as tf

    from benchmarks.subjects import L2, LEARNING_RATE
    from rd_tf.models.caser import Caser
    from rd_tf.training.optimizers import make_optimizer

    model = Caser(table_rows, table_rows, LENGTH, dim)
    optimizer = make_optimizer("lazy_adam", LEARNING_RATE, L2)
    optimizer.build(model.trainable_variables)
    random = np.random.default_rng(seed)
    scored = TARGETS * (1 + NEGATIVES)
    a_window = {"user_table": 1, "sequence_table": LENGTH, "item_table": scored, "item_bias": scored}
    drawn = {name: random.integers(0, table_rows, parts * BATCH_SIZE * rows) for name, rows in a_window.items()}
    drawn["item_bias"] = drawn["item_table"]
    gradients = []
    for variable in model.trainable_variables:
        rows = drawn.get(variable.name)
        shape = tuple(variable.shape) if rows is None else (len(rows), *variable.shape[1:])
        values = tf.constant(random.standard_normal(shape, np.float32) / BATCH_SIZE)
        gradients.append(
            values if rows is None else tf.IndexedSlices(values, tf.constant(rows, tf.int32), variable.shape)
        )

    @tf.function
    def update() -> None:
        optimizer.apply(gradients, model.trainable_variables)

    numbers = sum(
        int(np.prod((each.values if isinstance(each, tf.IndexedSlices) else each).shape)) for each in gradients
    )
    return Measurement(
        f"update, {parts} parts", "ms of a core", _core_seconds(update, repeats), extra={"numbers": numbers, "dim": dim}
    )


def _checkpoint(repeats: int, seed: int) -> Measurement:
    arrays = [
        np.random.default_rng(seed + number).standard_normal(_ARRAY_FLOATS, np.float32) for number in range(_ARRAYS)
    ]
    size = sum(array.nbytes for array in arrays)
    with tempfile.TemporaryDirectory() as directory:
        steps = iter(range(repeats + 1))

        def save() -> None:
            named = ((f"array {number}", array) for number, array in enumerate(arrays))
            save_checkpoint(Path(directory), next(steps), named, {}, {})

        seconds = _core_seconds(save, repeats)
    return Measurement("checkpoint", "s of a core/GB", [second / size * _GB for second in seconds])


def _sha256(repeats: int, seed: int) -> Measurement:
    data = np.random.default_rng(seed).bytes(2**28)
    seconds = _core_seconds(lambda: hashlib.sha256(data), repeats)
    return Measurement("sha256", "s of a core/GB", [second / len(data) * _GB for second in seconds])


def _core_seconds(action: Callable[[], object], repeats: int) -> list[float]:
    seconds = []
    for _ in range(repeats + 1):
        begin = time.process_time()
        action()
        seconds.append(time.process_time() - begin)
    return seconds[1:]


if __name__ == "__main__":
    flags.run(scale_model_parts)

"""Steps of which some overflow on the last replica only, what each leaves, and what it should leave."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rd_tf.training.optimizers import OPTIMIZERS, SparseLossScaleOptimizer, make_optimizer

STEPS, ROWS, GROWTH_STEPS, SCALE = 7, 4, 2, 8.0
# Step -> the gradient that overflows in it: of the table or of the dense variable.
OVERFLOWS = {1: "table", 2: "dense", 5: "table"}


def gradients() -> tuple[np.ndarray, np.ndarray]:
    """Of the table's row 1, which occurs twice, and of the dense variable; the mean over the replicas."""
    random = np.random.default_rng(0)
    return random.normal(size=(STEPS, 2, 2)).astype("float32"), random.normal(size=(STEPS, 3)).astype("float32")


def make_variables() -> tuple[keras.Variable, keras.Variable]:
    table = keras.Variable(np.ones((ROWS, 2), "float32"), name="table")
    table.row_sparse = True
    return table, keras.Variable(np.ones(3, "float32"), name="dense")


def as_slices(values: tf.Tensor) -> tf.IndexedSlices:
    return tf.IndexedSlices(values, tf.constant([1, 1]), tf.constant([ROWS, 2]))


def take_steps(strategy: tf.distribute.Strategy, optimizer_name: str) -> dict[str, Any]:
    """Takes the steps twice: call by call, then all in one loop of the graph.

    Returns:
        `after` of every call: the scale, steps since it changed, steps that Adam counts, as every local replica has
        them; and the final weights of every local replica.
    """
    with strategy.scope():
        table, dense = make_variables()
        inner = make_optimizer(optimizer_name, 0.1, 1e-3)
        optimizer = SparseLossScaleOptimizer(inner, initial_scale=SCALE, dynamic_growth_steps=GROWTH_STEPS)
        optimizer.build([table, dense])
    table_gradients, dense_gradients = map(tf.constant, gradients())
    added = {
        kind: tf.constant([np.inf if OVERFLOWS.get(step) == kind else 0.0 for step in range(STEPS)], tf.float32)
        for kind in ("table", "dense")
    }

    def step(number: tf.Tensor) -> None:
        context = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync
        is_last = tf.equal(context.replica_id_in_sync_group, replicas - 1)
        scale = optimizer.scale_loss(1.0 / replicas)
        mine = {kind: tf.where(is_last, values[number], 0.0) for kind, values in added.items()}
        slices = as_slices(table_gradients[number] * scale + mine["table"])
        optimizer.apply([slices, dense_gradients[number] * scale + mine["dense"]], [table, dense])

    @tf.function
    def run(first: tf.Tensor, last: tf.Tensor) -> None:
        for number in tf.range(first, last):
            strategy.run(step, args=(number,))

    def local(variable: keras.Variable) -> list[Any]:
        return [np.asarray(part).tolist() for part in strategy.experimental_local_results(variable.value)]

    after = []
    for first, last in [*((number, number + 1) for number in range(STEPS)), (0, STEPS)]:
        run(tf.constant(first), tf.constant(last))
        after.append(
            [local(value) for value in (optimizer.dynamic_scale, optimizer.step_counter, optimizer.iterations)]
        )
    optimizer.finalize_variable_values([table, dense])
    return {"after": after, "weights": [local(table), local(dense)]}


def expected_after() -> list[list[float]]:
    """Scale, steps since it changed and steps counted, after each call of `take_steps`."""
    scale, since, counted, after = SCALE, 0, 0, []
    for step in range(2 * STEPS):
        if step % STEPS in OVERFLOWS:
            scale, since = scale / 2, 0
        else:
            counted += 1
            since += 1
            if since == GROWTH_STEPS:
                scale, since = scale * 2, 0
        after.append([scale, since, counted])
    return [*after[:STEPS], after[-1]]


def expected_weights(name: str) -> list[np.ndarray]:
    """One device that is given the finite steps only, and no loss scale."""
    table, dense = make_variables()
    optimizer = make_optimizer(name, 0.1, 1e-3)
    of_table, of_dense = gradients()
    for step in range(2 * STEPS):
        if step % STEPS not in OVERFLOWS:
            number = step % STEPS
            optimizer.apply([as_slices(tf.constant(of_table[number])), tf.constant(of_dense[number])], [table, dense])
    optimizer.finalize_variable_values([table, dense])
    return [np.asarray(table), np.asarray(dense)]


def check_steps(found: dict[str, Any], local_replicas: int) -> None:
    """Checks what `take_steps` found for every optimizer."""
    for name in OPTIMIZERS:
        assert found[name]["after"] == [[[value] * local_replicas for value in row] for row in expected_after()]
        for copies, expected in zip(found[name]["weights"], expected_weights(name), strict=True):
            assert len(copies) == local_replicas
            for copy in copies:
                np.testing.assert_allclose(copy, expected, rtol=1e-5, atol=1e-6)

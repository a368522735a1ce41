"""The row-sparse optimizer: a slow oracle, dense Adam as the aim, and what it leaves alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rd_tf.models.caser import Caser
from rd_tf.training.distiller import RankingDistiller
from rd_tf.training.optimizers import AdamL2, LazyAdam, make_optimizer

ROWS = 6


def table(values):
    variable = keras.Variable(np.asarray(values, "float32"))
    variable.row_sparse = True
    return variable


def slices(rows, values, shape):
    return tf.IndexedSlices(tf.constant(values, tf.float32), tf.constant(rows), tf.constant(shape))


def some_gradients(steps, width=(3,), seed=0):
    """Rows 0 and 5 never occur, row 1 may occur twice."""
    random = np.random.default_rng(seed)
    return [(random.integers(1, ROWS - 1, 3), random.normal(size=(3, *width))) for _ in range(steps)]


def oracle(weight, gradients, learning_rate, l2, keep_up_at):
    """All moments of all rows in every step; the L2 of the steps since the last time at the steps given."""
    weight, v, kept_until = weight.astype("float64"), np.zeros(weight.shape), 0
    for t, (rows, values) in enumerate(gradients, 1):
        gradient = np.zeros_like(weight)
        np.add.at(gradient, rows, values)
        v = 0.999 * v + 0.001 * gradient**2
        used = np.isin(np.arange(len(weight)), rows).reshape(-1, *[1] * (weight.ndim - 1))
        root = np.sqrt(v / (1 - 0.999**t)) + 1e-8
        weight = weight - used * learning_rate * gradient / root
        if t in keep_up_at:
            root += l2 * np.abs(weight)
            weight = weight * np.maximum(0, 1 - learning_rate * l2 * (t - kept_until) / root)
            kept_until = t
    return weight


@pytest.mark.parametrize("width", [(3,), ()])
@pytest.mark.parametrize("l2", [0.0, 1e-6, 0.1])
def test_updates_equal_a_slow_oracle(l2, width):
    start = np.random.default_rng(1).normal(size=(ROWS, *width))
    variable, gradients = table(start), some_gradients(10, width)
    optimizer = LazyAdam(0.05, l2, upkeep_steps=4)
    for rows, values in gradients:
        optimizer.apply([slices(rows, values, variable.shape)], [variable])
    optimizer.finalize_variable_values([variable])
    expected = oracle(start, gradients, 0.05, l2, keep_up_at=(4, 8, 10))
    np.testing.assert_allclose(variable, expected, rtol=2e-5, atol=1e-5)


def test_a_dense_gradient_counts_for_every_row():
    start = np.ones((ROWS, 2))
    sparse, dense = table(start), table(start)
    values = np.random.default_rng(0).normal(size=(ROWS, 2))
    LazyAdam(0.1).apply([slices(np.arange(ROWS), values, (ROWS, 2))], [sparse])
    LazyAdam(0.1).apply([tf.constant(values, tf.float32)], [dense])
    np.testing.assert_array_equal(sparse, dense)


def test_how_often_the_rows_are_kept_up_changes_nothing_without_l2():
    results = []
    for upkeep_steps in (1, 3, 1000):
        variable = table(np.ones((ROWS, 3)))
        optimizer = LazyAdam(0.05, upkeep_steps=upkeep_steps)
        for rows, values in some_gradients(20):
            optimizer.apply([slices(rows, values, variable.shape)], [variable])
        results.append(np.asarray(variable))
    np.testing.assert_allclose(results[0], results[1], rtol=1e-5)
    np.testing.assert_allclose(results[0], results[2], rtol=1e-5)


def test_rows_outside_the_batch_wait_until_they_are_kept_up():
    variable = table(np.ones((ROWS, 2)))
    optimizer = LazyAdam(0.1, l2=1e-6)
    for _ in range(5):
        optimizer.apply([slices([1], [[1.0, 1.0]], (ROWS, 2))], [variable])
    np.testing.assert_array_equal(np.asarray(variable)[2:], 1.0)
    optimizer.finalize_variable_values([variable])
    # As in dense Adam, a row that is not used shrinks by the learning rate a step: 5 steps of 0.1, at most 0.1 each.
    np.testing.assert_allclose(np.asarray(variable)[2:], 0.5, rtol=0.02)
    for _ in range(20):
        optimizer.apply([slices([1], [[1.0, 1.0]], (ROWS, 2))], [variable])
    optimizer.finalize_variable_values([variable])
    np.testing.assert_array_equal(np.asarray(variable)[2:], 0.0)


def pulled_to_a_goal(optimizer, variable, steps=3000):
    """One row a step is pulled to its goal; every row is used about every 20th step."""
    random = np.random.default_rng(0)
    goal = tf.constant(random.normal(size=(20, 4)), tf.float32)
    optimizer.build([variable])

    @tf.function
    def step(rows):
        pull = tf.gather(variable.value, rows) - tf.gather(goal, rows)
        optimizer.apply([tf.IndexedSlices(pull, rows, tf.constant([20, 4]))], [variable])

    for _ in range(steps):
        step(tf.constant(random.permutation(20)[:1]))
    optimizer.finalize_variable_values([variable])
    return np.asarray(variable)


def test_rows_move_as_far_as_with_dense_adam():
    # Moments that stood still where a row is not used would make its steps smaller by the root of 20.
    dense = pulled_to_a_goal(AdamL2(1e-3, 1e-6), keras.Variable(np.zeros((20, 4), "float32")))
    lazy = pulled_to_a_goal(LazyAdam(1e-3, 1e-6), table(np.zeros((20, 4))))
    assert np.abs(dense).mean() > 0.3
    assert np.abs(dense - lazy).mean() < 0.05 * np.abs(dense).mean()


def test_variables_that_are_no_tables_are_updated_as_by_adam():
    plain, lazy = (keras.Variable(np.ones((4, 2), "float32")) for _ in range(2))
    one, other = AdamL2(0.1, 0.01), LazyAdam(0.1, 0.01)
    for rows, values in [([1, 2, 1], np.ones((3, 2))), ([0, 0, 3], -np.ones((3, 2)))]:
        one.apply([slices(rows, values, (4, 2))], [plain])
        other.apply([slices(rows, values, (4, 2))], [lazy])
    np.testing.assert_array_equal(plain, lazy)


def test_a_step_reads_and_writes_no_table_as_a_whole():
    model = Caser(num_users=30, num_items=40, sequence_length=2, dim=3)
    optimizer = LazyAdam(0.01, 1e-6)
    distiller = RankingDistiller(model)
    distiller.compile(optimizer)
    batch = {
        "user": tf.constant([0, 1]),
        "sequence": tf.constant([[1, 2], [3, 4]]),
        "items": tf.constant([[3, 8], [5, 1]]),
        "labels": tf.constant([[1.0, 0]] * 2),
        "global_size": tf.constant(2),
    }
    graph = tf.function(distiller.step).get_concrete_function(batch, False).graph
    tables = [model.user_table, model.sequence_table, model.item_table, model.item_bias]
    slots = [optimizer._velocities[optimizer._get_variable_index(table)] for table in tables]
    handles = {graph.capture(variable.value.handle).name for variable in tables + slots}
    users = [op for op in graph.get_operations() if any(tensor.name in handles for tensor in op.inputs)]
    # The upkeep is a branch of its own (If); it works block by block.
    assert {op.type for op in users} == {"ResourceGather", "ResourceScatterUpdate", "If"}


def test_it_survives_serialization():
    optimizer = keras.optimizers.deserialize(keras.optimizers.serialize(LazyAdam(0.02, l2=0.5, upkeep_steps=7)))
    assert (float(optimizer.learning_rate), optimizer.l2, optimizer.upkeep_steps) == (pytest.approx(0.02), 0.5, 7)


@pytest.mark.parametrize(("steps", "beta_2"), [(0, 0.999), (20_000, 0.999), (1000, 0.9)])
def test_upkeep_outside_the_range_of_float32_is_refused(steps, beta_2):
    with pytest.raises(ValueError, match=f"upkeep_steps must be at least 1, .* received {steps} with beta_2={beta_2}"):
        LazyAdam(upkeep_steps=steps, beta_2=beta_2)


def test_optimizers_go_by_name():
    assert type(make_optimizer("adam", 0.1, 0.0)) is AdamL2
    assert type(make_optimizer("lazy_adam", 0.1, 0.0)) is LazyAdam
    assert type(make_optimizer("adagrad", 0.1, 0.0)) is keras.optimizers.Adagrad
    with pytest.raises(ValueError, match="--optimizer=sdg is not known; it is one of adam, lazy_adam, or"):
        make_optimizer("sdg", 0.1, 0.0)
    with pytest.raises(ValueError, match=r"--l2=0.5 is an L2 term that Keras' sgd does not have; give --l2=0"):
        make_optimizer("sgd", 0.1, 0.5)

"""The training step: its losses by an oracle."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from rd_tf.losses.distillation import WeightedPointwiseDistillation
from rd_tf.models.caser import Caser
from rd_tf.training.distiller import REPORTED, RankingDistiller
from rd_tf.training.optimizers import AdamL2, LazyAdam, SparseLossScaleOptimizer

BATCH = {
    "user": tf.constant([0, 1, 2, 1]),
    "sequence": tf.constant([[1, 2], [3, 4], [0, 5], [6, 7]]),
    "items": tf.constant([[3, 8, 9], [5, 1, 2], [6, 1, 9], [8, 3, 3]]),
    "labels": tf.constant([[1.0, 0, 0]] * 4),
    "teacher_items": tf.constant([[4, 5], [6, 7], [1, 2], [9, 1]]),
    # One group of rows; row 1 has seen item 8, row 3 items 2 and 5.
    "sampled_items": tf.constant([[1, 2, 5, 8]]),
    "is_unseen": tf.constant([[True] * 4, [True, True, True, False], [True] * 4, [True, False, False, True]]),
    "seen_items": tf.constant([8, 2, 5]),
    "seen_rows": tf.constant([1, 3, 3]),
    "global_size": tf.constant(4),
}
SEEN = [[], [8], [], [2, 5]]


def tiny(**changed):
    model = Caser(num_users=3, num_items=9, sequence_length=2, dim=3, dropout=0.0, **changed)
    # Scores at the start are all near zero; these are not.
    random = np.random.default_rng(1)
    model.item_table.assign(random.normal(size=model.item_table.shape))
    model.item_bias.assign(random.normal(size=model.item_bias.shape))
    return model


DEFAULTS = {"alpha": 1.0, "temperature": 1.0, "sharpness": 0.1, "exact_rank": False}


def run(distillation, with_student_rank, model=None, optimizer=None):
    """One step; `distillation` is None, or what differs from `DEFAULTS`."""
    given = {**DEFAULTS, **(distillation or {})}
    distiller = RankingDistiller(model or tiny(), None if distillation is None else object())
    loss = WeightedPointwiseDistillation(given["temperature"], given["sharpness"])
    optimizer = optimizer or AdamL2(0.01)
    distiller.compile(optimizer, None, loss, alpha=given["alpha"], exact_rank=given["exact_rank"])
    return dict(zip(REPORTED, distiller.step(BATCH, with_student_rank).numpy(), strict=True)), distiller.student


def oracle(distillation, with_student_rank):
    scores = np.asarray(tiny().score_all(tiny().encode(BATCH["user"], BATCH["sequence"])), "float64")
    row = np.arange(4)[:, None]
    ranked, taught = scores[row, BATCH["items"].numpy()], scores[row, BATCH["teacher_items"].numpy()]
    softplus = lambda x: np.log1p(np.exp(x))  # noqa: E731
    ranking = np.sum(softplus(np.where(BATCH["labels"] == 1, -ranked, ranked)), 1).mean()
    weight = np.exp([-1 / distillation["temperature"], -2 / distillation["temperature"]])
    weight = np.tile(weight / weight.sum(), (4, 1))
    if with_student_rank:
        if distillation["exact_rank"]:
            # Of the definition: items, unseen by the user, that the student scores higher.
            rank = [
                [sum(scores[b, i] > score for i in range(1, 10) if i not in SEEN[b]) for score in taught[b]]
                for b in range(4)
            ]
        else:
            sampled = np.where(BATCH["is_unseen"], scores[:, BATCH["sampled_items"].numpy()[0]], -np.inf)
            rank = np.floor(9 * np.float32((sampled[:, None, :] > taught[:, :, None]).mean(-1)))
        weight = weight * np.tanh(np.maximum(0, distillation["sharpness"] * (np.array(rank) - np.arange(2))))
    distilled = np.sum(weight * softplus(-taught), 1).mean()
    loss = ranking + distillation["alpha"] * distilled
    return dict(zip(REPORTED, [loss, ranking, distilled, weight.mean(), (weight == 0).mean()], strict=True))


@pytest.mark.parametrize("with_student_rank", [False, True])
@pytest.mark.parametrize("exact_rank", [False, True])
def test_losses_and_weights_equal_a_slow_oracle(with_student_rank, exact_rank):
    distillation = {"alpha": 0.5, "temperature": 2.0, "sharpness": 0.3, "exact_rank": exact_rank}
    reported, _ = run(distillation, with_student_rank)
    expected = oracle(distillation, with_student_rank)
    for name in REPORTED:
        assert reported[name] == pytest.approx(expected[name], rel=1e-5), name


def test_an_estimate_from_the_whole_catalogue_is_the_exact_rank(monkeypatch):
    is_unseen = np.array([[i not in seen for i in range(1, 10)] for seen in SEEN])
    monkeypatch.setitem(BATCH, "sampled_items", tf.range(1, 10)[None])
    monkeypatch.setitem(BATCH, "is_unseen", tf.constant(is_unseen))
    estimated, exact = (run({"sharpness": 0.7, "exact_rank": exact}, True)[0] for exact in (False, True))
    assert estimated == pytest.approx(exact, rel=1e-6)


def test_without_distillation_the_teachers_rows_are_not_touched():
    reported, model = run(None, False)
    assert reported["loss"] == reported["ranking_loss"]
    assert reported["distillation_loss"] == 0
    untouched = np.setdiff1d(np.arange(10), BATCH["items"].numpy())
    np.testing.assert_array_equal(np.asarray(model.item_table)[untouched], np.asarray(tiny().item_table)[untouched])


def test_alpha_zero_trains_as_without_a_teacher():
    _, alone = run(None, False)
    _, taught = run({"alpha": 0.0}, True)
    for a, b in zip(alone.get_weights(), taught.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)


def test_rank_samples_get_no_gradient():
    with_samples, _ = run({"exact_rank": True}, True)
    assert np.isfinite(with_samples["loss"])
    _, model = run({}, True)
    only_sampled = np.setdiff1d(
        BATCH["sampled_items"].numpy(), np.concatenate([BATCH["items"].numpy(), BATCH["teacher_items"].numpy()], 1)
    )
    np.testing.assert_array_equal(
        np.asarray(model.item_table)[only_sampled], np.asarray(tiny().item_table)[only_sampled]
    )


@pytest.mark.parametrize("make", [AdamL2, LazyAdam])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_stays_close_to_float32(policy, make):
    model = tiny(dtype=policy)
    optimizer = make(0.01)
    if policy == "mixed_float16":
        optimizer = SparseLossScaleOptimizer(optimizer)
    optimizer.build(model.trainable_variables)
    reported, _ = run({}, True, model, optimizer)
    optimizer.finalize_variable_values(model.trainable_variables)
    expected, reference = run({}, True, optimizer=make(0.01))
    assert reported["loss"] == pytest.approx(expected["loss"], rel=0.02)
    assert all(weight.dtype == np.float32 for weight in model.get_weights())
    np.testing.assert_allclose(model.item_bias, reference.item_bias, atol=2e-3)


def test_an_overflow_in_one_of_two_gradients_of_a_row_skips_the_step():
    table = keras.Variable(np.ones((3, 2), "float32"))
    table.row_sparse = True
    optimizer = SparseLossScaleOptimizer(LazyAdam(0.1))
    values = tf.constant([[np.inf, 1.0], [1.0, 1.0]])
    optimizer.apply([tf.IndexedSlices(values, tf.constant([1, 1]), tf.constant([3, 2]))], [table])
    np.testing.assert_array_equal(table, np.ones((3, 2)))
    assert float(optimizer.dynamic_scale) == optimizer.initial_scale / 2

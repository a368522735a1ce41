"""The training step: its losses by an oracle."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import rd_tf
from rd_tf.command_line import default_flags
from rd_tf.losses.distillation import ListwiseSoftmaxDistillation, WeightedPointwiseDistillation
from rd_tf.losses.ranking import GeneralizedBinaryCrossEntropy, SampledSoftmax
from rd_tf.models.caser import Caser
from rd_tf.plugins import DISTILLATION_LOSSES, RANKING_LOSSES
from rd_tf.train import train
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


# Of a draw by popularity: item 2 came twice. Row 0 has item 4 in its list, row 1 has seen item 8.
SHARED = np.array([2, 4, 2, 8])
RATIO = np.array([0.0, 0.5, -0.4, 0.1, -1.0, 0.3, 0.0, 0.2, 0.7, -0.6], "float32")
IS_NEGATIVE = np.array([[True] * 4, [True, True, True, False], [True] * 4, [False, True, False, False]])
IS_UNLISTED = IS_NEGATIVE & ~(np.array(BATCH["teacher_items"])[..., None] == SHARED).any(1)
SHARED_BATCH = {
    **{name: value for name, value in BATCH.items() if not name.startswith(("sampled", "is_", "seen"))},
    "labels": tf.constant([[1.0, 1, -1]] * 4),
    "teacher_scores": tf.constant([[0.9, 0.8], [0.5, 0.1], [0.3, 0.3], [1.0, 0.0]]),
    "shared_items": tf.constant(SHARED, tf.int32),
    "is_shared_negative": tf.constant(IS_NEGATIVE),
    "is_shared_unlisted": tf.constant(IS_UNLISTED),
    "items_log_ratio": tf.gather(RATIO, BATCH["items"]),
    "shared_log_ratio": tf.gather(RATIO, SHARED),
    "teacher_log_ratio": tf.gather(RATIO, BATCH["teacher_items"]),
}


def log_sum(values):
    return np.log(np.sum(np.exp(values)))


def test_a_step_of_shared_negatives_by_popularity_equals_a_slow_oracle():
    distiller = RankingDistiller(tiny(), object())
    distillation_loss = ListwiseSoftmaxDistillation(score_temperature=0.2)
    distiller.compile(AdamL2(0.01), SampledSoftmax(), distillation_loss, alpha=0.7, negative_sampling="popularity")
    scores = np.asarray(tiny().score_all(tiny().encode(BATCH["user"], BATCH["sequence"])), "float64") - RATIO
    rankings, distillations = [], []
    for row in range(4):
        own, listed = (scores[row, np.array(BATCH[name])[row]] for name in ("items", "teacher_items"))
        negatives, unlisted = (scores[row, SHARED[mask[row]]] for mask in (IS_NEGATIVE, IS_UNLISTED))
        rankings.append(sum(log_sum([target, *negatives]) - target for target in own[:2]))
        teacher = np.exp(np.array(SHARED_BATCH["teacher_scores"])[row] / 0.2)
        teacher /= teacher.sum()
        distillations.append(log_sum([*listed, *unlisted]) - np.sum(teacher * listed))
    reported = dict(zip(REPORTED, distiller.step(SHARED_BATCH, False).numpy(), strict=True))
    assert reported["ranking_loss"] == pytest.approx(np.mean(rankings), rel=1e-5)
    assert reported["distillation_loss"] == pytest.approx(np.mean(distillations), rel=1e-5)
    assert reported["loss"] == pytest.approx(np.mean(rankings) + 0.7 * np.mean(distillations), rel=1e-5)
    # Shared negatives are learned from.
    assert (np.asarray(distiller.student.item_table)[8] != np.asarray(tiny().item_table)[8]).all()


def test_gbce_is_told_the_size_of_the_catalogue():
    distiller = RankingDistiller(tiny())
    distiller.compile(AdamL2(0.01), GeneralizedBinaryCrossEntropy(calibration=0.8))
    batch = {name: value for name, value in SHARED_BATCH.items() if not name.endswith("log_ratio")}
    scores = np.asarray(tiny().score_all(tiny().encode(BATCH["user"], BATCH["sequence"])), "float64")
    softplus, expected = lambda x: np.log1p(np.exp(x)), []
    for row in range(4):
        beta = 1 - 0.8 * (1 - IS_NEGATIVE[row].sum() / 8)
        own, negatives = scores[row, np.array(BATCH["items"])[row, :2]], scores[row, SHARED[IS_NEGATIVE[row]]]
        expected.append(np.sum(beta * softplus(-own) + softplus(negatives).sum()))
    assert distiller.step(batch, False).numpy()[0] == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.fixture(scope="module")
def taught(tiny_dataset):
    data = rd_tf.load_dataset(tiny_dataset).split("validation")
    return data, rd_tf.teacher_lists(Caser.for_dataset(data, dim=4, sequence_length=3), data, k=6, mask="seen")


@pytest.mark.parametrize(
    ("ranking_loss", "distillation_loss"),
    [
        *((name, "weighted_pointwise") for name in RANKING_LOSSES),
        *(("pointwise", name) for name in DISTILLATION_LOSSES),
    ],
)
def test_every_loss_is_told_what_it_needs_and_lowers_itself(taught, ranking_loss, distillation_loss):
    data, lists = taught
    flags = {**default_flags(train), "list_samples": 3, "score_temperature": 0.2}
    distiller = RankingDistiller(Caser.for_dataset(data, dim=4, sequence_length=3, dropout=0.0, seed=1), lists)
    ranking, distillation = (
        plugin.load()(**plugin.arguments(flags))
        for plugin in (RANKING_LOSSES[ranking_loss], DISTILLATION_LOSSES[distillation_loss])
    )
    distiller.compile(AdamL2(0.02), ranking, distillation, alpha=0.5, shared_negatives=20, rank_samples=40)
    batches = distiller.batches(data, batch_size=64, negatives=2)
    batch = next(iter(batches.input_function(0, 1)(tf.distribute.InputContext())))
    values = [distiller.step(batch, True).numpy() for _ in range(8)]
    assert np.isfinite(values).all()
    assert values[-1][0] < values[0][0]


def test_a_loss_that_needs_groups_says_how_many():
    loss = ListwiseSoftmaxDistillation()
    loss.needs = frozenset({"item_groups"})
    with pytest.raises(ValueError, match="must say how many, in popularity_groups"):
        RankingDistiller(tiny(), object()).compile(AdamL2(0.01), None, loss)

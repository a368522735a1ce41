"""Mixed precision: as good as float32, on several devices too, and an overflow is no end of a run."""

import csv

import keras
import numpy as np
import pytest
import tensorflow as tf
from training.worker_processes import finish, start

from benchmarks.mixed_precision import POLICIES, train_roles
from rd_tf import command_line, run_directory
from rd_tf.data.batches import TrainingBatches
from rd_tf.data.sampling import UnseenItemSampler
from rd_tf.data.windows import Windows
from rd_tf.models.caser import Caser
from rd_tf.storage import InputError, read_json
from rd_tf.train import train
from rd_tf.training.distiller import RankingDistiller
from rd_tf.training.loop import Trainer
from rd_tf.training.optimizers import OPTIMIZERS, SparseLossScaleOptimizer, make_optimizer

SMALL_WORLD = [
    "--format=synthetic",
    "--synthetic_users=200",
    "--synthetic_items=150",
    "--synthetic_visits=40",
    "--teacher_dim=16",
    "--student_dim=8",
    "--epochs=4",
    "--learning_rate=0.02",
    "--mask=seen",
    "--discrepancy_start_epoch=2",
]


def test_every_policy_reaches_map_within_1_percent_of_float32(tmp_path):
    # The student alone is trained as the teacher is.
    found = train_roles(tmp_path, SMALL_WORLD, ["teacher", "distilled"], seeds=[0])
    maps = {policy: {role: trained[0].map for role, trained in roles.items()} for policy, roles in found.items()}
    # A model that has learned nothing would agree with any other: random scores reach .05.
    assert min(maps["float32"].values()) > 0.15
    for policy in POLICIES:
        assert maps[policy] == pytest.approx(maps["float32"], rel=0.01)
    manifests = (tmp_path / "seed-0" / policy / "distilled" / run_directory.MANIFEST for policy in POLICIES)
    assert len({read_json(path)["model"]["fingerprint"] for path in manifests}) == len(POLICIES)


def test_float16_trains_on_two_devices(tiny_dataset, train_flags, tmp_path):
    flags = train_flags(dataset=tiny_dataset, dtype_policy="mixed_float16", epochs=1)
    train(**{**flags, "run_dir": str(tmp_path / "one")})
    changed = {"run_dir": str(tmp_path / "two"), "strategy": "mirrored", "replicas": 2}
    # Logical devices must be made before TensorFlow starts, so they have a process of their own.
    command = ["-m", "rd_tf.train", *command_line.flag_lines({**flags, **changed}).splitlines()]
    ((said, warned),) = finish(start(command))
    assert "2 replicas" in said
    assert warned == ""
    losses = []
    for run in (tmp_path / "one", tmp_path / "two"):
        with open(run / run_directory.HISTORY) as file:
            losses.append([float(row["train/loss"]) for row in csv.DictReader(file)])
    np.testing.assert_allclose(*losses, rtol=1e-3)
    assert read_json(tmp_path / "two" / run_directory.MANIFEST)["model"]["dtype_policy"] == "mixed_float16"


def in_float16(optimizer_name, scale, learning_rate=0.01):
    """Caser in float16 on windows of a random world, and a trainer of it."""
    random = np.random.default_rng(0)
    windows = Windows(
        users=np.sort(random.integers(0, 6, 64)).astype("int32"),
        positions=np.arange(64, dtype="int32"),
        sequences=random.integers(0, 31, (64, 3)).astype("int32"),
        targets=random.integers(1, 31, (64, 1)).astype("int32"),
    )
    sampler = UnseenItemSampler(windows.users, windows.targets[:, 0], 6, 30)
    model = Caser(6, 30, 3, 4, dtype="mixed_float16")
    optimizer = SparseLossScaleOptimizer(make_optimizer(optimizer_name, learning_rate, 1e-6), initial_scale=scale)
    distiller = RankingDistiller(model)
    distiller.compile(optimizer)
    batches = TrainingBatches(windows, sampler, 8, 2, 0)
    return model, optimizer, Trainer(distiller, batches, tf.distribute.get_strategy(), 4)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_overflow_of_gradients_alone_does_not_stop_a_run(name):
    model, optimizer, trainer = in_float16(name, 2.0**26)
    before = model.get_weights()
    reports = list(trainer.epochs(3))
    assert [np.isfinite(report.means["loss"]) for report in reports] == [True] * 3
    assert reports[-1].means["loss"] < reports[0].means["loss"]
    skipped = 3 * 8 - int(optimizer.iterations)
    assert 0 < skipped < 20
    assert float(optimizer.dynamic_scale) == 2.0 ** (26 - skipped)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())
    assert any((now != then).any() for now, then in zip(model.get_weights(), before, strict=True))


def test_a_loss_that_is_not_finite_stops_a_run_in_float16():
    _, _, trainer = in_float16("adam", 2.0**15, learning_rate=1e38)
    with pytest.raises(InputError, match="the loss is not finite in epoch 1"):
        list(trainer.epochs(3))


@pytest.mark.parametrize("policy", POLICIES)
def test_logits_losses_and_moments_are_float32(policy):
    model = Caser(6, 30, 3, 4, dtype=policy)
    query = model.encode(tf.constant([0]), tf.constant([[1, 2, 3]]), training=True)
    logits = model.score(query, tf.constant([[1, 2]]))
    optimizer = make_optimizer("lazy_adam", 0.01, 1e-6)
    optimizer.build(model.trainable_variables)
    found = {keras.backend.standardize_dtype(each.dtype) for each in (query, logits, *model.weights)}
    found |= {keras.backend.standardize_dtype(slot.dtype) for slot in optimizer._velocities}
    assert found == {"float32"}

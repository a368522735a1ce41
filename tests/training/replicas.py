"""Trains every ranker a few steps on 1 or 2 logical CPUs and prints losses and weights; run by test_step.py."""

import dataclasses
import json
import sys

import numpy as np
import tensorflow as tf

from rd_tf.data.batches import TrainingBatches
from rd_tf.data.rank_sampler import GROUP, RankSampler
from rd_tf.data.unseen_item_sampler import UnseenItemSampler
from rd_tf.data.user_items import UserItems
from rd_tf.data.windows import Windows
from rd_tf.models.caser import Caser
from rd_tf.models.fossil import Fossil
from rd_tf.training.optimizers import make_optimizer
from rd_tf.training.step import Distillation, TrainStep
from rd_tf.training.trainer import Trainer


class FixedSampler(UnseenItemSampler):
    """Draws that depend on the user alone, so that any number of replicas draws the same."""

    def sample(self, users, count, seed):
        return tf.cast(tf.cast(users, tf.int32)[:, None] * 7 % 20 + tf.range(count) + 1, tf.int32)


class FixedRankSampler(RankSampler):
    """The same draw for all rows, for the same reason."""

    def sample(self, users, seed):
        groups = (tf.size(users) + GROUP - 1) // GROUP
        return tf.tile(tf.range(3, 8)[None], [groups, 1]), tf.math.floormod(users[:, None] + tf.range(5), 3) > 0


class FixedHistories(UserItems):
    """Window number r looks back on r % 4 items."""

    def window_histories(self, windows, rows, kind):
        place = np.repeat(np.arange(len(rows), dtype=np.int32), rows % 4)
        return (rows[place] * 5 % 30 + 1).astype(np.int32), place


def main(replicas: int, optimizer_name: str) -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    names = [f"CPU:{number}" for number in range(replicas)]
    strategy = tf.distribute.MirroredStrategy(names) if replicas > 1 else tf.distribute.get_strategy()
    random = np.random.default_rng(0)
    rows = 21
    windows = Windows(
        users=np.sort(random.integers(0, 6, rows)).astype("int32"),
        positions=np.arange(rows, dtype="int32"),
        sequences=random.integers(0, 31, (rows, 3)).astype("int32"),
        targets=random.integers(1, 31, (rows, 1)).astype("int32"),
    )
    teacher = random.integers(1, 31, (rows, 4)).astype("int32")
    sampler = FixedSampler(windows.users, windows.targets[:, 0], 6, 30)
    rank_sampler = FixedRankSampler(windows.users, windows.targets[:, 0], 6, 30, 5)
    batches = TrainingBatches(windows, sampler, 8, 2, 0, teacher, rank_sampler)
    histories = (FixedHistories(windows.users, windows.targets[:, 0], 6), "before")
    losses, weights = [], []
    for make in (lambda: Caser(6, 30, 3, 4, dropout=0.0), lambda: Fossil(6, 30, 3, 4)):
        with strategy.scope():
            model = make()
            optimizer = make_optimizer(optimizer_name, 0.01, l2=1e-3)
            optimizer.build(model.trainable_variables)
        data = dataclasses.replace(batches, histories=None if model.looks_back == "none" else histories)
        step = TrainStep(model, optimizer, Distillation(discrepancy_start_epoch=1))
        losses += [report.means["loss"] for report in Trainer(step, data, strategy, 2).epochs(3)]
        weights += [np.asarray(weight).ravel().tolist() for weight in model.get_weights()]
    print(json.dumps({"replicas": strategy.num_replicas_in_sync, "losses": losses, "weights": weights}))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])

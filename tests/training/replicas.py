"""Trains every ranker a few steps where the arguments say and prints what it came to; run by test_replicas.py.

All in one process, since TensorFlow takes longer to start than to train so little.
"""

import dataclasses
import json
import sys
from typing import Any

import numpy as np
import tensorflow as tf
from loss_scale_replicas import take_steps

import rd_tf
from rd_tf.data.batches import TrainingBatches
from rd_tf.data.interactions import Interactions
from rd_tf.data.sampling import RankSampler, UnseenItemSampler
from rd_tf.data.windows import UserItems, make_windows
from rd_tf.models.caser import Caser
from rd_tf.models.fossil import Fossil
from rd_tf.models.sasrec import SASRec
from rd_tf.training.distiller import RankingDistiller
from rd_tf.training.loop import Trainer
from rd_tf.training.optimizers import OPTIMIZERS, make_optimizer
from rd_tf.training.workers import Workers, make_workers, prepare_devices

USERS, ITEMS = 9, 30


def make_batches() -> TrainingBatches:
    """67 windows in batches of 32: the last one, of 3, leaves a replica without a row."""
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(USERS, dtype="int32"), [4, 12, 9, 11, 8, 14, 10, 12, 14])
    items = np.concatenate([random.choice(ITEMS, n, replace=False) + 1 for n in np.bincount(users)]).astype("int32")
    names = [str(number) for number in range(ITEMS)]
    data = Interactions(users, items, np.arange(len(users)), names[:USERS], names)
    windows = make_windows(data, np.ones(len(users), bool), 3, 1)
    assert len(windows) == 67
    return TrainingBatches(
        windows,
        UnseenItemSampler(users, items, USERS, ITEMS),
        batch_size=32,
        negatives=2,
        seed=0,
        teacher_items=random.integers(1, ITEMS + 1, (len(windows), 4)).astype("int32"),
        rank_sampler=RankSampler(users, items, USERS, ITEMS, 5),
        histories=(UserItems(users, items, USERS), "before"),
        user_dropout=0.1,
        num_users=USERS,
    )


# Caser, too, is fitted.
CASES = ((SASRec, "lazy_adam", 1), (Fossil, "adam", 0))


def train(workers: Workers, cases: Any = CASES) -> dict[str, list[Any]]:
    """Losses and weights, with the student's rank from the second epoch and from the first."""
    batches, losses, weights = make_batches(), [], []
    for make, name, epoch in cases:
        with workers.strategy.scope():
            model = make(USERS, ITEMS, 3, 4, dropout=0.3, unknown_user=True)
            distiller = RankingDistiller(model, object())
            distiller.compile(make_optimizer(name, 0.01, l2=1e-3), student_rank_from_epoch=epoch)
        histories = batches.histories if model.has_history else None
        data = dataclasses.replace(batches, histories=histories, noise_width=model.noise_width)
        losses += [report.means["loss"] for report in Trainer(distiller, data, workers.strategy, 2).epochs(3)]
        weights += [np.asarray(weight).ravel().tolist() for weight in model.get_weights()]
    return {"losses": losses, "weights": weights}


def fit(strategy: tf.distribute.Strategy, dataset: str) -> dict[str, list[Any]]:
    """Losses and weights of Keras' fit."""
    data = rd_tf.load_dataset(dataset).split("validation")
    with strategy.scope():
        ranker = Caser.for_dataset(data, dim=4, sequence_length=3)
        distiller = RankingDistiller(ranker)
        distiller.compile()
    history = distiller.fit(data, epochs=2, batch_size=64, verbose=0)
    weights = [np.asarray(weight).ravel().tolist() for weight in ranker.get_weights()]
    return {"losses": history.history["loss"], "weights": weights}


def main(strategy: str, replicas: int, dataset: str) -> None:
    prepare_devices(strategy, replicas)
    workers = make_workers(strategy, replicas)
    found = {
        # What a ranker draws and looks back on is the same for replicas here and elsewhere.
        "trained": train(workers, CASES if dataset else CASES[:1]),
        "shares": [workers.sum(np.asarray(workers.share(10))[:1] + 1.0).tolist(), len(workers.share(10))],
        "replicas": workers.strategy.num_replicas_in_sync,
        "overflows": {name: take_steps(workers.strategy, name) for name in OPTIMIZERS},
        "fitted": fit(workers.strategy, dataset) if dataset else None,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])

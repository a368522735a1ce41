"""Trains every ranker a few steps where the arguments say and prints losses and weights; run by test_replicas.py."""

import dataclasses
import json
import sys

import numpy as np

from rd_tf.data.batches import TrainingBatches
from rd_tf.data.interactions import Interactions
from rd_tf.data.sampling import RankSampler, UnseenItemSampler
from rd_tf.data.windows import UserItems, make_windows
from rd_tf.models.caser import Caser
from rd_tf.models.fossil import Fossil
from rd_tf.training.distiller import RankingDistiller
from rd_tf.training.loop import Trainer
from rd_tf.training.optimizers import make_optimizer
from rd_tf.training.workers import make_workers, prepare_devices

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


def main(strategy: str, replicas: int) -> None:
    prepare_devices(strategy, replicas)
    workers = make_workers(strategy, replicas)
    batches, losses, weights = make_batches(), [], []
    for make, name in ((Caser, "lazy_adam"), (Fossil, "adam")):
        with workers.strategy.scope():
            model = make(USERS, ITEMS, 3, 4, dropout=0.3, unknown_user=True)
            distiller = RankingDistiller(model, object())
            distiller.compile(make_optimizer(name, 0.01, l2=1e-3), student_rank_from_epoch=1)
        histories = batches.histories if model.has_history else None
        data = dataclasses.replace(batches, histories=histories, noise_width=model.noise_width)
        losses += [report.means["loss"] for report in Trainer(distiller, data, workers.strategy, 2).epochs(3)]
        weights += [np.asarray(weight).ravel().tolist() for weight in model.get_weights()]
    shares = [workers.sum(np.asarray(workers.share(10))[:1] + 1.0).tolist(), len(workers.share(10))]
    print(json.dumps({"losses": losses, "weights": weights, "shares": shares}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

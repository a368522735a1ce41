"""A two-tower model of TensorFlow Recommenders, trained in a process of its own.

TensorFlow Recommenders wants Keras 2 as `tf.keras`, everything else here is Keras 3, and one process has one of them as
`tf.keras`. `pipelines.tfrs_teacher` starts this module with TF_USE_LEGACY_KERAS=1 in its environment.
"""

import dataclasses
import json
import signal
import sys
import time

import numpy as np
import tensorflow as tf
import tensorflow_recommenders as tfrs

from rd_tf.data.interactions import user_offsets
from rd_tf.data.windows import SplitData, last_items, open_dataset
from rd_tf.runtime import print_line

_USERS_AT_ONCE = 4096


@dataclasses.dataclass(frozen=True)
class TowerSettings:
    """What is to be trained; the names are those of the flags.

    Attributes:
        vectors: the .npz file to write: `users` `[users, dim] float32`, what the users are looking for after their
            training items, and `items` `[num_items + 1, dim] float32`.
    """

    dataset: str
    split: str
    dim: int
    sequence_length: int
    epochs: int
    batch_size: int
    learning_rate: float
    l2: float
    dropout: float
    seed: int
    vectors: str


class UserTower(tf.keras.Model):
    """A user's vector: that of the user and the mean of those of the last items.

    Args:
        num_users: users are numbered from 0.
        num_items: items are numbered from 1; 0 is the padding.
        dim: d.
        l2: l2 * w is added to the gradient of every weight.
        dropout: share of the vector's numbers that are dropped in training.
    """

    def __init__(self, num_users: int, num_items: int, dim: int, l2: float, dropout: float) -> None:
        super().__init__()
        self.user_table = _table(num_users, dim, l2)
        self.item_table = _table(num_items + 1, dim, l2)
        self.dropout = tf.keras.layers.Dropout(dropout)

    def call(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """`user` `[b] int32` and `recent` `[b, L] int32`, 0 = padding, to `[b, dim] float32`."""
        is_item = tf.cast(inputs["recent"] > 0, tf.float32)[..., None]
        total = tf.reduce_sum(self.item_table(inputs["recent"]) * is_item, axis=1)
        mean = tf.math.divide_no_nan(total, tf.reduce_sum(is_item, axis=1))
        return self.dropout(self.user_table(inputs["user"]) + mean, training=training)


class TwoTowers(tfrs.models.Model):
    """Softmax over the items of the batch, corrected for how often an item is in a batch.

    Source: Yi et al., RecSys 2019, "Sampling-bias-corrected neural modeling for large corpus item recommendations".

    Args:
        user_tower: gives queries.
        item_tower: from items `[b] int32` to `[b, dim] float32`.
        probability: `[num_items + 1] float32`, of an item to be the target of a row.
    """

    def __init__(self, user_tower: tf.keras.Model, item_tower: tf.keras.layers.Layer, probability: np.ndarray) -> None:
        super().__init__()
        self.user_tower, self.item_tower = user_tower, item_tower
        self.probability = tf.constant(probability)
        # The task adds the rows up by default, and --l2 would mean less the larger the batch is.
        mean = tf.keras.losses.CategoricalCrossentropy(
            from_logits=True, reduction=tf.keras.losses.Reduction.SUM_OVER_BATCH_SIZE
        )
        self.epoch_loss = tf.keras.metrics.Mean("epoch_loss")
        self.task = tfrs.tasks.Retrieval(loss=mean, loss_metrics=[self.epoch_loss], remove_accidental_hits=True)

    def compute_loss(self, inputs: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """The loss of a batch: `user`, `recent` and `target` `[b] int32`."""
        targets = inputs["target"]
        return self.task(
            self.user_tower(inputs, training=training),
            self.item_tower(targets),
            candidate_sampling_probability=tf.gather(self.probability, targets),
            candidate_ids=targets,
            compute_metrics=False,
        )


def _table(rows: int, dim: int, l2: float) -> tf.keras.layers.Embedding:
    # The regularizer's gradient has the factor 2.
    return tf.keras.layers.Embedding(rows, dim, embeddings_regularizer=tf.keras.regularizers.L2(l2 / 2) if l2 else None)


def training_rows(data: SplitData, sequence_length: int) -> dict[str, np.ndarray]:
    """Every training row with the items before it: `user` and `target` `[rows] int32`, `recent` `[rows, L] int32`."""
    users, items = data.users, data.items
    starts = user_offsets(users, data.num_users)[users]
    recent = last_items(items, starts, np.arange(len(items)) - starts, sequence_length)
    return {"user": users.astype(np.int32), "recent": recent, "target": items.astype(np.int32)}


def train_towers(settings: TowerSettings) -> None:
    """Trains the towers and writes their vectors; says a line an epoch."""
    tf.keras.utils.set_random_seed(settings.seed)
    tf.config.experimental.enable_op_determinism()
    data = open_dataset(settings.dataset).split(settings.split)
    rows = training_rows(data, settings.sequence_length)
    size = len(rows["target"])
    item_tower = _table(data.num_items + 1, settings.dim, settings.l2)
    user_tower = UserTower(data.num_users, data.num_items, settings.dim, settings.l2, settings.dropout)
    counts = np.bincount(rows["target"], minlength=data.num_items + 1)
    model = TwoTowers(user_tower, item_tower, (counts / size).astype(np.float32))
    model.compile(optimizer=tf.keras.optimizers.Adam(settings.learning_rate))
    tensors = {name: tf.constant(array) for name, array in rows.items()}
    generator = np.random.default_rng(settings.seed)
    print_line(f"two towers: {size:,} rows, {data.num_users:,} users, {data.num_items:,} items")
    for epoch in range(1, settings.epochs + 1):
        begin = time.monotonic()
        batches = tf.data.Dataset.from_tensor_slices(generator.permutation(size)).batch(settings.batch_size)
        batches = batches.map(lambda chosen: {name: tf.gather(tensor, chosen) for name, tensor in tensors.items()})
        losses = model.fit(batches.prefetch(2), verbose=0).history["epoch_loss"]
        print_line(f"epoch {epoch} of {settings.epochs}: loss {losses[-1]:.4f}, {time.monotonic() - begin:.1f} s")
    np.savez(
        settings.vectors,
        users=user_vectors(user_tower, data, settings.sequence_length),
        items=item_tower.get_weights()[0],
    )


def user_vectors(user_tower: UserTower, data: SplitData, sequence_length: int) -> np.ndarray:
    """`[users, dim] float32`: the vectors of all users after their training items."""
    users = np.arange(data.num_users, dtype=np.int32)
    blocks = []
    for begin in range(0, len(users), _USERS_AT_ONCE):
        block = users[begin : begin + _USERS_AT_ONCE]
        recent = data.seen.last(block, sequence_length)
        blocks.append(user_tower({"user": tf.constant(block), "recent": tf.constant(recent)}).numpy())
    return np.concatenate(blocks)


if __name__ == "__main__":
    # Ctrl-C reaches both processes, and the one that waits ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    train_towers(TowerSettings(**json.loads(sys.argv[1])))

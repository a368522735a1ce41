"""A ranker of your own, a GRU over the recent items: python examples/own_ranker.py. The commands know it, too:

python -m rd_tf.train --import_module=own_ranker --model=gru --units=32 --dataset=... --run_dir=...
"""

import keras
from keras import ops

import rd_tf


@rd_tf.register_ranker("gru")
class GRURanker(rd_tf.SequenceRanker):
    def __init__(self, num_users, num_items, sequence_length=5, dim=16, units: int = 32, **kwargs):
        super().__init__(num_users, num_items, sequence_length, query_dim=dim, **kwargs)
        self.dim, self.units = dim, units
        self.build_item_table()
        self.gru = keras.layers.GRU(units, name="gru")
        self.project = keras.layers.Dense(dim, name="project")
        self.gru.build((None, sequence_length, dim))
        self.project.build((None, units))
        self.built = True

    def encode(self, user, sequence, training=False, history=None, noise=None):
        items = ops.take(self.item_table, sequence, axis=0)
        return self.project(self.gru(items, mask=ops.not_equal(sequence, 0)))


if __name__ == "__main__":
    data = rd_tf.synthetic_dataset(num_users=500, num_items=500).split("validation")
    teacher = rd_tf.models.Caser.for_dataset(data, dim=32)
    rd_tf.RankingDistiller(teacher).fit(data, epochs=8, batch_size=128, verbose=2)
    distiller = rd_tf.RankingDistiller(GRURanker.for_dataset(data), rd_tf.teacher_lists(teacher, data))
    distiller.compile(optimizer=rd_tf.optimizers.LazyAdam(5e-3))
    distiller.fit(data, epochs=8, batch_size=128, verbose=2)
    print(f"MAP: {rd_tf.evaluate(distiller.student, data).metrics['map']:.4f}")
    print("exported", rd_tf.export(distiller.student, data, "saved_models/gru"))

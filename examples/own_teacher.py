"""A teacher of your own, lists in a Parquet file, and a loss of your own: python examples/own_teacher.py"""

import numpy as np
import pandas as pd
from keras import ops

import rd_tf


@rd_tf.register_loss("my_softmax")
class Listwise(rd_tf.losses.DistillationLoss):
    """Cross entropy of the teacher's probabilities, a softmax of its scores, over its list."""

    needs = frozenset({"teacher_scores"})

    def __init__(self, softness: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.softness = softness

    def call(self, told, student_logits):
        wanted = ops.softmax(told["teacher_scores"] / self.softness)
        return -ops.sum(wanted * ops.log_softmax(student_logits), axis=1)


data = rd_tf.synthetic_dataset(num_users=600, num_items=600).split("validation")
ids = data.interactions
# Items that often come with a user's items: any other system could have written this file.
visits = np.zeros((data.num_users, data.num_items), "float32")
visits[data.users, data.items - 1] = 1
scores = visits @ (visits.T @ visits / (1 + visits.sum(0))) - 1e6 * visits
best = np.argsort(-scores, axis=1)[:, :10]
rows = [(ids.user_ids[u], ids.item_ids[i], scores[u, i]) for u in range(data.num_users) for i in best[u]]
pd.DataFrame(rows, columns=["user_id", "item_id", "score"]).to_parquet("lists.parquet")

lists = rd_tf.read_teacher_lists("lists.parquet", data, score_column="score", mask="seen", incomplete="pad")
distiller = rd_tf.RankingDistiller(rd_tf.models.Caser.for_dataset(data, dim=16), lists)
distiller.compile(optimizer=rd_tf.optimizers.LazyAdam(5e-3), distillation_loss=Listwise(softness=2.0), alpha=0.5)
distiller.fit(data, epochs=8, batch_size=128, verbose=2)
print(f"MAP: {rd_tf.evaluate(distiller.student, data).metrics['map']:.4f}")

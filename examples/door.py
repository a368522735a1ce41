"""The door: a teacher, a student distilled from it, and its export, in the manner of Keras.

python examples/door.py: one minute on 2 cores, on the built-in world; `rd_tf.load_dataset(DIR)` reads one of your own.
"""

import keras

import rd_tf

data = rd_tf.synthetic_dataset(num_users=500, num_items=500).split("validation")

# A ranker alone: the teacher.
teacher = rd_tf.models.Caser.for_dataset(data, dim=48)
rd_tf.RankingDistiller(teacher).fit(data, epochs=8, batch_size=128, verbose=2)

# Its lists, and a student that learns from them.
lists = rd_tf.teacher_lists(teacher, data, k=10)
student = rd_tf.models.Caser.for_dataset(data, dim=12)
distiller = rd_tf.RankingDistiller(student, lists)
distiller.compile(
    optimizer=rd_tf.optimizers.LazyAdam(5e-3, l2=1e-6),
    ranking_loss=rd_tf.losses.PointwiseLogLoss(),
    distillation_loss=rd_tf.losses.WeightedPointwiseDistillation(temperature=1.0, sharpness=0.1),
    student_rank_from_epoch=3,
)
validation = rd_tf.callbacks.Validation(every=2)
distiller.fit(data, epochs=8, batch_size=128, verbose=2, callbacks=[validation, keras.callbacks.TensorBoard("logs")])

print(f"MAP: teacher {rd_tf.evaluate(teacher, data).metrics['map']:.4f}, student {validation.best_map:.4f}")
print("exported", rd_tf.export(student, data, "saved_models/door"))

"""Loss scaling that looks at the rows of sparse gradients."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("rd_tf")
class SparseLossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """`keras.optimizers.LossScaleOptimizer` with a check of `tf.IndexedSlices` row by row.

    Keras 3.15 writes the check's results into a tensor of the whole table first: that costs a table a step, and where a
    row occurs twice, a finite gradient can hide one that is not.
    """

    def check_finite(self, grads: list[tf.Tensor | tf.IndexedSlices | None]) -> tf.Tensor:
        values = [grad.values if isinstance(grad, tf.IndexedSlices) else grad for grad in grads if grad is not None]
        return tf.reduce_all([tf.reduce_all(tf.math.is_finite(value)) for value in values])

"""Loss scaling that all replicas agree on, and that looks at the rows of sparse gradients."""

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("rd_tf")
class SparseLossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """`keras.optimizers.LossScaleOptimizer` for `tf.IndexedSlices` and for several replicas.

    Both are a matter of the check whether a step's gradients are finite, where Keras 3.15

    - writes the results for sparse gradients into a tensor of the whole table first: that costs a table a step, and
      where a row occurs twice, a finite gradient can hide one that is not;
    - takes the first replica's word, before gradients are summed over the replicas: an overflow on another one would
      reach the weights of all.

    A step that overflows on any replica is skipped by all, on all workers: weights, moments and the number of steps
    that Adam's bias correction looks at stay as they were, and the scale is halved. `dynamic_scale` and `step_counter`
    are variables of the optimizer, so a checkpoint of its variables has them.
    """

    def check_finite(self, grads: list[tf.Tensor | tf.IndexedSlices | None]) -> tf.Tensor:
        values = [grad.values if isinstance(grad, tf.IndexedSlices) else grad for grad in grads if grad is not None]
        is_finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(value)) for value in values])
        # Called in a replica's context, outside of the branches that apply or skip the step.
        overflows = tf.distribute.get_replica_context().all_reduce(
            tf.distribute.ReduceOp.SUM, tf.cast(tf.logical_not(is_finite), tf.float32)
        )
        return tf.equal(overflows, 0.0)

"""Adam with the authors' L2, on TensorFlow's fused kernel."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("rd_tf")
class AdamL2(keras.optimizers.Optimizer):
    """Adam whose gradient is `gradient + l2 * weight`, for every weight in every step.

    Two things differ from `keras.optimizers.Adam`, and both decide the results:

    - L2 goes through Adam's moments, on all rows of an embedding table, used in the batch or not. A row that is not
      used has a gradient of only `l2 * weight`, which Adam rescales to nearly a full step: unused rows shrink at almost
      the learning rate. AdamW and a penalty on the batch's rows do something else.
    - epsilon is added after the bias correction, `m_hat / (sqrt(v_hat) + epsilon)` (Kingma & Ba, algorithm 1), where
      Keras adds it before. With gradients near 1e-8, as above, that is no rounding matter.

    Args:
        learning_rate: step size, or a schedule of it.
        l2: weight of the L2 term, at least 0.
        beta_1: decay of the first moment.
        beta_2: decay of the second moment.
        epsilon: keeps the quotient finite.

    Raises:
        ValueError: a negative l2.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1e-3,
        l2: float = 0.0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        name: str = "adam_l2",
        **kwargs: Any,
    ) -> None:
        if l2 < 0:
            raise ValueError(f"l2 must be at least 0; received {l2}")
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.l2 = l2
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        super().build(variables)
        self._momentums, self._velocities = self.add_optimizer_variables(variables, ["momentum", "velocity"])

    def update_step(self, gradient: Any, variable: tf.Variable, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations + 1, tf.float32)
        beta_1_power, beta_2_power = tf.pow(self.beta_1, step), tf.pow(self.beta_2, step)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=beta_1_power,
            beta2_power=beta_2_power,
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            # The kernel divides by sqrt(v) + epsilon before the bias correction; this moves epsilon after it.
            epsilon=self.epsilon * tf.sqrt(1.0 - beta_2_power),
            grad=self._with_l2(gradient, variable),
        )

    def _with_l2(self, gradient: Any, variable: tf.Variable) -> tf.Tensor:
        if not isinstance(gradient, tf.IndexedSlices):
            return gradient + self.l2 * variable if self.l2 else gradient
        # The dense gradient begins as the L2 term and the batch's rows are added to it: one pass less than
        # summing the rows into zeros and then adding the term.
        dense = self.l2 * variable if self.l2 else tf.zeros_like(variable)
        return tf.tensor_scatter_nd_add(dense, gradient.indices[:, None], gradient.values)

    def get_config(self) -> dict[str, Any]:
        own = {"l2": self.l2, "beta_1": self.beta_1, "beta_2": self.beta_2, "epsilon": self.epsilon}
        return {**super().get_config(), **own}

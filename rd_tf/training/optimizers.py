"""Optimizers: Adam with L2 on the gradient, its lazy form for item tables, warm-up, loss scaling."""

import math
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from rd_tf.storage import InputError


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


# Elements of a table that the upkeep handles at once: 16 MiB of float32, so that a table of a million rows needs no
# second one beside it.
_UPKEEP_ELEMENTS = 2**22


@keras.saving.register_keras_serializable("rd_tf")
class LazyAdam(AdamL2):
    """Adam with row-sparse updates of embedding tables: a step costs what its batch holds, not what the tables hold.

    Tables are the variables whose attribute `row_sparse` is true (`SequenceRanker.add_table` sets it). All others are
    updated as `AdamL2` does. Of a table, a step touches the rows of the gradient's `tf.IndexedSlices` and nothing else;
    duplicate rows are summed first. The three things that dense Adam does to the other rows are kept:

    - The second moment decays in every step, whether a row is used or not. It is stored in units that grow by
      1 / beta_2 a step, in which it is a plain sum of squares, `v beta_2^-t`: the decay of all rows costs nothing.
    - The first moment spreads a gradient over the steps after it, in sum once the gradient. A table's row takes it at
      once and stores no first moment; between two visits of a row nobody sees the difference.
    - L2 shrinks every row in every step, by `learning_rate * l2 * w / (sqrt(v_hat) + epsilon)`. The steps since the
      last time are made up for all rows together, with the sum of their learning rates, every `upkeep_steps` steps and
      in `finalize_variable_values`, never beyond zero. So a row that is never used shrinks to zero here too.

    TensorFlow Addons' LazyAdam is another thing: it lets both moments of unused rows stand still, so that the rarer a
    row, the smaller its steps are against dense Adam's.

    Args:
        learning_rate: step size, or a schedule of it.
        l2: weight of the L2 term, at least 0.
        upkeep_steps: steps after which the shrinking of all rows is made up, at least 1.
        beta_1: decay of the first moment (all variables but tables).
        beta_2: decay of the second moment.
        epsilon: keeps the quotient finite.

    Raises:
        ValueError: a negative l2, or upkeep_steps below 1 or too many for beta_2 (19,990 for 0.999).
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 1e-3,
        l2: float = 0.0,
        upkeep_steps: int = 1000,
        name: str = "lazy_adam",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate=learning_rate, l2=l2, name=name, **kwargs)
        # Far below what float32 holds, with room for the squares of gradients.
        if upkeep_steps < 1 or -upkeep_steps * math.log(self.beta_2) > 20:
            raise ValueError(
                f"upkeep_steps must be at least 1, and beta_2 ** -upkeep_steps at most e ** 20; "
                f"received {upkeep_steps} with beta_2={self.beta_2}"
            )
        self.upkeep_steps = upkeep_steps

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        keras.optimizers.Optimizer.build(self, variables)
        self._momentums, self._velocities = [], []
        # By the number of a table: the step until which its rows are as dense Adam would have them.
        self._kept_until: dict[int, keras.Variable] = {}
        # The sum of the learning rates since then, of which a schedule makes each another one.
        self._rates_since: dict[int, keras.Variable] = {}
        for index, variable in enumerate(variables):
            self._velocities.append(self.add_variable_from_reference(variable, "velocity"))
            if getattr(variable, "row_sparse", False):
                self._momentums.append(None)
                self._kept_until[index] = self.add_variable((), dtype="int64", initializer="zeros", name="kept_until")
                self._rates_since[index] = self.add_variable((), initializer="zeros", name="rates_since")
            else:
                self._momentums.append(self.add_variable_from_reference(variable, "momentum"))

    def update_step(self, gradient: Any, variable: tf.Variable, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        if index not in self._kept_until:
            super().update_step(gradient, variable, learning_rate)
            return
        rate, step = tf.cast(learning_rate, tf.float32), tf.cast(self.iterations, tf.int64) + 1
        steps_since = step - self._kept_until[index].value
        rows, values = _summed_rows(gradient, variable)
        growth = tf.pow(self.beta_2, -0.5 * tf.cast(steps_since, tf.float32))
        # From a quotient by the root of the sum of squares to one by the root of v_hat.
        correction = tf.sqrt(self._bias_correction(step) / (1.0 - self.beta_2))
        velocity = self._velocities[index].value
        values = values * growth
        sums = tf.gather(velocity, rows) + values * values
        weights = tf.gather(variable, rows) - rate * correction * values / (
            tf.sqrt(sums) + self.epsilon * correction * growth
        )
        # ResourceSparseApplyAdagradV2 does all this in one operation, but one number at a time on one core.
        tf.raw_ops.ResourceScatterUpdate(resource=velocity.handle, indices=rows, updates=sums)
        tf.raw_ops.ResourceScatterUpdate(resource=variable.handle, indices=rows, updates=weights)
        self._rates_since[index].value.assign_add(rate)
        is_due = steps_since >= self.upkeep_steps
        tf.cond(is_due, lambda: self._keep_up(index, variable, step), lambda: None)

    def finalize_variable_values(self, var_list: list[keras.Variable]) -> None:
        """Makes up the shrinking of all rows until now; to be called before the tables are read as a whole."""
        step = tf.cast(self.iterations, tf.int64)

        def keep_up(variable: tf.Variable) -> None:
            self._keep_up(self._get_variable_index(variable), variable, step)

        for variable in var_list:
            if self._get_variable_index(variable) in self._kept_until:
                self._distribution_strategy.extended.update(variable.value, keep_up, group=False)
        super().finalize_variable_values(var_list)

    def _keep_up(self, index: int, variable: tf.Variable, step: tf.Tensor) -> None:
        velocity, kept_until = self._velocities[index].value, self._kept_until[index].value
        rates_since = self._rates_since[index].value
        rates = rates_since.read_value()
        decay = tf.pow(self.beta_2, tf.cast(step - kept_until, tf.float32))
        # From the root of the sum of squares to the root of v_hat. In step 0 there is nothing to keep up.
        scale = tf.sqrt((1.0 - self.beta_2) * decay / self._bias_correction(tf.maximum(step, 1)))
        num_rows = variable.shape[0]
        block = max(1, _UPKEEP_ELEMENTS // max(1, variable.shape[1:].num_elements()))

        def keep_up_block(begin: tf.Tensor) -> list[tf.Tensor]:
            rows = tf.range(begin, tf.minimum(begin + block, num_rows))
            # l2 * w belongs to the gradient, so v is at least its square: no row shrinks faster than the learning rate.
            smallest = self.l2 * tf.abs(tf.gather(variable, rows)) + self.epsilon
            root = tf.sqrt(tf.gather(velocity, rows)) * scale + smallest
            kept = tf.nn.relu(1.0 - rates * self.l2 / root)
            tf.raw_ops.ResourceScatterMul(resource=variable.handle, indices=rows, updates=kept)
            tf.raw_ops.ResourceScatterMul(resource=velocity.handle, indices=rows, updates=decay)
            return [begin + block]

        # One block after the other: side by side their temporaries would add up to the table again.
        tf.while_loop(lambda begin: begin < num_rows, keep_up_block, [tf.constant(0)], parallel_iterations=1)
        kept_until.assign(step)
        rates_since.assign(0.0)
        # Row updates leave a variable in a mode in which every reading of it as a whole copies it.
        tf.raw_ops.DisableCopyOnRead(resource=variable.handle)

    def _bias_correction(self, step: tf.Tensor) -> tf.Tensor:
        return 1.0 - tf.pow(self.beta_2, tf.cast(step, tf.float32))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "upkeep_steps": self.upkeep_steps}


def _summed_rows(gradient: Any, variable: tf.Variable) -> tuple[tf.Tensor, tf.Tensor]:
    """Distinct rows and the sums of their gradients."""
    if not isinstance(gradient, tf.IndexedSlices):
        return tf.range(variable.shape[0]), gradient
    rows, places = tf.unique(gradient.indices)
    return rows, tf.math.unsorted_segment_sum(gradient.values, places, tf.size(rows))


@keras.saving.register_keras_serializable("rd_tf")
class LinearWarmup(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly over the first `steps` steps and stays: step t, counted from 1, has `learning_rate * t / steps`.

    No step has the rate 0, and step number `steps` is the first of the full rate. For large batches, whose full rate
    would let the first steps diverge. Source: Goyal et al., arXiv 1706.02677, section 2.2 ("gradual warmup").

    Args:
        learning_rate: the full step size, above 0.
        steps: steps of the rise, at least 1; 1 is no rise at all.

    Raises:
        ValueError: one of them is out of range.
    """

    def __init__(self, learning_rate: float, steps: int) -> None:
        if learning_rate <= 0 or steps < 1:
            raise ValueError(
                f"learning_rate must be above 0 and steps at least 1; received learning_rate={learning_rate}, "
                f"steps={steps}"
            )
        self.learning_rate = learning_rate
        self.steps = steps

    def __call__(self, step: Any) -> Any:
        """The rate of a step: `[] float32`.

        Args:
            step: steps taken before it, `[] int`.
        """
        return self.learning_rate * ops.minimum((ops.cast(step, "float32") + 1.0) / self.steps, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {"learning_rate": self.learning_rate, "steps": self.steps}


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


OPTIMIZERS: dict[str, type[AdamL2]] = {"adam": AdamL2, "lazy_adam": LazyAdam}


def make_optimizer(name: str, learning_rate: float, l2: float, warmup_steps: int = 0) -> keras.optimizers.Optimizer:
    """Makes an optimizer.

    Args:
        name: a key of `OPTIMIZERS`, or a Keras optimizer by its name, such as "adagrad".
        learning_rate: step size.
        l2: weight of the L2 term, at least 0. Keras' optimizers have none and take 0 only.
        warmup_steps: steps over which the step size rises to `learning_rate`; 0 for none.

    Raises:
        InputError: an unknown name, or an L2 term that the optimizer does not have.
    """
    rate = LinearWarmup(learning_rate, warmup_steps) if warmup_steps else learning_rate
    if name in OPTIMIZERS:
        return OPTIMIZERS[name](rate, l2)
    try:
        optimizer = keras.optimizers.get({"class_name": name, "config": {"learning_rate": 1.0}})
    except (ValueError, TypeError):
        raise InputError(
            f"--optimizer={name} is not known; it is one of {', '.join(OPTIMIZERS)}, or an optimizer of Keras such as "
            "adagrad or sgd"
        ) from None
    if l2:
        raise InputError(
            f"--l2={l2} is an L2 term that Keras' {name} does not have; give --l2=0 or --optimizer=lazy_adam"
        )
    return type(optimizer)(learning_rate=rate)


def optimizer_scalars(optimizer: keras.optimizers.Optimizer) -> dict[str, float]:
    """What changes in an optimizer from epoch to epoch, by the name that TensorBoard shows.

    Returns:
        `train/learning_rate` of the step that comes next, and `train/loss_scale` where losses are scaled.
    """
    scalars = {"train/learning_rate": optimizer.learning_rate}
    if isinstance(optimizer, SparseLossScaleOptimizer):
        scalars["train/loss_scale"] = optimizer.dynamic_scale
    # A variable of several replicas is no number by itself.
    return {name: float(keras.ops.convert_to_numpy(value)) for name, value in scalars.items()}

"""The optimizers by name."""

import keras

from rd_tf.training.adam_l2 import AdamL2
from rd_tf.training.lazy_adam import LazyAdam
from rd_tf.training.linear_warmup import LinearWarmup
from rd_tf.training.loss_scale import SparseLossScaleOptimizer

OPTIMIZERS: dict[str, type[AdamL2]] = {"adam": AdamL2, "lazy_adam": LazyAdam}


def make_optimizer(name: str, learning_rate: float, l2: float, warmup_steps: int = 0) -> keras.optimizers.Optimizer:
    """Makes an optimizer.

    Args:
        name: a key of `OPTIMIZERS`.
        learning_rate: step size.
        l2: weight of the L2 term, at least 0.
        warmup_steps: steps over which the step size rises to `learning_rate`; 0 for none.

    Raises:
        ValueError: an unknown name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}; received {name!r}")
    return OPTIMIZERS[name](LinearWarmup(learning_rate, warmup_steps) if warmup_steps else learning_rate, l2)


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

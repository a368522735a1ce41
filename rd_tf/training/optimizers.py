"""The optimizers by name."""

import keras

from rd_tf.training.adam_l2 import AdamL2
from rd_tf.training.lazy_adam import LazyAdam
from rd_tf.training.linear_warmup import LinearWarmup

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

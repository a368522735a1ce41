"""A learning rate that rises to its full size over the first steps."""

from typing import Any

import keras
from keras import ops


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

"""One training step: ranking loss plus alpha times distillation loss."""

import dataclasses
from typing import Any

import keras
import tensorflow as tf

from rd_tf.data.sampling import GROUP
from rd_tf.losses.distillation import WeightedPointwiseDistillation
from rd_tf.losses.ranking import PointwiseLogLoss
from rd_tf.losses.weights import (
    discrepancy_weight,
    estimate_student_rank,
    exact_student_rank,
    hybrid_weight,
    position_weight,
)
from rd_tf.models.ranker import Histories, SequenceRanker

REPORTED = ("loss", "ranking_loss", "distillation_loss", "mean_weight", "zero_weight_share")


@dataclasses.dataclass(frozen=True)
class Distillation:
    """How a student learns from the teacher's lists.

    Attributes:
        alpha: weight of the distillation loss.
        position_temperature: lambda of w^a.
        discrepancy_sharpness: mu of w^b.
        discrepancy_start_epoch: epochs trained with w^a alone.
        exact_rank: count the student's rank over the whole catalogue instead of estimating it.
        renormalize: scale w^a * w^b to sum to 1 over a list.
    """

    alpha: float = 1.0
    position_temperature: float = 1.0
    discrepancy_sharpness: float = 0.1
    discrepancy_start_epoch: int = 10
    exact_rank: bool = False
    renormalize: bool = False


class TrainStep:
    """Computes losses and updates a ranker; runs inside `strategy.run`.

    A replica's loss is the sum over its rows divided by the rows of the global batch, and gradients are summed over
    replicas, so any number of replicas takes the step that one device would take on the same global batch.

    Args:
        model: the ranker to train.
        optimizer: a Keras optimizer; a `LossScaleOptimizer` works too.
        distillation: None trains on the ranking loss alone.
    """

    def __init__(
        self, model: SequenceRanker, optimizer: keras.optimizers.Optimizer, distillation: Distillation | None = None
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.distillation = distillation
        self._ranking_loss = PointwiseLogLoss(reduction=None)
        self._distillation_loss = WeightedPointwiseDistillation(reduction=None)

    def __call__(self, batch: dict[str, tf.Tensor], with_discrepancy: bool) -> tf.Tensor:
        """Takes one step.

        Args:
            batch: a replica's part, as `TrainingBatches` gives it.
            with_discrepancy: whether w^b is in the weights of this epoch.

        Returns:
            `[5] float32`, this replica's share of the means named by `REPORTED`; their sum over replicas is the mean.
        """
        per_row = 1.0 / tf.cast(batch["global_size"], tf.float32)
        variables = self.model.trainable_variables
        with tf.GradientTape() as tape:
            history = Histories.of(batch)
            query = self.model.encode(
                batch["user"], batch["sequence"], training=True, history=history, noise=batch.get("noise")
            )
            num_ranked = batch["items"].shape[1]
            items, distillation = batch["items"], self.distillation
            if distillation is not None:
                items = tf.concat([items, batch["teacher_items"]], 1)
            logits = self.model.score(query, items)
            ranking = tf.reduce_sum(self._ranking_loss(batch["labels"], logits[:, :num_ranked])) * per_row
            loss, reported = ranking, [ranking, 0.0, 0.0, 0.0]
            if distillation is not None:
                teacher_logits = logits[:, num_ranked:]
                weight = self._weight(distillation, batch, query, tf.stop_gradient(teacher_logits), with_discrepancy)
                distilled = tf.reduce_sum(self._distillation_loss(weight, teacher_logits)) * per_row
                loss = ranking + distillation.alpha * distilled
                cells = per_row / float(weight.shape[1])
                zeros = tf.reduce_sum(tf.cast(tf.equal(weight, 0.0), tf.float32)) * cells
                reported = [ranking, distilled, tf.reduce_sum(weight) * cells, zeros]
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [v.value for v in variables])
        self.optimizer.apply(gradients, variables)
        return tf.stack([loss, *reported])

    def finish_epoch(self) -> None:
        """Lets the optimizer bring all weights up to date; to be called outside of `strategy.run`."""
        self.optimizer.finalize_variable_values(self.model.trainable_variables)

    def _weight(
        self,
        distillation: Distillation,
        batch: dict[str, tf.Tensor],
        query: tf.Tensor,
        teacher_logits: tf.Tensor,
        with_discrepancy: bool,
    ) -> Any:
        position = position_weight(teacher_logits.shape[1], distillation.position_temperature)
        if not with_discrepancy:
            return tf.zeros_like(teacher_logits) + position
        query = tf.stop_gradient(query)
        if distillation.exact_rank:
            # Both from one matrix product: rounded otherwise, an item's own score could count as higher than itself.
            all_logits = tf.stop_gradient(self.model.score_all(query))
            own = tf.gather(all_logits, batch["teacher_items"], batch_dims=1)
            rank = exact_student_rank(own, all_logits)
        else:
            sampled_logits = self.model.score_shared(query, batch["sampled_items"], GROUP)
            # Counted out of all samples, so the estimate is of the unseen items that rank higher.
            sampled_logits = tf.stop_gradient(tf.where(batch["is_unseen"], sampled_logits, -float("inf")))
            rank = estimate_student_rank(teacher_logits, sampled_logits, self.model.num_items)
        discrepancy = discrepancy_weight(rank, distillation.discrepancy_sharpness)
        return hybrid_weight(position, discrepancy, distillation.renormalize)

"""RankingDistiller: a ranker that learns from what came next and from a teacher's lists, in the manner of Keras."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from rd_tf.data.batches import TrainingBatches, training_batches
from rd_tf.data.sampling import DISTRIBUTIONS, GROUP
from rd_tf.data.teacher_lists import TeacherCache
from rd_tf.data.windows import SplitData
from rd_tf.losses.distillation import DistillationLoss, WeightedPointwiseDistillation
from rd_tf.losses.ranking import PointwiseLogLoss
from rd_tf.losses.weights import estimate_student_rank, exact_student_rank
from rd_tf.models.ranker import Histories, SequenceRanker
from rd_tf.training.optimizers import LazyAdam, SparseLossScaleOptimizer

REPORTED = ("loss", "ranking_loss", "distillation_loss", "mean_weight", "zero_weight_share")
# What losses may ask for; see `RankingLoss.needs` and `DistillationLoss.needs`.
RANKING_NEEDS = frozenset({"sampled_logits", "shared_logits", "all_logits", "num_items"})
NEEDS = RANKING_NEEDS | {"teacher_scores", "student_rank", "list_noise", "item_groups"}


@keras.saving.register_keras_serializable("rd_tf")
class RankingDistiller(keras.Model):
    """Trains a ranker on the items that came next and, where there are any, on a teacher's top-K lists.

    `loss = ranking loss + alpha * distillation loss`, computed in `step` and nowhere else: `fit`, the commands and
    several replicas all take that step. Source: Tang & Wang, KDD 2018, equation 6.

        distiller = rd_tf.RankingDistiller(student, rd_tf.teacher_lists(teacher, data))
        distiller.compile(optimizer=rd_tf.optimizers.LazyAdam(1e-3, l2=1e-6))
        distiller.fit(data, epochs=50, callbacks=[rd_tf.callbacks.Validation(every=5)])

    Args:
        student: the ranker to train; its weights are this model's weights.
        lists: the teacher's lists for the windows that `fit` trains on, of `rd_tf.teacher_lists`,
            `rd_tf.read_teacher_lists` or a cache; None trains on the ranking loss alone.

    Attributes:
        student: the ranker.
        lists: the teacher's lists, or None.
    """

    def __init__(self, student: SequenceRanker, lists: TeacherCache | None = None, **kwargs: Any) -> None:
        super().__init__(**{"name": "ranking_distiller", **kwargs})
        self.student = student
        self.lists = lists
        # The student is built, so there is nothing that Keras could build by a trial call.
        self.built = True

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer | None = None,
        ranking_loss: keras.losses.Loss | None = None,
        distillation_loss: DistillationLoss | None = None,
        alpha: float = 1.0,
        student_rank_from_epoch: int = 10,
        exact_rank: bool = False,
        rank_samples: int = 100,
        shared_negatives: int = 1000,
        negative_sampling: str = "uniform",
        steps_per_execution: int = 1,
        run_eagerly: bool = False,
    ) -> None:
        """Sets how to train. Without it `fit` uses the defaults, which are the paper's with a lazy Adam.

        Args:
            optimizer: a Keras optimizer or its name; None is `rd_tf.optimizers.LazyAdam(1e-3, l2=1e-6)`. With a student
                of the policy mixed_float16 it is wrapped for loss scaling.
            ranking_loss: of the target and its negatives; None is `rd_tf.losses.PointwiseLogLoss()`.
            distillation_loss: of the teacher's lists; None is `rd_tf.losses.WeightedPointwiseDistillation()`.
            alpha: weight of the distillation loss, at least 0.
            student_rank_from_epoch: epochs without "student_rank" in what the distillation loss is told.
            exact_rank: whether that rank is counted over the whole catalogue instead of estimated from samples; it is
                the number of items, unseen by the user, that the student scores higher.
            rank_samples: items drawn for an estimate and for "sampled_logits", at least 1.
            shared_negatives: items drawn for "shared_logits", at least 1, the same for all rows of a batch.
            negative_sampling: how they are drawn, "uniform", "popularity" or "in_batch" (the targets of all rows, so
                as many as there are); see `rd_tf.data.sampling.SharedSampler`.
            steps_per_execution: steps in one call of the graph; 1 on several replicas.
            run_eagerly: whether steps run without a graph, for debugging.

        Raises:
            ValueError: a value out of range, or a loss asks for something unknown.
        """
        if alpha < 0 or student_rank_from_epoch < 0 or min(rank_samples, shared_negatives) < 1:
            raise ValueError(
                "alpha and student_rank_from_epoch must be at least 0, rank_samples and shared_negatives at least 1; "
                f"received {alpha}, {student_rank_from_epoch}, {rank_samples}, {shared_negatives}"
            )
        if negative_sampling not in DISTRIBUTIONS:
            raise ValueError(
                f"negative_sampling must be one of {', '.join(DISTRIBUTIONS)}; received {negative_sampling!r}"
            )
        if steps_per_execution > 1 and self.distribute_strategy.num_replicas_in_sync > 1:
            raise ValueError(
                "steps_per_execution must be 1 on several replicas, where TensorFlow takes the sparse gradients of a "
                f"call to be of one length; received {steps_per_execution}"
            )
        self.ranking_loss = PointwiseLogLoss() if ranking_loss is None else ranking_loss
        self.distillation_loss = WeightedPointwiseDistillation() if distillation_loss is None else distillation_loss
        self.alpha = alpha
        self.student_rank_from_epoch = student_rank_from_epoch
        self.exact_rank = exact_rank
        self.rank_samples = rank_samples
        self.shared_negatives = shared_negatives
        self.negative_sampling = negative_sampling
        self._with_student_rank = student_rank_from_epoch == 0
        for name, loss, known in (
            ("ranking_loss", self.ranking_loss, RANKING_NEEDS),
            ("distillation_loss", self.distillation_loss, NEEDS),
        ):
            if unknown := needs_of(loss) - known:
                raise ValueError(f"{name} needs {sorted(unknown)}, but it can be told {sorted(known)} only")
        if "item_groups" in needs_of(self.distillation_loss) and self.distillation_loss.popularity_groups < 1:
            raise ValueError("a distillation_loss that needs item_groups must say how many, in popularity_groups")
        with self.distribute_strategy.scope():
            optimizer = LazyAdam(1e-3, l2=1e-6) if optimizer is None else keras.optimizers.get(optimizer)
            if self.student.dtype_policy.name == "mixed_float16" and not isinstance(
                optimizer, keras.optimizers.LossScaleOptimizer
            ):
                optimizer = SparseLossScaleOptimizer(optimizer)
            if not optimizer.built:
                optimizer.build(self.student.trainable_variables)
            self._means = _Means()
        super().compile(
            optimizer=optimizer,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            # XLA compiles a step anew for every size of a batch and does not know sparse gradients.
            jit_compile=False,
            auto_scale_loss=False,
        )

    @property
    def is_distilled(self) -> bool:
        """Whether there are lists to learn from."""
        return self.lists is not None

    @property
    def needs(self) -> frozenset[str]:
        """What the compiled losses ask for."""
        return needs_of(self.ranking_loss) | (needs_of(self.distillation_loss) if self.is_distilled else frozenset())

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.student(inputs, training=training)

    def step(self, batch: dict[str, tf.Tensor], with_student_rank: bool) -> tf.Tensor:
        """Takes one step; on replicas it runs inside of `strategy.run`.

        A replica's loss is the sum over its rows divided by the rows of the global batch, and gradients are summed over
        replicas, so any number of replicas takes the step that one device would take on the same global batch.

        Args:
            batch: a replica's part, as `TrainingBatches` gives it.
            with_student_rank: whether the distillation loss is told the student's ranks, if it asks for them.

        Returns:
            `[5] float32`, this replica's share of the means named by `REPORTED`; their sum over replicas is the mean.
        """
        variables = self.student.trainable_variables
        with tf.GradientTape() as tape:
            loss, reported = self.compute_losses(batch, with_student_rank)
            scaled = self.optimizer.scale_loss(loss)
        gradients = tape.gradient(scaled, [variable.value for variable in variables])
        self.optimizer.apply(gradients, variables)
        return tf.stack([loss, *reported])

    def compute_losses(
        self, batch: dict[str, tf.Tensor], with_student_rank: bool, training: bool = True
    ) -> tuple[tf.Tensor, list[tf.Tensor | float]]:
        """A replica's share of the loss and of the other means of `REPORTED`; changes nothing."""
        student = self.student
        per_row = 1.0 / tf.cast(batch["global_size"], tf.float32)
        query = student.encode(
            batch["user"], batch["sequence"], training=training, history=Histories.of(batch), noise=batch.get("noise")
        )
        num_ranked, items = batch["items"].shape[1], batch["items"]
        if self.is_distilled:
            items = tf.concat([items, batch["teacher_items"]], 1)
        logits = student.score(query, items)
        sampled = self._sampled_logits(batch, query, with_student_rank)
        shared = student.score_together(query, batch["shared_items"]) if "shared_logits" in self.needs else None
        known = {"num_items": student.num_items, "sampled_logits": sampled}
        if "all_logits" in self.needs:
            known["all_logits"] = student.score_all(query)

        def tell(loss: keras.losses.Loss, mask: str, own: str) -> dict[str, Any]:
            asked = needs_of(loss)
            told = {name: value for name, value in known.items() if name in asked}
            return told | (_shared(batch, shared, mask, own) if "shared_logits" in asked else {})

        labels = batch["labels"]
        if needs_of(self.ranking_loss):
            labels = {"labels": labels, **tell(self.ranking_loss, "is_shared_negative", "items")}
        ranking = tf.reduce_sum(_values(self.ranking_loss, labels, logits[:, :num_ranked])) * per_row
        if not self.is_distilled:
            return ranking, [ranking, 0.0, 0.0, 0.0]
        loss, list_logits = self.distillation_loss, logits[:, num_ranked:]
        told, asked = tell(loss, "is_shared_unlisted", "teacher"), needs_of(loss)
        for name in asked & {"teacher_scores", "list_noise", "item_groups"}:
            told[name] = batch[name]
        if "student_rank" in asked and with_student_rank:
            told["student_rank"] = self._student_rank(batch, query, list_logits, sampled)
        distilled = tf.reduce_sum(_values(loss, told, list_logits)) * per_row
        total, weight = ranking + self.alpha * distilled, loss.weight(told, tf.stop_gradient(list_logits))
        if weight is None:
            return total, [ranking, distilled, 1.0 / _replicas(), 0.0]
        cells = per_row / float(weight.shape[1])
        zeros = tf.reduce_sum(tf.cast(tf.equal(weight, 0.0), tf.float32)) * cells
        return total, [ranking, distilled, tf.reduce_sum(weight) * cells, zeros]

    def train_step(self, batch: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        """What Keras' `fit` calls: takes a step and gives the epoch's means so far."""
        self._means.update_state(self.step(batch, self._with_student_rank))
        return self.get_metrics_result()

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [self._means] if self.compiled else []

    def fit(
        self,
        x: SplitData | tf.data.Dataset | None = None,
        epochs: int = 1,
        batch_size: int = 512,
        *,
        negatives: int = 3,
        target_length: int | None = None,
        user_dropout: float = 0.0,
        seed: int = 0,
        short_windows: bool | None = None,
        callbacks: Sequence[keras.callbacks.Callback] | keras.callbacks.Callback | None = None,
        initial_epoch: int = 0,
        verbose: str | int = "auto",
        **kwargs: Any,
    ) -> keras.callbacks.History:
        """Trains, as `keras.Model.fit` does.

        A batch depends on the seed and its number alone, so a fit that begins at `initial_epoch` with the optimizer of
        an earlier one goes on as if it had not stopped. At the end of every epoch, before callbacks are called, the
        optimizer brings rows of tables that were not used up to date.

        Args:
            x: `rd_tf.load_dataset(...).split(...)`, or a dataset of batches as `TrainingBatches` describes them.
            epochs: the last epoch, counted from 1.
            batch_size: windows a step, over all replicas together.
            negatives: negatives a target, drawn anew every epoch from what the user has not seen.
            target_length: T, items after a window that are to rank high; None is the lists' T, or 1.
            user_dropout: share of rows whose user is replaced by the unknown one, of a student with `unknown_user`.
            seed: of shuffling and draws.
            short_windows: whether there are windows of fewer than L items; None: if the student asks for them.
            callbacks: Keras' or `rd_tf.callbacks`.
            initial_epoch: epochs done before.
            verbose: as Keras' fit.
            **kwargs: other arguments of Keras' fit.

        Returns:
            Keras' History, with "loss", "ranking_loss", "distillation_loss", "mean_weight", "zero_weight_share".

        Raises:
            ValueError: the lists belong to other windows, or the loss is not finite.
        """
        if not self.compiled:
            self.compile()
        dataset: Any = x
        listed = [_EpochEnds(), *([] if callbacks is None else keras.tree.flatten(callbacks))]
        if isinstance(x, SplitData):
            batches = self.batches(x, batch_size, negatives, target_length, user_dropout, seed, short_windows)
            steps = batches.steps_per_epoch
            make = batches.input_function(initial_epoch * steps, epochs * steps)
            dataset = self.distribute_strategy.distribute_datasets_from_function(make)
            # Shuffled already.
            kwargs |= {"steps_per_epoch": steps, "shuffle": False}
            for callback in listed:
                if hasattr(callback, "set_data"):
                    callback.set_data(x)
        return super().fit(
            dataset, epochs=epochs, callbacks=listed, initial_epoch=initial_epoch, verbose=verbose, **kwargs
        )

    def batches(
        self,
        data: SplitData,
        batch_size: int,
        negatives: int,
        target_length: int | None = None,
        user_dropout: float = 0.0,
        seed: int = 0,
        short_windows: bool | None = None,
    ) -> TrainingBatches:
        """The batches that `fit` trains on.

        Raises:
            ValueError: the lists belong to other windows than these.
        """
        if target_length is None:
            target_length = 1 if self.lists is None else int(self.lists.manifest.get("target_length", 1))
        needs, loss = self.needs, self.ranking_loss
        samples = "sampled_logits" in needs or ("student_rank" in needs and not self.exact_rank)
        return training_batches(
            data,
            self.student,
            self.lists,
            batch_size=batch_size,
            negatives=negatives if getattr(loss, "takes_negatives", True) else 0,
            target_length=target_length,
            seed=seed,
            user_dropout=user_dropout,
            rank_samples=self.rank_samples if samples else 0,
            teacher_scores="teacher_scores" in needs,
            shared_negatives=self.shared_negatives if "shared_logits" in needs else 0,
            negative_sampling=self.negative_sampling,
            list_noise="list_noise" in needs,
            item_groups=self.distillation_loss.popularity_groups if "item_groups" in needs else 0,
            seen="student_rank" in needs and self.exact_rank,
            short_windows=short_windows,
        )

    def finish_epoch(self) -> None:
        """Lets the optimizer bring all weights up to date; to be called outside of `strategy.run`."""
        self.optimizer.finalize_variable_values(self.student.trainable_variables)

    def get_config(self) -> dict[str, Any]:
        return {"student": keras.saving.serialize_keras_object(self.student), "name": self.name}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> "RankingDistiller":
        """A distiller without its teacher's lists, which Keras cannot keep in a file of weights."""
        student = keras.saving.deserialize_keras_object(config["student"], custom_objects=custom_objects)
        return cls(student, name=config["name"])

    def get_compile_config(self) -> dict[str, Any]:
        names = ("optimizer", "ranking_loss", "distillation_loss", "alpha", "student_rank_from_epoch", "exact_rank")
        more = ("rank_samples", "shared_negatives", "negative_sampling")
        values = {name: getattr(self, name) for name in (*names, *more)}
        return {name: keras.saving.serialize_keras_object(value) for name, value in values.items()}

    def compile_from_config(self, config: dict[str, Any]) -> None:
        self.compile(**{name: keras.saving.deserialize_keras_object(value) for name, value in config.items()})

    def _sampled_logits(
        self, batch: dict[str, tf.Tensor], query: tf.Tensor, with_student_rank: bool
    ) -> tf.Tensor | None:
        is_learned_from = "sampled_logits" in self.needs
        estimates_ranks = with_student_rank and "student_rank" in self.needs and not self.exact_rank
        if not (is_learned_from or estimates_ranks):
            return None
        logits = self.student.score_shared(query, batch["sampled_items"], GROUP)
        if not is_learned_from:
            logits = tf.stop_gradient(logits)
        # Counted out of all samples, so the estimate is of the unseen items that rank higher.
        return tf.where(batch["is_unseen"], logits, -float("inf"))

    def _student_rank(
        self, batch: dict[str, tf.Tensor], query: tf.Tensor, list_logits: tf.Tensor, sampled: tf.Tensor | None
    ) -> tf.Tensor:
        if self.exact_rank:
            # Both from one matrix product: rounded otherwise, an item's own score could count as higher than itself.
            all_logits = tf.stop_gradient(self.student.score_all(tf.stop_gradient(query)))
            own = tf.gather(all_logits, batch["teacher_items"], batch_dims=1)
            seen = tf.stack([batch["seen_rows"], batch["seen_items"]], axis=1)
            unseen = tf.tensor_scatter_nd_min(all_logits, seen, tf.fill([tf.shape(seen)[0]], -float("inf")))
            return exact_student_rank(own, unseen)
        return estimate_student_rank(tf.stop_gradient(list_logits), tf.stop_gradient(sampled), self.student.num_items)


def needs_of(loss: keras.losses.Loss) -> frozenset[str]:
    """What a loss asks to be told."""
    return frozenset(getattr(loss, "needs", ()))


def _shared(batch: dict[str, tf.Tensor], logits: tf.Tensor, mask: str, own: str) -> dict[str, tf.Tensor]:
    """What a loss is told of shared negatives: logits that are corrected and masked, and the correction of its own."""
    told = {}
    if "shared_log_ratio" in batch:
        logits = logits - batch["shared_log_ratio"]
        told["log_ratio"] = batch[f"{own}_log_ratio"]
    return {**told, "shared_logits": tf.where(batch[mask], logits, -float("inf"))}


def _values(loss: keras.losses.Loss, told: Any, logits: tf.Tensor) -> tf.Tensor:
    # Not `loss(...)`: its reduction knows neither the rows of other replicas nor a smaller last batch.
    values = loss.call(told, logits)
    if values.shape.rank != 1:
        raise ValueError(f"{type(loss).__name__}.call must return [batch]; received the shape {values.shape}")
    return values


def _replicas() -> int:
    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if context is not None else 1


class _Means(keras.metrics.Metric):
    """Means over an epoch's steps of what a step reports, over all replicas."""

    def __init__(self) -> None:
        super().__init__(name="means", dtype="float32")
        self.sums = self.add_variable((len(REPORTED) + 1,), "zeros", name="sums")

    def update_state(self, values: tf.Tensor) -> None:
        self.sums.assign_add(tf.concat([values, [1.0 / _replicas()]], 0))

    def result(self) -> dict[str, tf.Tensor]:
        sums = tf.convert_to_tensor(self.sums)
        means = tf.math.divide_no_nan(sums[:-1], sums[-1])
        return dict(zip(REPORTED, tf.unstack(means), strict=True))


class _EpochEnds(keras.callbacks.Callback):
    """What every fit does between epochs, before the callbacks of the caller."""

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        distiller = self.model
        with_student_rank = epoch >= distiller.student_rank_from_epoch
        if distiller._with_student_rank != with_student_rank:
            distiller._with_student_rank = with_student_rank
            # Traced into the graph, so that epochs without it cost nothing for it.
            distiller.make_train_function(force=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.model.finish_epoch()
        loss = (logs or {}).get("loss", 0.0)
        if not abs(loss) < float("inf"):
            raise ValueError(f"the loss is not finite in epoch {epoch + 1}; use a smaller learning rate")

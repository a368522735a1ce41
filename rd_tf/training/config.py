"""What a training run is made of, typed: made once from the flags of `rd_tf.train`."""

import dataclasses
from typing import Any

import keras

from rd_tf import plugins
from rd_tf.models.registry import ModelConfig, has_short_windows
from rd_tf.storage import InputError


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How a ranker is trained; the attributes mean what the flags of their names do."""

    dataset: str
    split: str
    split_by: str
    seen_items: str
    target_length: int
    short_windows: str
    epochs: int
    batch_size: int
    negatives: int
    shared_negatives: int
    negative_sampling: str
    user_dropout: float
    seed: int
    optimizer: str
    learning_rate: float
    warmup_steps: int
    l2: float
    validate_every: int
    early_stopping: int
    cutoffs: list[str]
    steps_per_call: int
    block_size: int
    checkpoint_minutes: float


@dataclasses.dataclass(frozen=True)
class DistillationConfig:
    """Whose lists a student learns from, and how they are weighed; the attributes mean what the flags do."""

    teacher: str
    k: int
    mask: str
    alpha: float
    discrepancy_start_epoch: int
    rank_samples: int
    exact_rank: bool


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole run.

    Attributes:
        model: the ranker.
        training: how it is trained.
        distillation: from whom it learns; nobody where its teacher is empty.
        ranking_loss: made from its name and flags.
        distillation_loss: likewise.
    """

    model: ModelConfig
    training: TrainingConfig
    distillation: DistillationConfig
    ranking_loss: keras.losses.Loss
    distillation_loss: keras.losses.Loss

    @property
    def short_windows(self) -> bool:
        """Whether the run has windows of fewer than L items."""
        return has_short_windows(self.model.name, self.training.short_windows)

    @classmethod
    def of(cls, flags: dict[str, Any]) -> "RunConfig":
        """Sorts flags.

        Args:
            flags: those of `rd_tf.train`.

        Raises:
            InputError: an unknown ranker or loss, or values that its constructor refuses.
        """
        return cls(
            ModelConfig.of(flags),
            _pick(TrainingConfig, flags),
            _pick(DistillationConfig, flags),
            _loss(plugins.RANKING_LOSSES, "ranking_loss", flags),
            _loss(plugins.DISTILLATION_LOSSES, "distillation_loss", flags),
        )


def _pick(config: type, flags: dict[str, Any]) -> Any:
    return config(**{field.name: flags[field.name] for field in dataclasses.fields(config)})


def _loss(table: dict[str, plugins.Plugin], flag: str, flags: dict[str, Any]) -> keras.losses.Loss:
    plugin = plugins.find(table, flag, flags[flag])
    try:
        return plugin.load()(**plugin.arguments(flags))
    except ValueError as error:
        raise InputError(f"--{flag}={flags[flag]}: {error}") from None

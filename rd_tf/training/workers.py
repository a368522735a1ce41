"""Who trains together: devices, replicas, workers."""

import contextlib
import dataclasses
import os
import re
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from rd_tf.runtime import cluster
from rd_tf.storage import InputError

# What TensorFlow raises where another worker is gone, or does not take part any more.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.FailedPreconditionError,
    tf.errors.InternalError,
)


@dataclasses.dataclass(frozen=True)
class Workers:
    """The processes that train together.

    Attributes:
        strategy: distributes variables and steps.
        index: this process, from 0; worker 0 writes the run directory.
        count: how many there are.
    """

    strategy: tf.distribute.Strategy
    index: int = 0
    count: int = 1

    @property
    def is_chief(self) -> bool:
        return self.index == 0

    def sum(self, array: np.ndarray) -> np.ndarray:
        """Adds up an array over all workers; every worker gets the sum. Waits for all of them."""
        if self.count == 1:
            return array

        def own(context: tf.distribute.experimental.ValueContext) -> tf.Tensor:
            first = context.replica_id_in_sync_group % (context.num_replicas_in_sync // self.count) == 0
            return tf.constant(array if first else np.zeros_like(array))

        values = self.strategy.experimental_distribute_values_from_function(own)
        return np.asarray(self.strategy.reduce(tf.distribute.ReduceOp.SUM, values, axis=None))

    def wait(self) -> None:
        """Waits until every worker is here."""
        self.sum(np.zeros(1, np.float32))

    def share(self, count: int) -> range:
        """This worker's part of `count` things, in order, about equal."""
        return range(count * self.index // self.count, count * (self.index + 1) // self.count)

    @contextlib.contextmanager
    def explain_loss(self, where: Callable[[], str]) -> Iterator[None]:
        """Turns TensorFlow's error for a lost worker into one sentence.

        Args:
            where: says how far this worker had come.

        Raises:
            InputError: another worker is gone.
        """
        try:
            yield
        except _LOST as error:
            if self.count == 1:
                raise
            reason = re.search(r"aborted by: (.{1,200})", error.message or "")
            raise InputError(
                f"another of the {self.count} workers was lost {where()} ({reason[1] if reason else error.code}); "
                "start all of them again with the same commands, and training goes on from the last checkpoint"
            ) from None


def prepare_devices(strategy: str, replicas: int) -> None:
    """Splits a machine without GPUs into as many logical CPUs as replicas are asked for.

    To be called before TensorFlow's first operation; in a process that has run one before, nothing changes.
    """
    if strategy == "one" or replicas < 2 or tf.config.list_physical_devices("GPU"):
        return
    cpu = tf.config.list_physical_devices("CPU")[0]
    with contextlib.suppress(RuntimeError):
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)


def make_workers(strategy: str, replicas: int) -> Workers:
    """Joins the other workers, if there are any, and makes the strategy.

    Args:
        strategy: "auto", "one", "mirrored" or "multi_worker". auto: multi_worker where TF_CONFIG names several workers,
            else mirrored where there are several devices, else one.
        replicas: devices of this machine; 0 for all GPUs, or the CPU.

    Raises:
        InputError: TF_CONFIG is missing or wrong, or there are fewer devices than replicas.
    """
    index, count = cluster()
    # Nothing may ask for devices before: TensorFlow joins a cluster at its start or not at all.
    if strategy == "multi_worker" or (strategy == "auto" and count > 1):
        if "TF_CONFIG" not in os.environ:
            raise InputError(
                "--strategy=multi_worker needs TF_CONFIG in the environment: "
                '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
            )
        if count > 1:
            print(f"worker {index} of {count}: waiting for the others", flush=True)
        return Workers(tf.distribute.MultiWorkerMirroredStrategy(), index, count)
    if count > 1:
        raise InputError(f"--strategy={strategy}, but TF_CONFIG names {count} workers; use --strategy=multi_worker")
    devices = _devices(replicas)
    if strategy == "mirrored" or (strategy == "auto" and len(devices) > 1):
        return Workers(tf.distribute.MirroredStrategy(devices))
    return Workers(tf.distribute.get_strategy())


def _devices(replicas: int) -> list[str]:
    gpus = tf.config.list_logical_devices("GPU")
    found = gpus or tf.config.list_logical_devices("CPU")
    if replicas > len(found):
        raise InputError(f"--replicas={replicas}, but this machine has {len(found)} {found[0].device_type}s; use fewer")
    # Logical CPUs of an earlier run in this process are not asked for.
    count = replicas or (len(gpus) or 1)
    return [device.name for device in found[:count]]

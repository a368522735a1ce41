"""How the cores are shared between operations and within them."""

import os

import tensorflow as tf

_FEW_CORES = 4
# Each block at work has its own scores in memory.
_MOST_BLOCKS = 4


def share_cores(threads_per_operation: int) -> None:
    """Sets how many threads one operation may use; to be called before TensorFlow's first operation.

    A training step is many operations of about a millisecond and less, which run beside each other. Where these fill
    the cores already, splitting each one as well costs more in waiting than it brings: 15 to 20 % of a step on 2 cores.

    Args:
        threads_per_operation: 0 for one on a machine of up to 4 cores and for TensorFlow's own choice on a larger one.
            In a process that has run an operation before, nothing changes.
    """
    if not threads_per_operation:
        threads_per_operation = 1 if _cores() <= _FEW_CORES else 0
    try:
        tf.config.threading.set_intra_op_parallelism_threads(threads_per_operation)
    except RuntimeError:
        # TensorFlow has started: an earlier run of this process decided.
        return


def blocks_at_once() -> int:
    """How many blocks of independent work fill the cores, given the threads that an operation may use; at most 4."""
    threads_per_operation = tf.config.threading.get_intra_op_parallelism_threads()
    return max(1, min(_MOST_BLOCKS, _cores() // threads_per_operation)) if threads_per_operation else 1


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""Flags that only benchmarks have, and how a benchmark is run."""

from collections.abc import Callable
from typing import Any, NoReturn

from absl import flags

from rd_tf import command_line
from rd_tf.flag_definitions import FLAGS

Define = Callable[[flags.FlagValues], Any]


def _text(name: str, help_: str) -> tuple[str, Define]:
    return name, lambda values: flags.DEFINE_string(name, "", help_, flag_values=values)


def _texts(name: str, default: list[str], help_: str) -> tuple[str, Define]:
    return name, lambda values: flags.DEFINE_list(name, default, help_, flag_values=values)


def _whole(name: str, default: int, low: int, help_: str) -> tuple[str, Define]:
    return name, lambda values: flags.DEFINE_integer(name, default, help_, low, flag_values=values)


def _real(name: str, default: float, low: float, help_: str) -> tuple[str, Define]:
    return name, lambda values: flags.DEFINE_float(name, default, help_, low, flag_values=values)


def whole_flag(name: str, default: int, low: int, help_: str) -> tuple[str, Define]:
    """A flag of a benchmark's own: a whole number of at least `low`."""
    return _whole(name, default, low, help_)


def dim_flag(default: int) -> tuple[str, Define]:
    """--dim with a benchmark's own default."""
    return _whole("dim", default, 1, "d: embedding dimension.")


def repeats_flag(default: int) -> tuple[str, Define]:
    """--repeats with a benchmark's own default."""
    return _whole("repeats", default, 1, "Timed repeats of each case, after a warm-up.")


def checkpoint_minutes_flag(default: float) -> tuple[str, Define]:
    """--checkpoint_minutes with a benchmark's own default."""
    return _real("checkpoint_minutes", default, 0.0, "--checkpoint_minutes of the trainings. 0: no checkpoints.")


def sizes_flag(default: list[str], help_: str) -> tuple[str, Define]:
    """--sizes of another kind."""
    return _texts("sizes", default, help_)


BENCHMARK_FLAGS: dict[str, Define] = dict(
    [
        _text("dataset", "Dataset directory, as rd_tf.prepare writes it. Empty: a random world of Gowalla's size."),
        _whole("seed", 0, 0, "Seed of the random world, weights and draws."),
        _whole("repeats", 5, 1, "Timed repeats of each case, after a warm-up; with --reference each one is a pair."),
        _whole("steps", 100, 1, "Training steps a repeat."),
        _text("reference", "Checkout of the authors' code, github.com/graytowne/rank_distill. Empty: no comparison."),
        _text("reference_python", "A Python with torch, numpy and scipy to run it with. Empty: this one."),
        _whole("reference_steps", 30, 1, "Training steps a repeat of the authors' code."),
        _whole("reference_windows", 160, 1, "Windows a repeat of the authors' top-K."),
        _whole("reference_users", 100, 1, "Users a repeat of the authors' evaluation."),
        _text("output", "File that gets the JSON lines too. Empty: none."),
        _texts("cases", [], "Cases to measure. Empty: all."),
        _whole("windows", 20_000, 1, "Windows a repeat."),
        _real("epoch_seconds", 0.0, 0.0, "Seconds of a training epoch; an evaluation is shown as a share of it."),
        _texts("sizes", ["14000", "100000", "1000000"], "Items of each world; it has as many users."),
        _whole("windows_per_user", 20, 1, "Mean training windows of a user."),
        _whole("publishes", 1000, 1, "Publishers that are killed, in each case."),
        _whole("kills", 60, 1, "Commands that are killed, over all cases together."),
        _whole("items", 14_009, 200, "Items of the served catalogue."),
        _whole("users", 13_149, 1, "Users that the exports know."),
        _texts("run_dirs", [], "Finished runs on --dataset to serve in place of random weights."),
        _texts("clients", ["1", "8", "64"], "Clients that ask at a time."),
        _texts("rows", ["1", "32"], "Rows of a request."),
        _real("seconds", 5.0, 0.1, "Seconds of a measurement, after a warm-up of a fifth of it."),
        _whole("requests", 200_000, 100, "Requests, a hundredth of them malformed."),
        _whole("soak_clients", 6, 1, "Clients that ask at a time."),
        _real("switch_seconds", 5.0, 0.1, "Seconds between two published versions."),
        _real("most_growth", 5.0, 0.0, "Percent by which the server's memory may grow."),
        _whole("check_ins_per_user", 30, 1, "Check-ins of every user."),
        _whole("workers", 64, 1, "Machines that work together."),
        _whole("cores", 32, 1, "Cores of a machine."),
        _real("memory_gb", 256.0, 0.0, "Memory of a machine, in 10^9 bytes."),
        _real("network_gb", 3.0, 1e-6, "Network of a machine in each direction, in 10^9 bytes a second."),
        _real("latency_ms", 0.05, 0.0, "Milliseconds from one machine to the next."),
        _real("disk_gb", 1.0, 1e-6, "What a machine reads or writes on the shared disk, in 10^9 bytes a second."),
        _whole("evaluated_users", 1_000_000, 1, "Users of an evaluation on a sample."),
        _whole("cache_windows", 0, 0, "Windows whose top 100 are streamed into a teacher cache on disk. 0: no cache."),
    ]
)


def run(command: Callable[..., None], *own: tuple[str, Define]) -> NoReturn:
    """Runs `python -m benchmarks...` as `rd_tf.command_line.run` does, with the flags of benchmarks.

    Args:
        command: its parameters name the flags.
        own: flags that this benchmark defines otherwise than the others.
    """
    # This process is a benchmark and nothing else, so a benchmark's flag may stand for one of the commands'.
    FLAGS.update({**BENCHMARK_FLAGS, **dict(own)})
    command_line.run(command)

"""What every stage costs for data of any size: python -m benchmarks.scale_model --users=100000000 --items=10000000.

For preparing, training, the teacher's lists, evaluating, checkpoints and serving it computes bytes in memory, on disk
and between machines, operations and time, and says what limits each. Constants come from results/benchmarks/; network,
disk and memory of the machines are flags. A training step is simulated: workers draw their times from the measured
ones, gradients travel around a ring as soon as the backward pass is done with them, every worker updates the rows of
all workers. Nothing is trained, and TensorFlow is not even imported.

docs/scale.md holds the tables for the flags' defaults and for the largest world that was measured; they are written by
python -m benchmarks.performance_page.
"""

from benchmarks import flags
from benchmarks.scale_model_check import make_checks
from benchmarks.scale_model_constants import read_constants
from benchmarks.scale_model_records import Records
from benchmarks.scale_model_stages import Plan
from benchmarks.scale_model_step import Cluster
from benchmarks.scale_model_tables import checks_table, constants_table, plan_tables
from benchmarks.scale_model_world import World
from rd_tf.storage import InputError

FLAGS = (
    flags.whole_flag("users", 100_000_000, 1, "Users."),
    flags.whole_flag("items", 10_000_000, 2, "Items."),
    flags.whole_flag("batch_size", 64 * 512, 1, "Windows a step, over all workers together."),
)


def scale_model(
    *,
    users: int,
    items: int,
    check_ins_per_user: int,
    sequence_length: int,
    target_length: int,
    teacher_dim: int,
    student_dim: int,
    batch_size: int,
    negatives: int,
    k: int,
    rank_samples: int,
    block_size: int,
    evaluated_users: int,
    workers: int,
    cores: int,
    memory_gb: float,
    network_gb: float,
    latency_ms: float,
    disk_gb: float,
    seed: int,
) -> None:
    """Prints what every stage costs for data of a size, on machines of a kind, in Markdown.

    The flags of rd_tf mean what they mean there; the models are Caser's, with the paper's filters.

    Raises:
        InputError: a measured constant is missing, or there are more workers than windows in a batch.
    """
    if batch_size < workers:
        raise InputError(f"--batch_size={batch_size} leaves some of --workers={workers} without a window; raise it")
    plan = Plan(
        World(users, items, check_ins_per_user, sequence_length, target_length),
        Cluster(workers, cores, memory_gb, network_gb, latency_ms, disk_gb),
        teacher_dim=teacher_dim,
        student_dim=student_dim,
        batch_size=batch_size,
        negatives=negatives,
        k=k,
        rank_samples=rank_samples,
        block_size=block_size,
        evaluated_users=evaluated_users,
        seed=seed,
    )
    records = Records()
    constants, checks = read_constants(records), make_checks(records)
    print(plan_tables(plan, constants), checks_table(checks), constants_table(constants), sep="\n")


if __name__ == "__main__":
    flags.run(scale_model, *FLAGS)

"""The generated parts of docs/scale.md."""

from pathlib import Path

from benchmarks.scale_model_check import make_checks
from benchmarks.scale_model_constants import read_constants
from benchmarks.scale_model_records import Records
from benchmarks.scale_model_stages import Plan
from benchmarks.scale_model_step import Cluster
from benchmarks.scale_model_tables import checks_table, constants_table, plan_tables
from benchmarks.scale_model_world import World
from pipelines.report import replace_between

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"
_PAPER = {"teacher_dim": 100, "student_dim": 50, "negatives": 3, "k": 10, "rank_samples": 100, "block_size": 1024}
# What the flags' defaults are, and the machine and the world that benchmarks.scale measured.
LARGE = Plan(
    World(100_000_000, 10_000_000, 30),
    Cluster(64, 32, 256, 3, 0.05, 1),
    batch_size=64 * 512,
    evaluated_users=1_000_000,
    **_PAPER,
)
MILLION = Plan(
    World(1_000_000, 1_000_000, 31),
    Cluster(1, 2, 24, 3, 0.05, 1),
    batch_size=512,
    evaluated_users=100_000,
    **_PAPER,
)


def fill_scale(page: str, results: Path) -> str:
    """Puts the tables into docs/scale.md.

    Args:
        page: its text.
        results: the directory `results`.

    Raises:
        InputError: a marker or a record is missing.
    """
    records = Records(results / "benchmarks")
    constants = read_constants(records)
    for name, between in (
        ("scale_large", plan_tables(LARGE, constants)),
        ("scale_million", plan_tables(MILLION, constants)),
        ("scale_check", checks_table(make_checks(records))),
        ("scale_constants", constants_table(constants)),
    ):
        page = replace_between(page, name, between, "docs/scale.md")
    return page

"""Numbers as the tables write them."""

from typing import Any


def short(value: float) -> str:
    """Four digits without the leading zero: .0951."""
    return f"{value:.4f}".removeprefix("0")


def with_deviation(metric: dict[str, Any]) -> str:
    """A mean with the deviation over seeds, where there is one: .0951 ± .0003."""
    return short(metric["mean"]) + (f" ± {short(metric['std'])}" if metric["std"] is not None else "")


def percent(value: float | None) -> str:
    """A signed difference: +3.0 %."""
    # Without "-0.0".
    return "" if value is None else f"{round(value, 1) + 0.0:+.1f} %"


def gain(value: float, reference: float) -> str:
    """What a value is above another: +9.4 %; nothing where the other is 0."""
    return percent(100 * (value / reference - 1) if reference else None)


def size(parameters: int, teacher: int) -> str:
    """Parameters, and their share of the teacher's: 2,794,102 (50.0 %)."""
    return f"{parameters:,} ({100 * parameters / teacher:.1f} %)"


def p_text(value: float | None) -> str:
    """A p-value: .013, or < .001."""
    if value is None:
        return "n/a"
    return "< .001" if value < 0.001 else f"{value:.3f}".removeprefix("0")


def stars(p: float) -> str:
    """** below .01, * below .05."""
    return "**" if p < 0.01 else "*" if p < 0.05 else ""


def seeds_text(seeds: list[int]) -> str:
    """seed 0, or 3 seeds (0, 1, 2)."""
    return f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds ({', '.join(map(str, seeds))})"

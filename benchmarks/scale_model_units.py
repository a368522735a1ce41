"""Bytes, operations and times as a page writes them."""

_THOUSANDS = ("", "k", "M", "G", "T", "P", "E", "Z")
_TIMES = ((86_400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"))


def size(value: float, unit: str = "B") -> str:
    """With a prefix of thousands: 52.0 GB, or 4.3 TFLOP; nothing for 0."""
    if not value:
        return ""
    power = 0
    while value >= 999.95 and power < len(_THOUSANDS) - 1:
        value, power = value / 1000, power + 1
    return f"{value:.3g} {_THOUSANDS[power]}{unit}" if value < 100 else f"{value:.0f} {_THOUSANDS[power]}{unit}"


def duration(seconds: float) -> str:
    """In the largest unit of which there is at least 1.5, or milliseconds: 2.3 h."""
    length, unit = next((time for time in _TIMES if seconds >= 1.5 * time[0]), _TIMES[-1])
    value = seconds / length
    return f"{value:.3g} {unit}" if value < 100 else f"{value:,.0f} {unit}"

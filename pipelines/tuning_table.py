"""What was tried on the validation split before a cell's settings were fixed."""

import csv
from pathlib import Path
from typing import Any

from pipelines.number_text import short
from rd_tf import run_directory
from rd_tf.command_line import default_flags, flag_lines, parse
from rd_tf.train import NO_PART_OF_THE_RESULT, train

# Where a run lies and how long it takes say nothing of its settings.
_NOT_SHOWN = {*NO_PART_OF_THE_RESULT, "split", "validate_every", "model", "epochs", "seed"}


def tuning_table(tuning: Path) -> str:
    """Markdown of every trial below results/tuning: the flags that are not the default, and validation MAP by epoch.

    Args:
        tuning: holds `<cell>/<trial>/{flags.cfg,history.csv}`.
    """
    lines = []
    for cell in sorted(path for path in tuning.iterdir() if path.is_dir()) if tuning.is_dir() else ():
        trials = {path.name: _read(path) for path in sorted(cell.iterdir())}
        epochs = sorted({epoch for _, maps in trials.values() for epoch in maps})
        lines += [f"**{cell.name}**", ""]
        lines += [f"| flags | {' | '.join(f'epoch {epoch}' for epoch in epochs)} |", f"|---|{'---|' * len(epochs)}"]
        for settings, maps in trials.values():
            cells = " | ".join(short(maps[epoch]) if epoch in maps else "" for epoch in epochs)
            lines.append(f"| {settings} | {cells} |")
        lines.append("")
    return "\n".join(lines)


def _read(trial: Path) -> tuple[str, dict[int, float]]:
    flags = parse(train, [f"--flagfile={trial / run_directory.FLAGS}"])
    defaults = default_flags(train)
    changed = {name: value for name, value in flags.items() if value != defaults[name] and name not in _NOT_SHOWN}
    with open(trial / run_directory.HISTORY, encoding="utf-8", newline="") as file:
        rows: list[dict[str, Any]] = list(csv.DictReader(file))
    maps = {int(row["epoch"]): float(row["validation/map"]) for row in rows if row.get("validation/map")}
    settings = " ".join(flag_lines(changed).splitlines())
    return f"`{settings}`" + (", distilled" if flags["teacher"] else ""), maps

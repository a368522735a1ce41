"""What teacher and student cost to serve, in Markdown."""

from typing import Any

from pipelines.markdown_row import head, row
from pipelines.published import CPU_SECONDS, PARAMETERS
from pipelines.roles import ROLES


def efficiency_table(cells: dict[str, Any]) -> str:
    """Parameters, seconds and bytes of teacher and student, the published ones beside them.

    Args:
        cells: name -> a cell of the summary; those that nobody has measured are left out.

    Returns:
        The table under its heading, or nothing where no cell is measured.
    """
    measured = {name: cell["efficiency"] for name, cell in cells.items() if cell["efficiency"]}
    if not measured:
        return ""
    lines = ["### Efficiency", ""]
    lines += head("", "parameters", "published", "seconds on the CPU", "published", "SavedModel, MB")
    for name, found in measured.items():
        for index, role in enumerate(("teacher", "distilled")):
            one = found["roles"][role]
            ratios = {
                key: 100 * one[key] / found["roles"]["teacher"][key]
                for key in ("parameters", "seconds", "savedmodel_bytes")
            }
            sizes, seconds = PARAMETERS.get(name), CPU_SECONDS.get(name)
            lines.append(
                row(
                    f"{name} {ROLES[role]}",
                    f"{one['parameters']:,} ({ratios['parameters']:.1f} %)",
                    f"{sizes[index]} M ({100 * sizes[index] / sizes[0]:.1f} %)" if sizes else "",
                    f"{one['seconds']:.3f} ({ratios['seconds']:.1f} %)",
                    f"{seconds[index]} ({100 * seconds[index] / seconds[0]:.1f} %)" if seconds else "",
                    f"{one['savedmodel_bytes'] / 1e6:.2f} ({ratios['savedmodel_bytes']:.1f} %)",
                )
            )
    return "\n".join(lines) + "\n" + _how_measured(measured)


def _how_measured(measured: dict[str, Any]) -> str:
    machines = dict.fromkeys(
        f"{found['machine']['cores']} cores of {found['machine']['processor']}" for found in measured.values()
    )
    some = next(iter(measured.values()))
    return (
        f"\nSeconds for one list of {some['k']} items for every user, {some['block']:,} users a call, median of "
        f"{len(some['roles']['teacher']['seconds_of_repeats'])} turns, on {'; '.join(machines)}.\n"
    )

"""Learning curves of a pipeline's runs, as TensorBoard shows them, in one picture."""

from pathlib import Path

from pipelines.picture import picture
from pipelines.run_history import read_history
from rd_tf import run_directory

_PANELS = (
    ("train/ranking_loss", "ranking loss"),
    ("train/distillation_loss", "distillation loss"),
    ("train/mean_weight", "mean weight of a teacher's item"),
    ("train/zero_weight_share", "share of weights at zero"),
    ("distillation/overlap", "overlap@K of student's and teacher's lists"),
    ("validation/map", "validation MAP"),
)
COLORS = {"teacher": "#4878a8", "student": "#b0b0b0", "distilled": "#d1603d"}


def plot_curves(results: Path, seed: int) -> Path | None:
    """Plots what the histories of one seed hold, a panel a quantity.

    Args:
        results: directory with `seed-<seed>/<role>/history.csv`; gets `curves.png`.
        seed: whose runs.

    Returns:
        The picture's path, or None when no history has anything to show.
    """
    histories = {
        role: read_history(results / f"seed-{seed}" / role)
        for role in COLORS
        if (results / f"seed-{seed}" / role / run_directory.HISTORY).is_file()
    }
    panels = []
    for prefix, title in _PANELS:
        found = {
            role: (history["epoch"], history[name])
            for role, history in histories.items()
            for name in history.columns
            if name.startswith(prefix)
        }
        if found:
            panels.append((title, found))
    if not panels:
        return None
    rows = -(-len(panels) // 2)
    path = results / "curves.png"
    with picture(path, rows, 2, figsize=(9, 2.4 * rows), squeeze=False) as axes:
        for axis in axes.flat[len(panels) :]:
            axis.set_visible(False)
        for axis, (title, found) in zip(axes.flat, panels, strict=False):
            for role, (epochs, values) in found.items():
                known = values.notna()
                axis.plot(
                    epochs[known],
                    values[known],
                    label=role,
                    color=COLORS[role],
                    marker="." if known.sum() < 12 else None,
                )
            axis.set_title(title, fontsize=9)
            axis.set_xlabel("epoch", fontsize=8)
            axis.tick_params(labelsize=8)
            axis.grid(alpha=0.3)
        axes.flat[0].legend(fontsize=8)
    return path

"""What is shown of the leaderboard: its tables, and the picture of quality against size."""

import os
from pathlib import Path
from typing import Any

from pipelines.leaderboard.summary import summarise
from pipelines.records import COLUMNS, HEADS
from pipelines.report import COLORS, head, p_text, percent, picture, replace_between, row, stars, with_deviation
from rd_tf.storage import write_json, write_text

SUMMARY, PICTURE, MARKERS = "leaderboard.json", "frontier.png", "leaderboard"
_COLORS = {"teacher": COLORS["teacher"], "alone": COLORS["student"], "distilled": COLORS["distilled"]}
_SYMBOLS = {"teacher": "s", "alone": "o", "distilled": "D"}
_TITLES = {"teacher": "teacher", "alone": "student alone", "distilled": "student distilled"}
_LEGEND = (
    "{split} split, mean ± sample standard deviation over the seeds. MB: the parameters as float32. Tail: recall@10 of "
    "the held-out items that are among the least popular 80 % of the items. Seconds: for the lists of 1,000 users on "
    "one machine. The best of a column is bold."
)
_TESTS = (
    "Gains of the distilled rows, of means over the seeds that both have. \\*\\* p < .01, \\* p < .05: paired t-test "
    "over the users, whose values are averaged over the seeds, Holm-corrected over the 7 metrics; p is that of MAP, "
    "and *above* counts the metrics in which the row is higher with p < .01."
)


def write_output(results: Path, page: str) -> list[Path]:
    """Writes `leaderboard.json`, `frontier.png` and, where one is named, the page's tables.

    Args:
        results: directory of the evidence, which gets the files.
        page: a Markdown file with the markers; empty for none.

    Returns:
        The files.

    Raises:
        InputError: evidence that does not belong together, or the page lacks a marker.
    """
    summary = summarise(results)
    write_json(results / SUMMARY, summary)
    written = [results / SUMMARY]
    if summary["datasets"]:
        plot_frontier(summary, results / PICTURE)
        written.append(results / PICTURE)
    if page:
        tables = markdown(summary)
        if summary["datasets"]:
            link = os.path.relpath(results / PICTURE, Path(page).parent)
            tables += f"\n![MAP against parameters]({link})\n"
        text = Path(page).read_text(encoding="utf-8")
        write_text(page, replace_between(text, MARKERS, f"\n{tables}", page))
        written.append(Path(page))
    for path in written:
        print(f"wrote {path}", flush=True)
    return written


def markdown(summary: dict[str, Any]) -> str:
    """The tables of every dataset, rows by falling MAP.

    Args:
        summary: what `summarise` returns.
    """
    if not summary["datasets"]:
        return "No row has been run yet.\n"
    parts = [_LEGEND.format(split=summary["split"].capitalize())]
    for dataset, found in summary["datasets"].items():
        parts += [f"### {dataset.capitalize()}", _quality(found["rows"])]
        gains = _gains(found["rows"])
        if gains:
            parts += [f"#### {dataset.capitalize()}: what distillation gains", _TESTS, gains]
    return "\n\n".join(parts) + "\n"


def _quality(rows: dict[str, Any]) -> str:
    names = ("", "role", "learned from", "d", "parameters", "MB", *HEADS, "tail", "seconds", "seeds")
    best = {column: max(each["metrics"][column]["mean"] for each in rows.values()) for column in COLUMNS}
    best_tail = max(each["tail"]["mean"] for each in rows.values())
    lines = head(*names)
    for name, each in rows.items():
        metrics = [(each["metrics"][column], best[column]) for column in COLUMNS] + [(each["tail"], best_tail)]
        texts = [
            f"**{with_deviation(metric)}**" if metric["mean"] == highest else with_deviation(metric)
            for metric, highest in metrics
        ]
        lines.append(
            row(
                name,
                each["role"],
                _learned_from(each),
                "" if each["dim"] is None else each["dim"],
                f"{each['parameters']:,}",
                f"{each['bytes'] / 1e6:.2f}",
                *texts,
                "" if each["speed"] is None else f"{each['speed']:.3f}",
                "" if each["seeds"] == ["once"] else len(each["seeds"]),
            )
        )
    return "\n".join(lines)


def _learned_from(each: dict[str, Any]) -> str:
    if each["role"] == "distilled":
        return str(each["teacher"]).replace("*", "\\*")
    if not each["made_of"] or len(each["made_of"]) < 2:
        return ""
    return " + ".join(f"{weight:g} {name}" for name, weight in each["made_of"].items())


def _gains(rows: dict[str, Any]) -> str:
    lines = head("", "against", *HEADS, "p", "above")
    count = len(lines)
    for name, each in rows.items():
        for other, tests in each["against"].items():
            title = f"{other} (alone)" if other == each["alone"] else other
            texts = []
            for column in COLUMNS:
                test = tests["metrics"][column]
                texts.append(f"{percent(test['percent'])} {stars(test['t_holm'])}".strip().replace("*", "\\*"))
            p = p_text(tests["metrics"]["map"]["t_holm"])
            lines.append(row(name, title, *texts, p, f"{tests['above']} of {len(COLUMNS)}"))
    return "\n".join(lines) if len(lines) > count else ""


def plot_frontier(summary: dict[str, Any], path: Path) -> None:
    """Plots MAP against parameters, a panel a dataset; the line joins the rows that no smaller one reaches.

    Args:
        summary: what `summarise` returns, with a dataset at least.
        path: the picture.
    """
    datasets = summary["datasets"]
    with picture(path, 1, len(datasets), squeeze=False, figsize=(1 + 5.5 * len(datasets), 4.2)) as axes:
        for axis, (dataset, found) in zip(axes[0], datasets.items(), strict=True):
            points = {
                name: (each["parameters"], each["metrics"]["map"]["mean"]) for name, each in found["rows"].items()
            }
            for role, title in _TITLES.items():
                names = [name for name, each in found["rows"].items() if each["role"] == role]
                xs, ys = [points[name][0] for name in names], [points[name][1] for name in names]
                axis.plot(xs, ys, _SYMBOLS[role], color=_COLORS[role], markersize=5, label=title)
            for name, point in points.items():
                axis.annotate(name, point, xytext=(4, 3), textcoords="offset points", fontsize=6)
            best, frontier = float("-inf"), []
            for point in sorted(points.values(), key=lambda each: (each[0], -each[1])):
                if point[1] > best:
                    best = point[1]
                    frontier.append(point)
            axis.step(*zip(*frontier, strict=True), where="post", color="#808080", linewidth=0.8, zorder=0)
            axis.set_xscale("log")
            axis.set(title=dataset, xlabel="parameters", ylabel=f"MAP, {summary['split']} split")
            axis.grid(alpha=0.3)
            axis.legend(fontsize=7)

"""What an export weighs, costs and is worth: `report.json`."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rd_tf.models.ranker import SequenceRanker
from rd_tf.serving.export_options import ExportOptions
from rd_tf.serving.item_table import IDS_FILE, TABLE_FILE
from rd_tf.serving.measured import REPORT_FILE
from rd_tf.storage import write_json

_BATCHES, _RUNS = (1, 32), 15
_KINDS = {
    "variables": "weights",
    "model.tflite": "weights",
    "assets": "ids",
    "users.txt": "ids",
    "items.txt": "ids",
    "saved_model.pb": "graph",
}


def bytes_by_kind(directory: str | os.PathLike[str]) -> dict[str, int]:
    """Bytes of an export's files: weights, graph, ids, other, their total, and beside it the item table."""
    sizes = dict.fromkeys(("weights", "graph", "ids", "item_table", "other"), 0)
    for file in Path(directory).rglob("*"):
        if file.is_file():
            kind = _KINDS.get(file.relative_to(directory).parts[0], "other")
            kind = "item_table" if file.name in (TABLE_FILE, IDS_FILE) else kind
            sizes[kind] += file.stat().st_size
    # The item table is for another server.
    return {**sizes, "total": sum(sizes.values()) - sizes["item_table"]}


def seconds_per_request(answer: Callable[[int], Any]) -> dict[str, float]:
    """Median seconds of a request in this process, for a request of one row and one of 32.

    Args:
        answer: answers one request of that many rows.
    """
    medians = {}
    for rows in _BATCHES:
        # The first ones trace and optimize the graph.
        for _ in range(2):
            answer(rows)
        seconds = []
        for _ in range(_RUNS):
            begin = time.perf_counter()
            answer(rows)
            seconds.append(time.perf_counter() - begin)
        medians[str(rows)] = float(np.median(seconds))
    return medians


def write_report(
    directory: str | os.PathLike[str],
    model: SequenceRanker,
    options: ExportOptions,
    measured: dict[str, Any],
) -> None:
    """Writes the report of an export that is otherwise whole.

    Args:
        directory: the export's; the report lies in its `assets.extra`.
        model: the ranker of the served items.
        options: how it was exported.
        measured: what else is known (JSON values).
    """
    described = {
        "model": type(model).__name__.lower(),
        "parameters": model.count_params(),
        "items": model.num_items,
        "format": options.export_format,
        "weights": options.weights,
        "id_type": options.id_type,
        "max_k": options.max_k,
        "exclude_recent": options.exclude_recent,
        "batching": _batching(options) if options.batching else None,
        "unknown_user": "a trained row" if model.unknown_user else model.unknown_user_is,
        **measured,
    }
    path = Path(directory) / REPORT_FILE
    path.parent.mkdir(exist_ok=True)
    write_json(path, described)


def _batching(options: ExportOptions) -> dict[str, int]:
    return {name: getattr(options, name) for name in ("max_batch_size", "batch_timeout_micros", "num_batch_threads")}

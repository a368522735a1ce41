"""One version of a served model, as tensorflow_model_server reads it."""

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from rd_tf.models.ranker import SequenceRanker
from rd_tf.serving.agreement import check_agreement
from rd_tf.serving.batched_find import Batching
from rd_tf.serving.cells import make_cells
from rd_tf.serving.clustered_search import ClusteredSearch
from rd_tf.serving.exact_search import ExactSearch
from rd_tf.serving.export_options import ExportOptions
from rd_tf.serving.held_out_quality import ServedQuality
from rd_tf.serving.item_table import item_vectors, write_item_table
from rd_tf.serving.lookups import Lookups
from rd_tf.serving.measured import EXTRA
from rd_tf.serving.raw_ids import write_ids
from rd_tf.serving.real_queries import Queries, made_up_queries
from rd_tf.serving.recall import recall
from rd_tf.serving.recommend_signature import Search
from rd_tf.serving.report import bytes_by_kind, seconds_per_request, write_report
from rd_tf.serving.requests import known_request, typed
from rd_tf.serving.signatures import RECOMMEND, ServingModule
from rd_tf.serving.slim_graph import slim_graph
from rd_tf.serving.stored_ranker import StoredRanker, rounded_copy
from rd_tf.serving.unknown_user import with_unknown_user
from rd_tf.serving.warmup import write_warmup
from rd_tf.storage import file_sha256

USERS_FILE, ITEMS_FILE = "users.txt.gz", "items.txt.gz"
_QUERIES = 200
_K_TIMED, _RECENT_TIMED = 10, 100


def write_saved_model(
    directory: Path,
    name: str,
    model: SequenceRanker,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    options: ExportOptions,
    quality: ServedQuality | None,
) -> None:
    """Writes a SavedModel, its warm-up requests and its report, and checks it.

    Args:
        directory: an empty directory.
        name: the model's name for the server.
        model: the trained ranker.
        user_ids: raw id of every user.
        item_ids: raw id of every item.
        options: those of `ExportOptions.for_catalogue`.
        quality: measures rankers; None leaves metrics out of the report.

    Raises:
        InputError: a weight does not fit the weights' type.
        Disagreement: the export does not answer as the model does.
    """
    wider = with_unknown_user(model)
    exported = rounded_copy(wider, options.weights)
    queries = quality.queries(_QUERIES) if quality else made_up_queries(model, _QUERIES)
    search, index = _search(exported, queries, options)
    # In the version, whose leftovers the next export removes after a kill.
    with tempfile.TemporaryDirectory(dir=directory) as assets:
        users_file, items_file = Path(assets) / USERS_FILE, Path(assets) / ITEMS_FILE
        write_ids(users_file, user_ids)
        write_ids(items_file, item_ids)
        lookups = Lookups(users_file, items_file, model.num_users, options.id_type)
        stored = StoredRanker(wider, options.weights)
        batching = _batching(exported, [users_file, items_file], options) if options.batching else None
        module = ServingModule(stored, lookups, search, options.max_k, options.exclude_recent, batching)
        tf.saved_model.save(module, str(directory), signatures=module.functions())
    slim_graph(directory)
    request = known_request(model, user_ids, item_ids, options.max_k, options.id_type)
    write_warmup(directory, name, [(name, request.of_signature(name)) for name in module.functions()])
    agreement = check_agreement(directory, exported, user_ids, item_ids, options)
    changed = None if options.weights == "float32" else exported
    measured = {
        "index": index,
        "bytes": bytes_by_kind(directory),
        "quality": quality.compare(changed) if quality else None,
        "agreement": agreement,
        "seconds_per_request": seconds_per_request(_asker(module, queries, user_ids, item_ids, options.id_type)),
    }
    if options.item_table:
        write_item_table(directory / EXTRA, exported, item_ids)
        measured["bytes"] = bytes_by_kind(directory)
    write_report(directory, model, options, measured)


def _batching(exported: SequenceRanker, files: Sequence[Path], options: ExportOptions) -> Batching:
    # Named after all that an answer depends on: in one process models with one name share their batches.
    content = hashlib.sha256(repr(options).encode())
    for weight in exported.weights:
        content.update(keras.ops.convert_to_numpy(weight).tobytes())
    for file in files:
        content.update(file_sha256(file).encode())
    queue = f"batches_{content.hexdigest()}"
    return Batching(options.max_batch_size, options.batch_timeout_micros, options.num_batch_threads, queue)


def _search(exported: SequenceRanker, queries: Queries, options: ExportOptions) -> tuple[Search, dict[str, Any]]:
    if options.index == "exact":
        return ExactSearch(), {"kind": "exact"}
    cells = make_cells(item_vectors(exported), options.clusters)
    search = ClusteredSearch(cells, options.probes)
    found = recall(exported, search, queries, options.max_k)
    return search, {
        "kind": "clusters",
        "cells": len(cells.centroids),
        "largest_cell": cells.largest,
        "probes": options.probes,
        "queries": len(queries.users),
        **found,
    }


def _asker(
    module: ServingModule, queries: Queries, user_ids: Sequence[str], item_ids: Sequence[str], id_type: str
) -> Any:
    """Answers a request of some rows: users with up to 100 of their items, ten items each."""
    function = module.functions()[RECOMMEND]
    none = "" if id_type == "string" else 0

    def ask(rows: int) -> Any:
        chosen = [row % len(queries.users) for row in range(rows)]
        recents = [queries.recents[row][-_RECENT_TIMED:] for row in chosen]
        width = max(map(len, recents))
        names = [typed([item_ids[item - 1] for item in recent], id_type) for recent in recents]
        return function(
            tf.constant(typed([user_ids[queries.users[row]] for row in chosen], id_type), id_type),
            tf.constant([[none] * (width - len(row)) + row for row in names], id_type, shape=[rows, width]),
            tf.zeros([rows, 0], id_type),
            tf.fill([rows], _K_TIMED),
        )["items"].numpy()

    return ask

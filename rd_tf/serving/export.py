"""Publishes a ranker as the next version of a served model."""

import contextlib
import hashlib
import itertools
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from tensorflow.core.framework import attr_value_pb2, function_pb2
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, saved_model_pb2
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from rd_tf.data.windows import SplitData
from rd_tf.models.ranker import SequenceRanker
from rd_tf.serving.litert import MODEL_FILE, write_litert
from rd_tf.serving.publishing import (
    EXTRA,
    LAST,
    WARMUP_FILE,
    ExportOptions,
    NothingNew,
    are_equal_versions,
    check_export_dir,
    check_export_name,
    check_gate,
    find_reference,
    measured_version,
    publishing,
    versions,
)
from rd_tf.serving.quality import (
    HeldOutQuality,
    Queries,
    ServedRanker,
    bytes_by_kind,
    check_agreement,
    fewest_probes,
    known_request,
    recall,
    seconds_per_request,
    write_report,
)
from rd_tf.serving.search import ClusteredSearch, ExactSearch, Search, make_cells
from rd_tf.serving.signatures import Lookups, ServingModule, check_ids, write_ids
from rd_tf.serving.weights import (
    StoredRanker,
    item_vectors,
    rounded_copy,
    with_unknown_user,
    write_item_table,
)
from rd_tf.storage import InputError, file_sha256

_FILE_OF_FORMAT = {"saved_model": "saved_model.pb", "litert": MODEL_FILE}
USERS_FILE, ITEMS_FILE, NAMES_FILE = "users.txt.gz", "items.txt.gz", "item_names.txt.gz"
_MEASURED_QUERIES = 200
# Length of the lists whose recall --recall is.
_K_OF_RECALL = 10
_K_TIMED, _RECENT_TIMED = 10, 100
# Attributes of a graph's nodes: shapes, which a loader infers again, and the configuration of the exporting process.
_INFERRED, _CONFIG = "_output_shapes", "config_proto"
_OF_THE_MACHINE = ("device_count", "intra_op_parallelism_threads", "inter_op_parallelism_threads")
# TensorFlow ends the names of functions with a number that it counts up in the process. So do the names of a function's
# captured inputs, and loaders sort by them.
_COUNTED = re.compile(r"(.*_)(\d+)")
_GIVEN_NAME = "_user_specified_name"


def export_ranker(
    model: SequenceRanker,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    directory: str | os.PathLike[str],
    options: ExportOptions | None = None,
    quality: HeldOutQuality | None = None,
    keep_versions: int = 0,
    min_metric_ratio: Mapping[str, float] | None = None,
    gate_against: str = "",
    item_names: Sequence[str] = (),
) -> Path:
    """Writes `<directory>/<next version>`, for tensorflow_model_server or for devices, whole and checked or not at all.

    Items without a training row are left out where `quality` tells which have one: evaluation has no place for them
    either, so that what is served is what was measured. To a request they are unknown items.

    The version is loaded and run by TensorFlow's C++ loader, as the server does, or by LiteRT, and compared with the
    model before it appears under its number. Other versions stay as they are, until there are more than are to be kept.
    Where the highest version is equal to the new one, it is kept and none appears, so that an export that was killed
    after its version had appeared can be run again.

    Args:
        model: the trained ranker.
        user_ids: raw id of every user, `user_ids[user]`.
        item_ids: raw id of every item, `item_ids[item - 1]`.
        directory: the served model's directory; its last part is the model's name.
        options: how to export; None takes the defaults.
        quality: measures what the export ranks like, for the report, and knows which items have a training row; None
            leaves the metrics out and serves all items.
        keep_versions: how many of the highest versions stay, the new one included; 0 keeps all.
        min_metric_ratio: metric -> the least share of the reference's value that the export must reach.
        gate_against: the reference, a run directory; "" or "last" for the highest version, where there is one.
        item_names: with `options.names`: the name of every item, `item_names[item - 1]`, "" for none.

    Returns:
        The directory of the version that appeared or was kept.

    Raises:
        InputError: an option does not fit the catalogue, the ids do not fit the model or the options, the directory
            cannot be written or has versions of the other format, or the export ranks worse than it may.
        RuntimeError: the export does not answer as the model does.
    """
    directory = Path(directory)
    check_export_dir(directory.parent)
    check_export_name(directory.name)
    options = options or ExportOptions()
    check_ids("users", user_ids, model.num_users, options.id_type)
    check_ids("items", item_ids, model.num_items, options.id_type)
    if options.names and len(item_names) != model.num_items:
        raise InputError(
            f"--names takes a name for each of the {model.num_items} items, but {len(item_names)} are given"
        )
    served = ServedRanker.of(model, user_ids, item_ids, options, quality, item_names)
    with _writing(directory), publishing(directory, keep_versions) as new:
        _check_format(directory, options.export_format)
        reference = find_reference(gate_against, directory) if min_metric_ratio else None
        if options.export_format == "litert":
            write_litert(new.directory, served)
        else:
            write_saved_model(new.directory, directory.name, served)
        kept = next((last for last in versions(directory)[-1:] if are_equal_versions(new.directory, last)), None)
        # The highest version is not held against itself; it has passed the gate against the one before it.
        if reference and min_metric_ratio and not (kept and gate_against in ("", LAST)):
            check_gate(measured_version(new.directory, "the export"), reference, min_metric_ratio)
        if kept:
            raise NothingNew
    return kept or new.path


def export_to(
    ranker: SequenceRanker,
    data: SplitData,
    directory: str | os.PathLike[str],
    item_names: Sequence[str] = (),
    **options: Any,
) -> Path:
    """Exports a trained ranker for `tensorflow_model_server`: `rd_tf.export`.

    Args:
        ranker: trained on `data`.
        data: `rd_tf.load_dataset(...).split(...)`, whose held-out items the export is measured on.
        directory: the served model's directory; its last part is the model's name.
        item_names: with `names=True`: the name of every item, `item_names[item - 1]`.
        **options: attributes of `rd_tf.serving.publishing.ExportOptions`.

    Returns:
        The version directory that appeared or was kept; errors as for `export_ranker`.
    """
    quality = HeldOutQuality(data, ranker.sequence_length)
    ids = data.interactions.user_ids, data.interactions.item_ids
    return export_ranker(ranker, *ids, directory, ExportOptions(**options), quality, item_names=item_names)


def _check_format(directory: Path, chosen: str) -> None:
    for format_, file in _FILE_OF_FORMAT.items():
        if format_ != chosen and any((version / file).exists() for version in versions(directory)):
            raise InputError(
                f"{directory} has versions of --export_format={format_}, and one directory holds one format; "
                f"name another --export_name for --export_format={chosen}"
            )


@contextlib.contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        yield
    except (PermissionError, FileExistsError, NotADirectoryError) as error:
        raise InputError(
            f"{directory} cannot be written ({error.strerror}); name another --export_dir or --export_name"
        ) from error


def write_saved_model(directory: Path, name: str, served: ServedRanker) -> None:
    """Writes a SavedModel, its warm-up requests and its report, and checks it.

    Args:
        directory: an empty directory.
        name: the model's name for the server.
        served: what is exported.

    Raises:
        InputError: a weight does not fit the weights' type.
        Disagreement: the export does not answer as the model does.
    """
    options = served.options
    wider = with_unknown_user(served.model)
    exported = rounded_copy(wider, options.weights)
    queries = served.queries(_MEASURED_QUERIES)
    search, index = _search(exported, queries, options)
    # Inside the new version: after a kill the next export removes it with the rest of the version.
    with tempfile.TemporaryDirectory(dir=directory) as assets:
        users_file, items_file = Path(assets) / USERS_FILE, Path(assets) / ITEMS_FILE
        write_ids(users_file, served.user_ids)
        write_ids(items_file, served.item_ids)
        names_file = None
        if options.names:
            names_file = Path(assets) / NAMES_FILE
            write_ids(names_file, served.item_names)
        lookups = Lookups(users_file, items_file, wider.num_users, options.id_type, names_file)
        queue = _queue_name(exported, [users_file, items_file], options) if options.batching else ""
        module = ServingModule(StoredRanker(wider, options.weights), lookups, search, options, queue)
        tf.saved_model.save(module, str(directory), signatures=module.functions())
    slim_graph(directory)
    request = known_request(served)
    write_warmup(directory, name, [(name, request.of_signature(name)) for name in module.functions()])
    agreement = check_agreement(directory, exported, served)
    measured = {
        "index": index,
        "bytes": bytes_by_kind(directory),
        "quality": served.compare(exported),
        "agreement": agreement,
        "seconds_per_request": seconds_per_request(_asker(module, queries, served)),
    }
    if options.item_table:
        write_item_table(directory / EXTRA, exported, served.item_ids)
        measured["bytes"] = bytes_by_kind(directory)
    write_report(directory, served, measured)


def _queue_name(exported: SequenceRanker, files: Sequence[Path], options: ExportOptions) -> str:
    # Models of one process whose queues have one name share their batches, so the name tells all that an answer depends
    # on.
    content = hashlib.sha256(repr(options).encode())
    for weight in exported.weights:
        content.update(keras.ops.convert_to_numpy(weight).tobytes())
    for file in files:
        content.update(file_sha256(file).encode())
    return f"batches_{content.hexdigest()}"


def _search(exported: SequenceRanker, queries: Queries, options: ExportOptions) -> tuple[Search, dict[str, Any]]:
    if options.index == "exact":
        return ExactSearch(), {"kind": "exact"}
    cells = make_cells(item_vectors(exported), options.clusters)
    k = min(_K_OF_RECALL, options.max_k)
    probes = options.probes or fewest_probes(exported, cells, queries, k, options.recall)
    search = ClusteredSearch(cells, probes)
    found = recall(exported, search, queries, options.max_k)
    return search, {
        "kind": "clusters",
        "cells": len(cells.centroids),
        "largest_cell": cells.largest,
        "probes": min(probes, len(cells.centroids)),
        "queries": len(queries.users),
        **found,
    }


def _asker(module: ServingModule, queries: Queries, served: ServedRanker) -> Callable[[int], Any]:
    """Answers a request of some rows: users with up to 100 of their items, ten items each."""
    id_type, users, items = served.options.id_type, served.typed_users, served.typed_items
    none = "" if id_type == "string" else 0

    def ask(rows: int) -> Any:
        chosen = [row % len(queries.users) for row in range(rows)]
        recents = [queries.recents[row][-_RECENT_TIMED:] for row in chosen]
        width = max(map(len, recents))
        names = [[none] * (width - len(recent)) + [items[item - 1] for item in recent] for recent in recents]
        return module.recommend(
            tf.constant([users[queries.users[row]] for row in chosen], id_type),
            tf.constant(names, id_type, shape=[rows, width]),
            tf.zeros([rows, 0], id_type),
            tf.fill([rows], _K_TIMED),
        )["items"].numpy()

    return ask


def write_warmup(
    directory: str | os.PathLike[str],
    model_name: str,
    requests: Sequence[tuple[str, Mapping[str, np.ndarray]]],
) -> None:
    """Writes the warm-up file of a SavedModel: a TFRecord of PredictionLog, one record a request.

    Args:
        directory: the SavedModel.
        model_name: the name it will be served under.
        requests: signature, and input name -> array; strings are objects.
    """
    path = Path(directory) / WARMUP_FILE
    path.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, request in requests:
            predict = predict_pb2.PredictRequest()
            predict.model_spec.name = model_name
            predict.model_spec.signature_name = signature
            for name, array in request.items():
                dtype = tf.string if array.dtype == object else array.dtype
                predict.inputs[name].CopyFrom(tf.make_tensor_proto(array, dtype=dtype, shape=array.shape))
            log = prediction_log_pb2.PredictionLog(predict_log=prediction_log_pb2.PredictLog(request=predict))
            writer.write(log.SerializeToString(deterministic=True))


def slim_graph(directory: str | os.PathLike[str]) -> None:
    """Rewrites `saved_model.pb` without what no loader reads, a fifth of its bytes.

    What depends on the exporting process (its threads, its count of functions) goes too: equal exports are equal bytes.
    """
    path = Path(directory) / "saved_model.pb"
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in saved.meta_graphs:
        # Definitions of TensorFlow's own operations; a loader that lacks one could not run the graph either.
        graph.meta_info_def.ClearField("stripped_op_list")
        nodes = [*graph.graph_def.node]
        for function in graph.graph_def.library.function:
            nodes += function.node_def
            for argument in function.arg_attr.values():
                argument.attr.pop(_INFERRED, None)
        for node in nodes:
            node.ClearField("experimental_debug_info")
            node.attr.pop(_INFERRED, None)
            if _CONFIG in node.attr:
                config = config_pb2.ConfigProto.FromString(node.attr[_CONFIG].s)
                for name in _OF_THE_MACHINE:
                    config.ClearField(name)
                node.attr[_CONFIG].s = config.SerializeToString(deterministic=True)
        number_functions(graph)
    path.write_bytes(saved.SerializeToString(deterministic=True))
    # The fingerprint is of the graph before this change.
    (Path(directory) / "fingerprint.pb").unlink(missing_ok=True)


def number_functions(graph: meta_graph_pb2.MetaGraphDef) -> None:
    """Numbers a graph's functions from 0, in the order in which they were traced, and puts them in that order."""
    library = graph.graph_def.library
    matches = filter(None, (_COUNTED.fullmatch(function.signature.name) for function in library.function))
    traced = sorted(matches, key=lambda match: int(match[2]))
    names = {match[0]: f"{match[1]}{number}" for number, match in enumerate(traced)}
    nodes = [*graph.graph_def.node]
    for function in library.function:
        function.signature.name = names.get(function.signature.name, function.signature.name)
        _number_inputs(function)
        nodes += function.node_def
    for node in nodes:
        node.op = names.get(node.op, node.op)
        for attribute in node.attr.values():
            _rename_in_attribute(attribute, names)
    for gradient in itertools.chain(library.gradient, library.registered_gradients):
        gradient.gradient_func = names.get(gradient.gradient_func, gradient.gradient_func)
    for gradient in library.gradient:
        gradient.function_name = names.get(gradient.function_name, gradient.function_name)
    places = {name: place for place, name in enumerate(names.values())}
    library.function.sort(key=lambda function: (places.get(function.signature.name, -1), function.signature.name))
    _rename_objects(graph, names)


def _number_inputs(function: function_pb2.FunctionDef) -> None:
    names = {}
    for place, argument in enumerate(function.signature.input_arg):
        if re.search(r"\d", argument.name):
            names[argument.name] = argument.name = f"input_{place}"
        attributes = function.arg_attr[place].attr if place in function.arg_attr else {}
        if _GIVEN_NAME in attributes and attributes[_GIVEN_NAME].s.isdigit():
            del attributes[_GIVEN_NAME]
    for node in function.node_def:
        node.input[:] = [names.get(name, name) for name in node.input]
    for result, name in list(function.ret.items()):
        function.ret[result] = names.get(name, name)


def _rename_in_attribute(attribute: attr_value_pb2.AttrValue, names: dict[str, str]) -> None:
    for called in (attribute.func, *attribute.list.func):
        # Only where it is a function: assigning the name would turn an attribute of another kind into one.
        if called.name in names:
            called.name = names[called.name]


def _rename_objects(graph: meta_graph_pb2.MetaGraphDef, names: dict[str, str]) -> None:
    objects, aliases = graph.object_graph_def, graph.meta_info_def.function_aliases
    for node in objects.nodes:
        if node.function.concrete_functions:
            node.function.concrete_functions[:] = [names.get(name, name) for name in node.function.concrete_functions]
        if node.bare_concrete_function.concrete_function_name in names:
            name = names[node.bare_concrete_function.concrete_function_name]
            node.bare_concrete_function.concrete_function_name = name
    # All entries are taken out before any goes in: a new name may be the old one of another function.
    copies = [
        (name, type(saved).FromString(saved.SerializeToString())) for name, saved in objects.concrete_functions.items()
    ]
    objects.concrete_functions.clear()
    for name, saved in copies:
        objects.concrete_functions[names.get(name, name)].CopyFrom(saved)
    renamed = {names.get(name, name): alias for name, alias in aliases.items()}
    aliases.clear()
    aliases.update(renamed)

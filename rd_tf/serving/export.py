"""Publishes a ranker as the next version of a served model."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rd_tf.models.ranker import SequenceRanker
from rd_tf.serving.equal_versions import are_equal_versions
from rd_tf.serving.export_name import check_export_name
from rd_tf.serving.export_options import ExportOptions
from rd_tf.serving.gate import LAST, check_gate, find_reference
from rd_tf.serving.held_out_quality import HeldOutQuality, ServedQuality
from rd_tf.serving.litert import MODEL_FILE, write_litert
from rd_tf.serving.measured import measured_version
from rd_tf.serving.publishing import NothingNew, publishing, versions
from rd_tf.serving.raw_ids import check_ids
from rd_tf.serving.saved_model import write_saved_model
from rd_tf.serving.stored_ranker import with_items
from rd_tf.storage import InputError

_FILE_OF_FORMAT = {"saved_model": "saved_model.pb", "litert": MODEL_FILE}


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

    Returns:
        The directory of the version that appeared or was kept.

    Raises:
        InputError: an option does not fit the catalogue, the ids do not fit the model or the options, the directory
            cannot be written or has versions of the other format, or the export ranks worse than it may.
        RuntimeError: the export does not answer as the model does.
    """
    directory = Path(directory)
    check_export_name(directory.name)
    options = options or ExportOptions()
    check_ids("users", user_ids, model.num_users, options.id_type)
    check_ids("items", item_ids, model.num_items, options.id_type)
    served, served_quality = model, None
    if quality:
        items = quality.trained_items()
        served, item_ids = with_items(model, items), [item_ids[item - 1] for item in items]
        served_quality = ServedQuality(quality, model, items)
    options = options.for_catalogue(served.num_items)
    with _writing(directory), publishing(directory, keep_versions) as new:
        _check_format(directory, options.export_format)
        reference = find_reference(gate_against, directory) if min_metric_ratio else None
        arguments = (served, user_ids, item_ids, options, served_quality)
        if options.export_format == "litert":
            write_litert(new.directory, *arguments)
        else:
            write_saved_model(new.directory, directory.name, *arguments)
        kept = next((last for last in versions(directory)[-1:] if are_equal_versions(new.directory, last)), None)
        # A version that is there has passed the gate against the one before it.
        if reference and min_metric_ratio and not (kept and gate_against in ("", LAST)):
            check_gate(measured_version(new.directory, "the export"), reference, min_metric_ratio)
        if kept:
            raise NothingNew
    return kept or new.path


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

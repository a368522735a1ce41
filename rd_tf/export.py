"""Exports a trained ranker for a server or for devices: python -m rd_tf.export --run_dir=... --dataset=..."""

import dataclasses
import inspect
import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rd_tf import command_line, run_directory
from rd_tf.flag_definitions import Protocol, protocol_of
from rd_tf.serving.publishing import ExportOptions, check_export_dir, check_export_name, parse_min_metric_ratio
from rd_tf.storage import InputError

if TYPE_CHECKING:
    from rd_tf.data.interactions import Interactions
    from rd_tf.models.ranker import SequenceRanker

_RECENT, _EXCLUDED = 20, 2


def export(
    *,
    run_dir: str,
    dataset: str,
    export_dir: str,
    export_name: str,
    keep_versions: int,
    min_metric_ratio: list[str],
    gate_against: str,
    server_config: bool,
    serving_image: str,
    seen_items: str = "auto",
    import_module: Sequence[str] = (),
    **export_options: Any,
) -> str:
    """Writes a finished run's model as <export_dir>/<export_name>/<next version>, which tensorflow_model_server serves.

    Every signature is run by TensorFlow's C++ loader and compared with the model before the version appears; what was
    measured is in its assets.extra/report.json. A model that ranks worse than --min_metric_ratio
    allows is not published. Where the highest version has the same files already, it is kept and no other appears.
    What a server needs beside the models is written into --export_dir. With --export_format=litert a .tflite file for
    devices is written in place of the SavedModel.

    Args:
        **export_options: the attributes of `ExportOptions`; every other argument is the flag of its name.

    Returns:
        The directory of the version that appeared or was kept.

    Raises:
        InputError: no finished run, another dataset than the run's, an illegal name, ids that do not fit --id_type,
            other flags that do not fit together, a model that ranks worse than it may, or a directory that cannot be
            written.
    """
    from rd_tf.data.dataset import check_same_dataset, load_manifest

    command_line.import_plugins(import_module)
    manifest = run_directory.load_run_manifest(run_dir)
    check_same_dataset(dataset, manifest["dataset"]["fingerprint"], "run_dir", run_dir)
    check_export_dir(export_dir)
    check_export_name(export_name)
    ratios = parse_min_metric_ratio(min_metric_ratio)
    protocol = protocol_of("all", "auto", seen_items, manifest["split"])
    options = ExportOptions(**export_options)
    if protocol.keeps_seen:
        options = dataclasses.replace(options, exclude_recent=False)
    # The served catalogue may be smaller than the dataset's. What does not fit even the dataset's is refused at once.
    options.for_catalogue(load_manifest(dataset)["items"])
    item_names = names_for(options, dataset)

    from rd_tf.runtime import import_quietly

    import_quietly()
    from rd_tf.data.windows import open_dataset
    from rd_tf.models.registry import load_model
    from rd_tf.serving.export import export_ranker
    from rd_tf.serving.publishing import versions
    from rd_tf.serving.quality import HeldOutQuality

    model = load_model(run_dir)
    trained = Protocol.of(manifest["split"])
    data = open_dataset(dataset).split(trained.part, trained.by, protocol.seen_items)
    ids = data.interactions.user_ids, data.interactions.item_ids
    directory = Path(export_dir).absolute() / export_name
    quality = HeldOutQuality(data, model.sequence_length)
    before = versions(directory) if directory.is_dir() else []
    version = export_ranker(model, *ids, directory, options, quality, keep_versions, ratios, gate_against, item_names)
    size = sum(file.stat().st_size for file in version.rglob("*") if file.is_file())
    did = "export kept:" if version in before else "exported"
    left_out = data.num_items - int(data.is_candidate.sum())
    if left_out:
        print(f"{left_out:,} of {data.num_items:,} items have no training row and are left out, as in evaluation")
    print(
        f"{did} {version} ({size:,} bytes)"
        + ("" if options.export_format == "litert" else "; serve it and ask it with")
    )
    if options.export_format == "saved_model":
        if server_config:
            _write_server_config(directory.parent, serving_image)
        base = shlex.quote(str(directory))
        print(f"python -m rd_tf.serve --model_name={export_name} --model_base_path={base}")
        body = shlex.quote(json.dumps({"instances": [_instance(model, data.interactions, options)]}))
        print(f"curl -d {body} http://localhost:8501/v1/models/{export_name}:predict")
    return str(version)


def names_for(options: ExportOptions, dataset: str) -> list[str]:
    """The names of a dataset's items where the options ask for them, else none.

    Raises:
        InputError: they ask, and the dataset has none.
    """
    from rd_tf.data.dataset import read_item_names

    if not options.names:
        return []
    names = read_item_names(dataset)
    if names is None:
        raise InputError(
            f"--names: --dataset={dataset} has no names of items; give them with python -m rd_tf.prepare "
            f"--dataset={dataset} --item_names=FILE"
        )
    return names


export.flag_names = [  # type: ignore[attr-defined]
    *(name for name in inspect.signature(export).parameters if name != "export_options"),
    *(field.name for field in dataclasses.fields(ExportOptions)),
]


def _write_server_config(export_dir: Path, image: str) -> None:
    from rd_tf.serving.server_files import Outcome, write_server_config

    outcomes = write_server_config(export_dir, image)
    edited = [name for name, outcome in outcomes.items() if outcome is Outcome.EDITED]
    if edited:
        print(f"left alone in {export_dir}, since somebody edited them: {', '.join(edited)}")
    compose = export_dir / "compose.yaml"
    if "--enable_batching" in compose.read_text("utf-8", "replace"):
        print(
            f"warning: {compose} turns the server's batching on, with which lists of different lengths are answered "
            "wrongly; take --enable_batching and --batching_parameters_file out of it (docs/serving_publishing.md)"
        )


def _instance(model: "SequenceRanker", data: "Interactions", options: ExportOptions) -> dict[str, Any]:
    """What the last user could ask for."""
    visited = [data.item_ids[item - 1] for item in data.items[data.users == data.users[-1]]]
    recent = visited[-(_RECENT if model.has_history else model.sequence_length) :]
    as_id: Any = int if options.id_type == "int64" else str
    return {
        "user_id": as_id(data.user_ids[data.users[-1]]),
        "recent_items": [as_id(name) for name in recent],
        "exclude_items": [as_id(name) for name in visited[:_EXCLUDED]],
        "k": min(10, options.max_k),
    }


command_line.make_callable(__name__, "rd_tf.serving.export:export_to")

if __name__ == "__main__":
    command_line.run(export)

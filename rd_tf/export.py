"""Exports a trained ranker for tensorflow_model_server: python -m rd_tf.export --run_dir=... --dataset=..."""

import json
import shlex
from pathlib import Path

from rd_tf import command_line, run_directory
from rd_tf.errors import InputError
from rd_tf.serving.export_name import check_export_name


def export(
    *, run_dir: str, dataset: str, export_dir: str, export_name: str, export_k: int, exclude_recent: bool
) -> str:
    """Writes a finished run's model as <export_dir>/<export_name>/<next version>, which tensorflow_model_server serves.

    Returns:
        The version's directory.

    Raises:
        InputError: no finished run, another dataset than the run's, an illegal name, a list longer than the catalogue,
            or a directory that cannot be written.
    """
    from rd_tf.data import dataset_directory

    trained_on = run_directory.load_run_manifest(run_dir)["dataset"]["fingerprint"]
    dataset_directory.check_same_dataset(dataset, trained_on, "run_dir", run_dir)
    if not export_dir:
        raise InputError("--export_dir is empty; name a directory")
    check_export_name(export_name)

    from rd_tf.quiet_tensorflow import import_quietly

    import_quietly()
    from rd_tf.models.storage import load_model
    from rd_tf.serving.export import export_ranker

    model = load_model(run_dir)
    data = dataset_directory.load_dataset(dataset)
    directory = Path(export_dir).absolute() / export_name
    version = export_ranker(model, data.user_ids, data.item_ids, directory, export_k, exclude_recent)
    user, recent = data.user_ids[data.users[-1]], data.items[data.users == data.users[-1]]
    if model.looks_back == "none":
        recent = recent[-model.sequence_length :]
    request = {"instances": [{"user_id": user, "recent_items": [data.item_ids[item - 1] for item in recent]}]}
    size = sum(file.stat().st_size for file in version.rglob("*") if file.is_file())
    print(f"exported {version} ({size:,} bytes); serve it and ask it with")
    base = shlex.quote(str(directory))
    print(f"tensorflow_model_server --model_name={export_name} --model_base_path={base} --rest_api_port=8501")
    body = shlex.quote(json.dumps(request))
    print(f"curl -d {body} http://localhost:8501/v1/models/{export_name}:predict")
    return str(version)


if __name__ == "__main__":
    command_line.run(export)

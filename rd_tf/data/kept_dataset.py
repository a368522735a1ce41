"""Whether a dataset directory is what the same command would make again."""

from typing import Any

from rd_tf.data.dataset_directory import load_manifest
from rd_tf.data.readers.input_sha256 import input_sha256
from rd_tf.errors import InputError


def keep_dataset(flags: dict[str, Any]) -> dict[str, Any]:
    """Says that a dataset directory is kept, where it was made by the same flags from the same input.

    Args:
        flags: every flag of `rd_tf.prepare`, of which those that the manifest does not tell have no part in the
            dataset; others are not looked at.

    Returns:
        The dataset's manifest.

    Raises:
        InputError: it was made by other flags or from other input, or is no dataset directory.
    """
    directory, manifest = flags["dataset"], load_manifest(flags["dataset"])
    source = {**manifest["source"], "shards": len(manifest.get("shards", []))}
    flags = {**flags, "shards": min(flags["shards"], manifest["users"])}
    for name, value in flags.items():
        if source.get(name, value) != value:
            raise InputError(
                f"--dataset={directory} was made with --{name}={_as_text(source[name])}, not {_as_text(value)}; "
                "name another directory, or --force makes it again"
            )
    names = ("input", "format", "tfds_data_dir", "tfds_manual_dir")
    if source.get("input_sha256", []) != input_sha256(**{name: flags[name] for name in names}):
        raise InputError(
            f"--dataset={directory} was made when the files of --input={','.join(flags['input'])} held something else; "
            "name another directory, or --force makes it again"
        )
    print(f"dataset kept: {directory}", flush=True)
    return manifest


def _as_text(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)

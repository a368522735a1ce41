"""What tensorflow_model_server needs beside the models: models, monitoring, a container."""

import dataclasses
import os
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from rd_tf.serving.compose import (
    GRPC_MAX_THREADS,
    HEALTHCHECK,
    HEALTHCHECK_FILE,
    IMAGE,
    LOAD_RETRY_INTERVAL_MICROS,
    MAX_NUM_LOAD_RETRIES,
    MODELS_DIR,
    PROMETHEUS_PATH,
    compose_text,
)
from rd_tf.serving.export_name import is_export_name
from rd_tf.serving.kept_file import Outcome, write_unless_edited
from rd_tf.serving.publishing import versions
from rd_tf.storage import directory_lock

# Another export that writes the same files needs milliseconds.
_WAIT_SECONDS = 30.0
_COMPOSE_FILE = "compose.yaml"
# Earlier exports wrote it and switched it on; answers were wrong with it.
_BATCHING_FILE = "batching.config"


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """How a server is run.

    Attributes:
        grpc_port: port on 127.0.0.1 for gRPC.
        rest_port: port on 127.0.0.1 for REST, the health check and Prometheus.
        poll_seconds: how often the server looks for new versions and models, in seconds.
        grpc_max_threads: gRPC calls that are worked on at a time; the server refuses further ones
            (RESOURCE_EXHAUSTED).
        max_num_load_retries: how often a version that cannot be loaded is tried again; later versions wait meanwhile.
        load_retry_interval_micros: between two such tries, in microseconds.
        image: of the container.
    """

    grpc_port: int = 8500
    rest_port: int = 8501
    poll_seconds: int = 5
    grpc_max_threads: int = GRPC_MAX_THREADS
    max_num_load_retries: int = MAX_NUM_LOAD_RETRIES
    load_retry_interval_micros: int = LOAD_RETRY_INTERVAL_MICROS
    image: str = IMAGE


def write_server_config(export_dir: str | os.PathLike[str], options: ServerOptions | None = None) -> dict[str, Outcome]:
    """Writes models.config, monitoring.config, healthcheck.sh and compose.yaml into a directory.

    The batching.config of an earlier export is removed, unless somebody edited it or an edited compose.yaml names it.

    Args:
        export_dir: directory of all exports; every model in it that has a version gets into models.config.
        options: None for the defaults.

    Returns:
        File name -> whether it was written, was so already, or stays as the user has edited it; batching.config is
        among them where it stays as edited.

    Raises:
        InputError: another process holds the directory for longer than 30 seconds.
        ValueError: both ports are one.
    """
    export_dir, options = Path(export_dir), options or ServerOptions()
    if options.grpc_port == options.rest_port:
        raise ValueError(f"grpc_port and rest_port are both {options.rest_port}; take two ports")
    # Two exports at once: the second must see the first one's model.
    with directory_lock(export_dir, _WAIT_SECONDS):
        texts = {
            "models.config": models_text(export_dir),
            "monitoring.config": f'prometheus_config {{ enable: true, path: "{PROMETHEUS_PATH}" }}\n',
            HEALTHCHECK_FILE: HEALTHCHECK,
            _COMPOSE_FILE: compose_text(**dataclasses.asdict(options)),
        }
        outcomes = {name: write_unless_edited(export_dir / name, text) for name, text in texts.items()}
        return outcomes | _remove_batching_file(export_dir)


def models_text(export_dir: str | os.PathLike[str]) -> str:
    """A ModelServerConfig of all models below a directory that have a version, with the container's paths."""
    config = model_server_config_pb2.ModelServerConfig()
    # Set even where it stays empty, else the server takes the file for no configuration and keeps the models it has.
    config.model_config_list.SetInParent()
    for directory in sorted(Path(export_dir).iterdir()):
        if directory.is_dir() and is_export_name(directory.name) and _can_be_served(directory):
            base_path = f"{MODELS_DIR}/{directory.name}"
            config.model_config_list.config.add(name=directory.name, base_path=base_path, model_platform="tensorflow")
    return text_format.MessageToString(config)


def _remove_batching_file(export_dir: Path) -> dict[str, Outcome]:
    file = export_dir / _BATCHING_FILE
    # A server whose command line names a file that is not there does not start.
    if not file.exists() or _BATCHING_FILE in (export_dir / _COMPOSE_FILE).read_text("utf-8", "replace"):
        return {}
    if write_unless_edited(file, "") is Outcome.EDITED:
        return {_BATCHING_FILE: Outcome.EDITED}
    file.unlink()
    return {}


def _can_be_served(directory: Path) -> bool:
    # A version for devices is none that the server could load.
    return any((version / "saved_model.pb").exists() for version in versions(directory))

"""What tensorflow_model_server needs beside the models: models, batching, monitoring, a container."""

import dataclasses
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from rd_tf import storage
from rd_tf.serving.compose import HEALTHCHECK, HEALTHCHECK_FILE, IMAGE, MODELS_DIR, PROMETHEUS_PATH, compose_text
from rd_tf.serving.export_name import is_export_name
from rd_tf.serving.kept_file import Outcome, write_unless_edited
from rd_tf.serving.publishing import versions

# Another export that writes the same files needs milliseconds.
_WAIT_SECONDS = 30.0
# The server's own 10 refuses requests at the first burst.
_MAX_ENQUEUED_BATCHES = 100


@dataclasses.dataclass(frozen=True)
class ServerOptions:
    """How a server is run.

    Attributes:
        max_batch_size: most rows in a batch, and in a request.
        batch_timeout_micros: how long a request waits for others, in microseconds.
        num_batch_threads: batches that are computed at the same time; 0: as many as the server has cores.
        allowed_batch_sizes: sizes that batches are padded to, ascending, the last one `max_batch_size`; none: powers of
            two.
        grpc_port: port on 127.0.0.1 for gRPC.
        rest_port: port on 127.0.0.1 for REST, the health check and Prometheus.
        poll_seconds: how often the server looks for new versions and models, in seconds.
        image: of the container.
    """

    max_batch_size: int = 64
    batch_timeout_micros: int = 1000
    num_batch_threads: int = 0
    allowed_batch_sizes: Sequence[int] = ()
    grpc_port: int = 8500
    rest_port: int = 8501
    poll_seconds: int = 5
    image: str = IMAGE


def write_server_config(export_dir: str | os.PathLike[str], options: ServerOptions | None = None) -> dict[str, Outcome]:
    """Writes models.config, batching.config, monitoring.config, healthcheck.sh and compose.yaml into a directory.

    Args:
        export_dir: directory of all exports; every model in it that has a version gets into models.config.
        options: None for the defaults.

    Returns:
        File name -> whether it was written, was so already, or stays as the user has edited it.

    Raises:
        InputError: another process holds the directory for longer than 30 seconds.
        ValueError: the batch sizes or ports do not fit together.
    """
    export_dir, options = Path(export_dir), options or ServerOptions()
    if options.grpc_port == options.rest_port:
        raise ValueError(f"grpc_port and rest_port are both {options.rest_port}; take two ports")
    batching = batching_text(options)
    # Two exports at once: the second must see the first one's model.
    with storage.directory_lock(export_dir, _WAIT_SECONDS):
        texts = {
            "models.config": models_text(export_dir),
            "batching.config": batching,
            "monitoring.config": f'prometheus_config {{ enable: true, path: "{PROMETHEUS_PATH}" }}\n',
            HEALTHCHECK_FILE: HEALTHCHECK,
            "compose.yaml": compose_text(options.image, options.grpc_port, options.rest_port, options.poll_seconds),
        }
        return {name: write_unless_edited(export_dir / name, text) for name, text in texts.items()}


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


def _can_be_served(directory: Path) -> bool:
    # A version for devices is none that the server could load.
    return any((version / "saved_model.pb").exists() for version in versions(directory))


def batching_text(options: ServerOptions) -> str:
    """BatchingParameters as text.

    Raises:
        ValueError: `allowed_batch_sizes` do not ascend to `max_batch_size`.
    """
    largest = options.max_batch_size
    sizes = list(options.allowed_batch_sizes) or [*_powers_of_two_below(largest), largest]
    if sizes[0] < 1 or sizes[-1] != largest or any(a >= b for a, b in itertools.pairwise(sizes)):
        given = ",".join(map(str, sizes))
        raise ValueError(
            f"allowed_batch_sizes must ascend from 1 or more to max_batch_size = {largest}; received {given}"
        )
    lines = [
        f"max_batch_size {{ value: {largest} }}",
        f"batch_timeout_micros {{ value: {options.batch_timeout_micros} }}",
        f"max_enqueued_batches {{ value: {_MAX_ENQUEUED_BATCHES} }}",
        *(f"allowed_batch_sizes: {size}" for size in sizes),
        # Requests of one batch may have lists of different lengths; "" means that there is no item.
        "pad_variable_length_inputs: true",
    ]
    if options.num_batch_threads:
        lines.append(f"num_batch_threads {{ value: {options.num_batch_threads} }}")
    return "".join(f"{line}\n" for line in lines)


def _powers_of_two_below(limit: int) -> list[int]:
    return [2**power for power in range(limit.bit_length()) if 2**power < limit]

"""What tensorflow_model_server needs beside the models: models, monitoring, a container."""

import dataclasses
import enum
import hashlib
import os
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from rd_tf import storage
from rd_tf.serving.options import is_export_name
from rd_tf.serving.publishing import versions

_MARK = "# Written by rd_tf.export. An edited file is left alone; delete it to have it written anew. "


class Outcome(enum.Enum):
    """What `write_unless_edited` did."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    EDITED = "edited"


def write_unless_edited(path: str | os.PathLike[str], text: str) -> Outcome:
    """Writes a text under a comment that holds its SHA-256, whole or not at all.

    A file that does not begin with that comment, or whose text is not the comment's, is somebody's own and stays.

    Args:
        path: the file; `#` begins a comment in it.
        text: without the comment.

    Returns:
        EDITED where a file of the user's stays that is not what would be written.
    """
    path = Path(path)
    whole = f"{_MARK}{_digest(text)}\n{text}"
    if path.exists():
        found = path.read_text(encoding="utf-8", errors="replace")
        if found == whole:
            return Outcome.UNCHANGED
        if not _is_ours(found):
            return Outcome.EDITED
    storage.write_text(path, whole)
    return Outcome.WRITTEN


def _is_ours(found: str) -> bool:
    first, _, text = found.partition("\n")
    return first == _MARK + _digest(text)


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


# As the container sees the directory of all exports.
MODELS_DIR = "/models"
# The newest release (git tag 2.20.0 of tensorflow/serving).
IMAGE = "tensorflow/serving:2.20.0"
PROMETHEUS_PATH = "/monitoring/prometheus/metrics"
HEALTHCHECK_FILE = "healthcheck.sh"
# The server's own 4 x cores refuses a call when that many are under way.
GRPC_MAX_THREADS = 64
# The server's own 5 retries, a minute apart, keep a good version waiting for five minutes behind a broken one.
MAX_NUM_LOAD_RETRIES = 1
LOAD_RETRY_INTERVAL_MICROS = 1_000_000


def compose_text(
    *,
    image: str,
    grpc_port: int,
    rest_port: int,
    poll_seconds: int,
    grpc_max_threads: int,
    max_num_load_retries: int,
    load_retry_interval_micros: int,
) -> str:
    """A service that reads all models from the directory the file lies in.

    The directory is mounted as a whole: a file that is mounted alone stays the old one when it is replaced. The
    server's own batching is off: it fills short lists with their first element, and answers depend on who else asks.

    Args:
        image: of the container.
        grpc_port: of this machine, bound to 127.0.0.1.
        rest_port: of this machine, bound to 127.0.0.1.
        poll_seconds: how often the server looks for new versions and for a new models.config.
        grpc_max_threads: gRPC calls that are worked on at a time.
        max_num_load_retries: how often a version that cannot be loaded is tried again before the next one's turn.
        load_retry_interval_micros: between two such tries, in microseconds.
    """
    return f"""services:
  serving:
    image: {image}
    restart: unless-stopped
    ports:
      - "127.0.0.1:{grpc_port}:8500"
      - "127.0.0.1:{rest_port}:8501"
    volumes:
      - type: bind
        source: .
        target: {MODELS_DIR}
        read_only: true
    command:
      - --model_config_file={MODELS_DIR}/models.config
      - --model_config_file_poll_wait_seconds={poll_seconds}
      - --file_system_poll_wait_seconds={poll_seconds}
      - --grpc_max_threads={grpc_max_threads}
      - --max_num_load_retries={max_num_load_retries}
      - --load_retry_interval_micros={load_retry_interval_micros}
      - --monitoring_config_file={MODELS_DIR}/monitoring.config
    healthcheck:
      test: ["CMD", "bash", "{MODELS_DIR}/{HEALTHCHECK_FILE}"]
      interval: 10s
      timeout: 5s
      # A model that has just been added is not served before the next poll.
      retries: {3 + poll_seconds // 10}
      start_period: 60s
"""


# The image has neither curl nor wget, but bash opens sockets.
HEALTHCHECK = f"""# Succeeds where every model of models.config has a version that is served.
config=${{1:-{MODELS_DIR}/models.config}}
port=${{2:-8501}}
names=$(grep -oE '(^|[^_a-z])name: *"[^"]*"' "$config" | cut -d'"' -f2)
for name in $names; do
    exec 3<>"/dev/tcp/127.0.0.1/$port" || exit 1
    printf 'GET /v1/models/%s HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' "$name" >&3
    grep -q '"AVAILABLE"' <&3 || {{ echo "$name is not served"; exit 1; }}
    exec 3>&-
done
"""


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
    with storage.directory_lock(export_dir, _WAIT_SECONDS):
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

"""What tensorflow_model_server needs beside the models: models, monitoring, a container."""

import enum
import hashlib
import os
from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from rd_tf.serving.publishing import is_export_name, versions
from rd_tf.storage import directory_lock, write_text

_MARK = "# Written by rd_tf.export. An edited file is left alone; delete it to have it written anew. "
# As the container sees the directory of all exports.
MODELS_DIR = "/models"
# The newest release (git tag 2.20.0 of tensorflow/serving).
IMAGE = "tensorflow/serving:2.20.0"
PROMETHEUS_PATH = "/monitoring/prometheus/metrics"
HEALTHCHECK_FILE = "healthcheck.sh"
# How often the server looks for new versions and for a new models.config.
_POLL_SECONDS = 5
# The server's own default, 4 x cores, refuses a call when that many are under way.
GRPC_MAX_THREADS = 64
# The server's own 5 retries, a minute apart, keep a good version waiting for five minutes behind a broken one.
MAX_NUM_LOAD_RETRIES = 1
LOAD_RETRY_INTERVAL_MICROS = 1_000_000
# Another export that writes the same files needs milliseconds.
_WAIT_SECONDS = 30.0
_COMPOSE_FILE = "compose.yaml"
# Earlier exports wrote this file and switched the server's batching on; answers were wrong with it.
_BATCHING_FILE = "batching.config"
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
        first, _, own_text = found.partition("\n")
        if first != _MARK + _digest(own_text):
            return Outcome.EDITED
    write_text(path, whole)
    return Outcome.WRITTEN


def _digest(text: str) -> str:
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def compose_text(image: str) -> str:
    """A service that reads all models from the directory the file lies in, on ports 8500 and 8501 of this machine only.

    The directory is mounted as a whole: a file that is mounted alone stays the old one when it is replaced. The
    server's own batching is off: it fills short lists with their first element, and answers depend on who else asks.
    """
    return f"""services:
  serving:
    image: {image}
    restart: unless-stopped
    ports:
      - "127.0.0.1:8500:8500"
      - "127.0.0.1:8501:8501"
    volumes:
      - type: bind
        source: .
        target: {MODELS_DIR}
        read_only: true
    command:
      - --model_config_file={MODELS_DIR}/models.config
      - --model_config_file_poll_wait_seconds={_POLL_SECONDS}
      - --file_system_poll_wait_seconds={_POLL_SECONDS}
      - --grpc_max_threads={GRPC_MAX_THREADS}
      - --max_num_load_retries={MAX_NUM_LOAD_RETRIES}
      - --load_retry_interval_micros={LOAD_RETRY_INTERVAL_MICROS}
      - --monitoring_config_file={MODELS_DIR}/monitoring.config
    healthcheck:
      test: ["CMD", "bash", "{MODELS_DIR}/{HEALTHCHECK_FILE}"]
      interval: 10s
      timeout: 5s
      # A model that has just been added is not served before the next poll.
      retries: 3
      start_period: 60s
"""


def write_server_config(export_dir: str | os.PathLike[str], image: str = IMAGE) -> dict[str, Outcome]:
    """Writes models.config, monitoring.config, healthcheck.sh and compose.yaml into a directory.

    The batching.config of an earlier export is removed, unless somebody edited it or an edited compose.yaml names it.

    Args:
        export_dir: directory of all exports; every model in it that has a version gets into models.config.
        image: of the container.

    Returns:
        File name -> whether it was written, was so already, or stays as the user has edited it; batching.config is
        among them where it stays as edited.

    Raises:
        InputError: another process holds the directory for longer than 30 seconds.
    """
    export_dir = Path(export_dir)
    # Two exports at once: the second must see the first one's model.
    with directory_lock(export_dir, _WAIT_SECONDS):
        texts = {
            "models.config": models_text(export_dir),
            "monitoring.config": f'prometheus_config {{ enable: true, path: "{PROMETHEUS_PATH}" }}\n',
            HEALTHCHECK_FILE: HEALTHCHECK,
            _COMPOSE_FILE: compose_text(image),
        }
        outcomes = {name: write_unless_edited(export_dir / name, text) for name, text in texts.items()}
        return outcomes | _remove_batching_file(export_dir)


def models_text(export_dir: str | os.PathLike[str]) -> str:
    """A ModelServerConfig of all models below a directory that have a version, with the container's paths."""
    config = model_server_config_pb2.ModelServerConfig()
    # Set even where it stays empty, else the server takes the file for no configuration and keeps the models it has.
    config.model_config_list.SetInParent()
    for directory in sorted(Path(export_dir).iterdir()):
        if not directory.is_dir() or not is_export_name(directory.name):
            continue
        # A version without this file is one for devices, which the server could not load.
        if any((version / "saved_model.pb").exists() for version in versions(directory)):
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

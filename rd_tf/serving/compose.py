"""compose.yaml and the health check of the official tensorflow/serving container."""

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

"""Serves exports on this machine: python -m rd_tf.serve --model_name=... --model_base_path=..."""

import gc
import logging
import os
import shlex
import signal
import sys
import threading
from pathlib import Path

from rd_tf import command_line
from rd_tf.errors import InputError
from rd_tf.serving.server.settings import NAME, address_of, binary_arguments, bind, find_binary

_BATCHING_WARNING = (
    "--enable_batching pads as tensorflow_model_server does, with a list's own first element: answers to lists of "
    'different lengths are wrong unless every list begins with "" (int64: 0); see docs/serving_publishing.md, Batching'
)


def serve(
    *,
    model_name: str,
    model_base_path: str,
    model_config_file: str,
    host: str,
    port: int,
    rest_api_port: int,
    binary: str,
    file_system_poll_wait_seconds: int,
    threads: int,
    max_body_bytes: int,
    max_batch: int,
    request_timeout_seconds: float,
    grpc_max_threads: int,
    enable_batching: bool,
    batching_parameters_file: str,
) -> None:
    """Serves models as tensorflow_model_server does, over REST and gRPC, until SIGTERM or Ctrl-C.

    Where tensorflow_model_server is on PATH, it is started instead, with the same flags.

    Raises:
        InputError: nothing to serve, a configuration that cannot be read, a port that is taken, a model that cannot be
            loaded.
    """
    flags = dict(locals())
    _check(flags)
    program = find_binary(binary)
    if program:
        _become(program, flags)
    from rd_tf.serving.server.settings import read_batching_parameters, read_model_config, single_model

    batching = read_batching_parameters(batching_parameters_file) if enable_batching else None
    if batching:
        print(_BATCHING_WARNING, file=sys.stderr, flush=True)
    if model_config_file:
        models = read_model_config(model_config_file)
    else:
        models = single_model(model_name, str(Path(model_base_path).absolute()))
    rest_socket = bind(host, rest_api_port) if rest_api_port else None
    if port:
        # gRPC would say so only after the models are loaded.
        bind(host, port).close()

    stop = threading.Event()
    _stop_on_signals(stop)
    from rd_tf.quiet_tensorflow import import_quietly

    import_quietly()
    import tensorflow as tf

    from rd_tf.serving.server.model_server import ModelServer
    from rd_tf.serving.server.settings import Limits

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("rd_tf.serve").setLevel(logging.INFO)
    # Restored parameters and deprecated loaders are no news to a user.
    tf.get_logger().setLevel(logging.ERROR)
    # The collector runs whenever a version is unloaded; walking all of TensorFlow takes it a fifth of a second.
    gc.freeze()
    limits = Limits(max_body_bytes, max_batch, request_timeout_seconds)
    server = ModelServer(
        models,
        host=host,
        port=port,
        rest_socket=rest_socket,
        poll_seconds=file_system_poll_wait_seconds,
        threads=threads,
        limits=limits,
        batching=batching,
    )
    try:
        _check_available(server.store.unavailable())
        print(_ready(models[0].name, host, port, rest_api_port), flush=True)
        stop.wait()
    finally:
        server.close()


def _check(flags: dict) -> None:
    if bool(flags["model_config_file"]) == bool(flags["model_base_path"]):
        raise InputError("give either --model_base_path (and --model_name) or --model_config_file")
    if flags["model_base_path"] and not Path(flags["model_base_path"]).is_dir():
        given = flags["model_base_path"]
        raise InputError(f"--model_base_path={given} is not a directory; name the parent of the version directories")
    if flags["model_base_path"] and not flags["model_name"]:
        raise InputError("--model_name is empty; it is the model's name in requests")
    if flags["batching_parameters_file"] and not flags["enable_batching"]:
        raise InputError("--batching_parameters_file is given without --enable_batching; give both or neither")
    if flags["port"] == flags["rest_api_port"]:
        raise InputError(f"--port and --rest_api_port are both {flags['port']}; they must differ")


def _become(program: str, flags: dict) -> None:
    arguments = binary_arguments(program, flags)
    print(
        f"starting {shlex.join(arguments)}; it listens on every interface of this machine", file=sys.stderr, flush=True
    )
    try:
        os.execv(program, arguments)
    except OSError as error:
        raise InputError(f"{program} cannot be started: {error.strerror}; --binary=never does without {NAME}") from None


def _stop_on_signals(stop: threading.Event) -> None:
    def handle(number: int, _: object) -> None:
        # Whoever cannot wait for the requests under way sends it again.
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def _check_available(unavailable: dict[str, list[str]]) -> None:
    for name, errors in unavailable.items():
        if errors:
            raise InputError(f"model {name} cannot be served: {errors[-1]}")
        print(f"model {name} has no version yet; waiting for a directory with a number for its name", file=sys.stderr)


def _ready(name: str, host: str, port: int, rest_api_port: int) -> str:
    served = []
    if rest_api_port:
        url = f"http://{address_of(host, rest_api_port)}/v1/models/{name}"
        served.append(f"REST at {url} (try: curl {shlex.quote(url + '/metadata')})")
    if port:
        served.append(f"gRPC at {address_of(host, port)}")
    return f"ready: {', '.join(served)}"


if __name__ == "__main__":
    command_line.run(serve)

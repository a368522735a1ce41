"""Serves exports on this machine: python -m rd_tf.serve --model_name=... --model_base_path=..."""

import dataclasses
import gc
import logging
import os
import shlex
import signal
import sys
import threading
from typing import Any

from rd_tf import command_line
from rd_tf.serving.server.settings import (
    NAME,
    Limits,
    ServeOptions,
    address_of,
    binary_arguments,
    bind,
    find_binary,
    read_batching_parameters,
)
from rd_tf.storage import InputError

_BATCHING_WARNING = (
    "--enable_batching pads as tensorflow_model_server does, with a list's own first element: answers to lists of "
    'different lengths are wrong unless every list begins with "" (int64: 0); see docs/serving_publishing.md, Batching'
)


def serve(**flags: Any) -> None:
    """Serves models as tensorflow_model_server does, over REST and gRPC, until SIGTERM or Ctrl-C.

    Where tensorflow_model_server is on PATH, it is started instead, with the same flags.

    Args:
        **flags: those of `ServeOptions`.

    Raises:
        InputError: nothing to serve, a configuration that cannot be read, a port that is taken, a model that cannot be
            loaded.
    """
    options = ServeOptions(**flags)
    options.check()
    program = find_binary(options.binary)
    if program:
        _become(program, options)
    batching = read_batching_parameters(options.batching_parameters_file) if options.enable_batching else None
    if batching:
        print(_BATCHING_WARNING, file=sys.stderr, flush=True)
    models = options.models()
    rest_socket = bind(options.host, options.rest_api_port) if options.rest_api_port else None
    if options.port:
        # gRPC itself would tell that the port is taken only after the models are loaded.
        bind(options.host, options.port).close()

    stop = threading.Event()
    _stop_on_signals(stop)
    from rd_tf.runtime import import_quietly

    import_quietly()
    import tensorflow as tf

    from rd_tf.serving.server.model_server import ModelServer

    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    logging.getLogger("rd_tf.serve").setLevel(logging.INFO)
    # TensorFlow's logger tells of restored parameters and deprecated loaders, which are no news to a user.
    tf.get_logger().setLevel(logging.ERROR)
    # The collector runs whenever a version is unloaded; walking all of TensorFlow takes it a fifth of a second.
    gc.freeze()
    server = ModelServer(
        models,
        host=options.host,
        port=options.port,
        rest_socket=rest_socket,
        poll_seconds=options.file_system_poll_wait_seconds,
        threads=options.threads,
        limits=Limits(options.max_body_bytes, options.max_batch, options.max_values, options.request_timeout_seconds),
        cors=options.rest_api_enable_cors_support,
        batching=batching,
    )
    try:
        _check_available(server.store.unavailable())
        print(_ready(models[0].name, options), flush=True)
        stop.wait()
    finally:
        server.close()


serve.flag_names = [field.name for field in dataclasses.fields(ServeOptions)]  # type: ignore[attr-defined]


def _become(program: str, options: ServeOptions) -> None:
    arguments = binary_arguments(program, options)
    print(
        f"starting {shlex.join(arguments)}; it listens on every interface of this machine", file=sys.stderr, flush=True
    )
    try:
        os.execv(program, arguments)
    except OSError as error:
        raise InputError(f"{program} cannot be started: {error.strerror}; --binary=never does without {NAME}") from None


def _stop_on_signals(stop: threading.Event) -> None:
    def handle(number: int, _: object) -> None:
        # A second signal ends the process at once, without waiting for the requests under way.
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)


def _check_available(unavailable: dict[str, list[str]]) -> None:
    for name, errors in unavailable.items():
        if errors:
            raise InputError(f"model {name} cannot be served: {errors[-1]}")
        print(f"model {name} has no version yet; waiting for a directory with a number for its name", file=sys.stderr)


def _ready(name: str, options: ServeOptions) -> str:
    served = []
    if options.rest_api_port:
        url = f"http://{address_of(options.host, options.rest_api_port)}/v1/models/{name}"
        served.append(f"REST at {url} (try: curl {shlex.quote(url + '/metadata')})")
    if options.port:
        served.append(f"gRPC at {address_of(options.host, options.port)}")
    return f"ready: {', '.join(served)}"


if __name__ == "__main__":
    command_line.run(serve)

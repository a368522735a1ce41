"""What the server is told; read and checked before TensorFlow is imported, so that a mistake is told at once."""

import dataclasses
import os
import shutil
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2 as config_pb2

from rd_tf.errors import InputError
from rd_tf.serving.server_files import LOAD_RETRY_INTERVAL_MICROS, MAX_NUM_LOAD_RETRIES


@dataclass(frozen=True)
class Limits:
    """Bounds of a request.

    Attributes:
        max_body_bytes: of an HTTP body or a gRPC message, and of every tensor that a request describes.
        max_batch: rows, the first dimension of an input.
        request_timeout_seconds: of the graph's run.
    """

    max_body_bytes: int = 16 << 20
    max_batch: int = 1024
    request_timeout_seconds: float = 30.0


_FIELD = descriptor_pb2.FieldDescriptorProto
# Fields of BatchingParameters that hold a whole number, and their numbers in the message.
_NUMBERS = {
    "max_batch_size": 1,
    "batch_timeout_micros": 2,
    "max_enqueued_batches": 3,
    "num_batch_threads": 4,
    "max_execution_batch_size": 9,
}


@dataclasses.dataclass(frozen=True)
class SessionBatching:
    """BatchingParameters; the defaults are tensorflow_model_server's.

    Attributes:
        max_batch_size: most rows of a batch, and of a request.
        batch_timeout_micros: how long the first request of a batch waits for others, in microseconds.
        max_enqueued_batches: batches of a signature that may wait.
        num_batch_threads: batches that are computed at the same time.
        allowed_batch_sizes: sizes that batches are filled up to, ascending, the last one `max_batch_size`; none: any.
        pad_variable_length_inputs: whether requests of different lengths may meet.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = dataclasses.field(default_factory=lambda: os.cpu_count() or 1)
    allowed_batch_sizes: Sequence[int] = ()
    pad_variable_length_inputs: bool = False

    def filled(self, rows: int) -> int:
        """Rows of a batch once it is filled up."""
        return next((size for size in self.allowed_batch_sizes if size >= rows), rows)


def read_batching_parameters(file: str) -> SessionBatching:
    """Reads --batching_parameters_file, a BatchingParameters in protobuf's text format; empty gives the defaults.

    Raises:
        InputError: the file cannot be read, is no such message, or its values do not fit together.
    """
    if not file:
        return SessionBatching()
    flag = f"--batching_parameters_file={file}"
    try:
        text = Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{flag} cannot be read: {error}") from None
    try:
        message = text_format.Parse(text, _parameters_message())
    except text_format.ParseError as error:
        raise InputError(f"{flag}, line {error.GetLine() or 1} is not a BatchingParameters: {error}") from None
    if message.enable_large_batch_splitting.value:
        raise InputError(f"{flag} sets enable_large_batch_splitting, which only tensorflow_model_server itself has")
    given = {name: getattr(message, name).value for name in _NUMBERS if message.HasField(name)}
    # It counts with enable_large_batch_splitting only.
    given.pop("max_execution_batch_size", None)
    batching = SessionBatching(
        **given,
        allowed_batch_sizes=tuple(message.allowed_batch_sizes),
        pad_variable_length_inputs=message.pad_variable_length_inputs,
    )
    for name, least in (("max_batch_size", 1), ("batch_timeout_micros", 0), ("num_batch_threads", 1)):
        if getattr(batching, name) < least:
            raise InputError(f"{flag}: {name} is {getattr(batching, name)}, below {least}")
    sizes = batching.allowed_batch_sizes
    if sizes and (sizes[-1] != batching.max_batch_size or list(sizes) != sorted(set(sizes))):
        raise InputError(
            f"{flag}: allowed_batch_sizes must ascend to max_batch_size = {batching.max_batch_size}; received "
            f"{','.join(map(str, sizes))}"
        )
    return batching


def _parameters_message() -> Any:
    # No package holds this message.
    file = descriptor_pb2.FileDescriptorProto(name="rd_tf_batching.proto", package="rd_tf.batching", syntax="proto3")
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    message = file.message_type.add(name="BatchingParameters")
    optional, repeated = _FIELD.LABEL_OPTIONAL, _FIELD.LABEL_REPEATED

    def wrapped(name: str, number: int, kind: str) -> None:
        type_name = f".google.protobuf.{kind}Value"
        message.field.add(name=name, number=number, label=optional, type=_FIELD.TYPE_MESSAGE, type_name=type_name)

    for name, number in _NUMBERS.items():
        wrapped(name, number, "Int64")
    wrapped("thread_pool_name", 5, "String")
    wrapped("enable_large_batch_splitting", 8, "Bool")
    message.field.add(name="allowed_batch_sizes", number=6, label=repeated, type=_FIELD.TYPE_INT64)
    message.field.add(name="pad_variable_length_inputs", number=7, label=optional, type=_FIELD.TYPE_BOOL)
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("rd_tf.batching.BatchingParameters"))()


_PLATFORM = "tensorflow"


def single_model(name: str, base_path: str) -> list[config_pb2.ModelConfig]:
    """The models of --model_name and --model_base_path: one, of which the latest version is served."""
    return [config_pb2.ModelConfig(name=name, base_path=base_path, model_platform=_PLATFORM)]


def read_model_config(file: str) -> list[config_pb2.ModelConfig]:
    """The models of a ModelServerConfig in protobuf's text format.

    Raises:
        InputError: no such file, or not a configuration; the sentence names the line.
    """
    try:
        text = Path(file).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--model_config_file={file} cannot be read: {error}") from None
    try:
        config = text_format.Parse(text, config_pb2.ModelServerConfig())
    except text_format.ParseError as error:
        line = error.GetLine() or 1
        raise InputError(f"{file}, line {line} is not a ModelServerConfig: {error}") from None
    return check_models(config, file)


def check_models(config: config_pb2.ModelServerConfig, source: str) -> list[config_pb2.ModelConfig]:
    """The models of a configuration, checked.

    Args:
        config: the configuration.
        source: where it came from, for the message.

    Raises:
        InputError: no models, a model without name, directory or platform, two of one name, an unsupported kind of
            model.
    """
    models = list(config.model_config_list.config)
    if not models:
        raise InputError(
            f"{source} names no model; write model_config_list {{ config {{ name: ... base_path: ... "
            f'model_platform: "{_PLATFORM}" }} }}'
        )
    for model in models:
        if not model.name:
            raise InputError(f"{source} has a model without a name")
        if not Path(model.base_path).is_dir():
            raise InputError(f"{source}: base_path {model.base_path!r} of model {model.name} is not a directory")
        _check_platform(model, source)
    if len({model.name for model in models}) < len(models):
        raise InputError(f"{source} names a model twice")
    return models


def _check_platform(model: config_pb2.ModelConfig, source: str) -> None:
    # The deprecated way to say it, which tensorflow_model_server takes as long as it is the only one.
    if model.model_type == config_pb2.TENSORFLOW and not model.model_platform:
        return
    if model.model_type:
        raise InputError(f'{source}: model {model.name} has a model_type; write only model_platform: "{_PLATFORM}"')
    if not model.model_platform:
        raise InputError(f'{source}: model {model.name} has no model_platform; write model_platform: "{_PLATFORM}"')
    if model.model_platform != _PLATFORM:
        raise InputError(f"{source}: model {model.name} is of the platform {model.model_platform}, not {_PLATFORM}")


def address_of(host: str, port: int) -> str:
    """A host and a port as URLs and gRPC write them, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to a port.

    Raises:
        InputError: the port is taken, or the host is no address of this machine.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"--host={host} is not an address of this machine: {error.strerror}") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        raise InputError(f"cannot listen on {host}:{port}: {(error.strerror or 'refused').lower()}") from None
    return listening


NAME = "tensorflow_model_server"


def find_binary(choice: str) -> str | None:
    """The program that --binary means.

    Args:
        choice: `auto` (on PATH, if it is there), `never`, or a path.

    Returns:
        Its path; None: the server in Python is to run.

    Raises:
        InputError: the path is no program.
    """
    if choice == "never":
        return None
    if choice == "auto":
        return shutil.which(NAME)
    if not Path(choice).is_file() or not os.access(choice, os.X_OK):
        raise InputError(f"--binary={choice} is not a program; give auto, never or the path of {NAME}")
    return str(Path(choice).absolute())


def binary_arguments(program: str, flags: Mapping[str, Any]) -> list[str]:
    """The command line that does what our flags say.

    --host, --max_body_bytes and --max_batch have no counterpart. The program cannot do without gRPC: for --port=0 it
    gets a UNIX socket in the directory for temporary files, which only this user may write to.

    Args:
        program: path of the program.
        flags: our flags.
    """
    arguments = [program]
    if flags["model_config_file"]:
        # Without it the program refuses labels until their versions have been loaded once.
        labels = "--allow_version_labels_for_unavailable_models=true"
        arguments += [f"--model_config_file={Path(flags['model_config_file']).absolute()}", labels]
    else:
        base_path = Path(flags["model_base_path"]).absolute()
        arguments += [f"--model_name={flags['model_name']}", f"--model_base_path={base_path}"]
    if not flags["port"]:
        # The program takes this process's place, and its number with it.
        arguments.append(f"--grpc_socket_path={Path(tempfile.gettempdir(), f'rd_tf.serve-{os.getpid()}.sock')}")
    if flags["enable_batching"]:
        arguments.append("--enable_batching=true")
        # The program refuses to start with parameters but no batching.
        if flags["batching_parameters_file"]:
            arguments.append(f"--batching_parameters_file={Path(flags['batching_parameters_file']).absolute()}")
    return [
        *arguments,
        f"--port={flags['port']}",
        f"--grpc_max_threads={flags['grpc_max_threads']}",
        f"--rest_api_port={flags['rest_api_port']}",
        f"--rest_api_num_threads={flags['threads']}",
        f"--rest_api_timeout_in_ms={round(1000 * flags['request_timeout_seconds'])}",
        f"--file_system_poll_wait_seconds={round(flags['file_system_poll_wait_seconds'])}",
        f"--max_num_load_retries={MAX_NUM_LOAD_RETRIES}",
        f"--load_retry_interval_micros={LOAD_RETRY_INTERVAL_MICROS}",
    ]

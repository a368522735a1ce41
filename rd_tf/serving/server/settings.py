"""What the server is told.

Nothing here imports TensorFlow, so that rd_tf.serve tells of a mistake, and takes its ports, before that long import.
"""

import dataclasses
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2
from tensorflow_serving.config import model_server_config_pb2 as config_pb2

from rd_tf import run_directory
from rd_tf.serving.server_files import LOAD_RETRY_INTERVAL_MICROS, MAX_NUM_LOAD_RETRIES
from rd_tf.storage import InputError

NAME = "tensorflow_model_server"
_PLATFORM = "tensorflow"
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
class ServeOptions:
    """How rd_tf.serve is run; every attribute is the flag of that name."""

    model_name: str
    model_base_path: str
    model_config_file: str
    host: str
    port: int
    rest_api_port: int
    binary: str
    file_system_poll_wait_seconds: int
    threads: int
    max_body_bytes: int
    max_batch: int
    max_values: int
    request_timeout_seconds: float
    rest_api_enable_cors_support: bool
    grpc_max_threads: int
    enable_batching: bool
    batching_parameters_file: str

    def check(self) -> None:
        """Checks that the options fit together.

        Raises:
            InputError: they do not, or `model_base_path` is no directory of versions.
        """
        if bool(self.model_config_file) == bool(self.model_base_path):
            raise InputError("give either --model_base_path (and --model_name) or --model_config_file")
        if self.model_base_path:
            check_base_path(self.model_base_path, f"--model_base_path={self.model_base_path}")
        if self.model_base_path and not self.model_name:
            raise InputError("--model_name is empty; it is the model's name in requests")
        if self.batching_parameters_file and not self.enable_batching:
            raise InputError("--batching_parameters_file is given without --enable_batching; give both or neither")
        if self.port == self.rest_api_port:
            raise InputError(f"--port and --rest_api_port are both {self.port}; they must differ")

    def models(self) -> list[config_pb2.ModelConfig]:
        """What to serve; see `read_model_config`."""
        if self.model_config_file:
            return read_model_config(self.model_config_file)
        return single_model(self.model_name, str(Path(self.model_base_path).absolute()))


@dataclasses.dataclass(frozen=True)
class Limits:
    """Bounds of a request.

    Attributes:
        max_body_bytes: of an HTTP body or a gRPC message, and of every tensor that a request describes.
        max_batch: rows, the first dimension of an input.
        max_values: ids or numbers of an input, in all its rows.
        request_timeout_seconds: of the graph's run.
    """

    max_body_bytes: int = 16 << 20
    max_batch: int = 1024
    max_values: int = 1 << 18
    request_timeout_seconds: float = 30.0


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
    message = _read_message(flag, file, _parameters_message())
    if message.enable_large_batch_splitting.value:
        raise InputError(f"{flag} sets enable_large_batch_splitting, which only tensorflow_model_server itself has")
    given = {name: getattr(message, name).value for name in _NUMBERS if message.HasField(name)}
    # tensorflow_model_server uses it with enable_large_batch_splitting only.
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
    # The package tensorflow-serving-api lacks this message.
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


def single_model(name: str, base_path: str) -> list[config_pb2.ModelConfig]:
    """The models of --model_name and --model_base_path: one, of which the latest version is served."""
    return [config_pb2.ModelConfig(name=name, base_path=base_path, model_platform=_PLATFORM)]


def read_model_config(file: str) -> list[config_pb2.ModelConfig]:
    """The models of --model_config_file, a ModelServerConfig in protobuf's text format.

    Raises:
        InputError: the file cannot be read or is no such message (the sentence names the line), see `check_models`.
    """
    return check_models(_read_message(f"--model_config_file={file}", file, config_pb2.ModelServerConfig()), file)


def _read_message(flag: str, file: str, message: Any) -> Any:
    try:
        return text_format.Parse(Path(file).read_text("utf-8"), message)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{flag} cannot be read: {error}") from None
    except text_format.ParseError as error:
        kind = message.DESCRIPTOR.name
        raise InputError(f"{flag}, line {error.GetLine() or 1} is not a {kind}: {error}") from None


def check_models(config: config_pb2.ModelServerConfig, source: str) -> list[config_pb2.ModelConfig]:
    """The models of a configuration, checked.

    Args:
        config: the configuration.
        source: where it came from, for the message.

    Raises:
        InputError: no models, a model without name, platform or absolute directory of versions, two of one name, an
            unsupported kind of model.
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
        named = f"{source}: base_path {model.base_path!r} of model {model.name}"
        if not _is_url(model.base_path) and not Path(model.base_path).is_absolute():
            raise InputError(f"{named} is relative; write {str(Path(model.base_path).absolute())!r}")
        check_base_path(model.base_path, named)
        _check_platform(model, source)
    if len({model.name for model in models}) < len(models):
        raise InputError(f"{source} names a model twice")
    return models


def check_base_path(path: str, named: str) -> None:
    """Checks that a directory can be one of versions; an empty one can, since versions may come later.

    Args:
        path: the directory.
        named: what messages call it.

    Raises:
        InputError: it is none of this machine, or it is a version, a run or a directory of several models, or its
            versions have no numbers for names.
    """
    if _is_url(path):
        raise InputError(f"{named} is a URL, but only directories of this machine are read; copy the model into one")
    directory = Path(path).absolute()
    if not directory.is_dir():
        raise InputError(f"{named} is not a directory; name the parent of the version directories")
    if (directory / "saved_model.pb").is_file():
        mend = f"name its parent, {directory.parent}" if directory.name.isdecimal() else f"move it to {directory / '1'}"
        raise InputError(f"{named} is a SavedModel, not the parent of version directories; {mend}")
    if (directory / run_directory.WEIGHTS).is_file():
        raise InputError(
            f"{named} is a run directory; export it with python -m rd_tf.export --run_dir={path} and name the "
            "<export_dir>/<export_name> of that"
        )
    if any(directory.glob("[0-9]*")):
        return
    # An export that is being written has a name with a dot in front.
    if found := sorted(directory.glob("[!.]*/saved_model.pb")):
        version = found[0].parent.name
        raise InputError(f"{named} has a version {version!r}, whose name is no number; rename it, to 1 for example")
    if found := sorted(directory.glob("[!.]*/[0-9]*/saved_model.pb")):
        raise InputError(f"{named} is a directory of models; name one of them, such as {found[0].parent.parent}")


def _is_url(path: str) -> bool:
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path) is not None


def _check_platform(model: config_pb2.ModelConfig, source: str) -> None:
    # model_type is deprecated; tensorflow_model_server still takes it where there is no model_platform.
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


def binary_arguments(program: str, options: ServeOptions) -> list[str]:
    """The command line that makes tensorflow_model_server do what our options say.

    `host`, `max_body_bytes`, `max_batch` and `max_values` have no counterpart. The program cannot do without gRPC:
    where `port` is 0 it gets a UNIX socket in the directory for temporary files, which only this user may write to.
    """
    arguments = [program]
    if options.model_config_file:
        # Without it the program refuses labels until their versions have been loaded once.
        labels = "--allow_version_labels_for_unavailable_models=true"
        arguments += [f"--model_config_file={Path(options.model_config_file).absolute()}", labels]
    else:
        base_path = Path(options.model_base_path).absolute()
        arguments += [f"--model_name={options.model_name}", f"--model_base_path={base_path}"]
    if not options.port:
        # The program replaces this process and keeps its number, so the name is its own.
        arguments.append(f"--grpc_socket_path={Path(tempfile.gettempdir(), f'rd_tf.serve-{os.getpid()}.sock')}")
    if options.enable_batching:
        arguments.append("--enable_batching=true")
        # The program refuses to start with parameters but no batching.
        if options.batching_parameters_file:
            arguments.append(f"--batching_parameters_file={Path(options.batching_parameters_file).absolute()}")
    if options.rest_api_enable_cors_support:
        arguments.append("--rest_api_enable_cors_support=true")
    return [
        *arguments,
        f"--port={options.port}",
        f"--grpc_max_threads={options.grpc_max_threads}",
        f"--rest_api_port={options.rest_api_port}",
        f"--rest_api_num_threads={options.threads}",
        f"--rest_api_timeout_in_ms={round(1000 * options.request_timeout_seconds)}",
        f"--file_system_poll_wait_seconds={round(options.file_system_poll_wait_seconds)}",
        f"--max_num_load_retries={MAX_NUM_LOAD_RETRIES}",
        f"--load_retry_interval_micros={LOAD_RETRY_INTERVAL_MICROS}",
    ]

"""How requests are batched before the graph; read before TensorFlow is imported, so that a bad file is told at once."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

from rd_tf.storage import InputError

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

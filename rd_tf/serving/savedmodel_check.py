"""Runs a SavedModel as tensorflow_model_server does: through the C++ loader, without the tensorflow Python package.

`tf.saved_model.load` accepts exports that a server then fails on (variables which the C++ loader cannot find, Python
functions). This file is its own child process: the parent reads the signature and hands tensor names over as JSON, the
child drives TensorFlow's C API through ctypes. The child may import nothing of tensorflow's and nothing of ours.
"""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

_STRING = 7
_NUMBERS = {1: "float32", 2: "float64", 3: "int32", 4: "uint8", 6: "int8", 9: "int64", 10: "bool", 19: "float16"}
_TSTRING_BYTES = 24
_POINTER, _TEXT, _INT = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int


class SavedModelError(RuntimeError):
    """The C++ loader refused a SavedModel or a request; the message is its own."""


def run_saved_model(
    directory: str | os.PathLike[str],
    requests: Sequence[Mapping[str, np.ndarray]],
    signature: str = "serving_default",
) -> list[dict[str, np.ndarray]]:
    """Answers requests with a SavedModel, on the CPU, in a process of its own.

    Args:
        directory: the SavedModel.
        requests: input name -> array; strings are `str` objects in an array of dtype object.
        signature: which signature answers.

    Returns:
        Output name -> array, for every request.

    Raises:
        SavedModelError: the model cannot be loaded, lacks the signature or fails on a request.
    """
    return run_signatures(directory, [(signature, request) for request in requests])


def run_signatures(
    directory: str | os.PathLike[str], requests: Sequence[tuple[str, Mapping[str, np.ndarray]]]
) -> list[dict[str, np.ndarray]]:
    """Answers requests to several signatures with a SavedModel that is loaded once; else as `run_saved_model`.

    Args:
        directory: the SavedModel.
        requests: which signature answers, and input name -> array; strings are `str` objects in an array of dtype
            object.

    Returns:
        Output name -> array, for every request.

    Raises:
        SavedModelError: the model cannot be loaded, lacks a signature or fails on a request.
    """
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel.FromString((Path(directory) / "saved_model.pb").read_bytes())
    graph = next(graph for graph in proto.meta_graphs if "serve" in graph.meta_info_def.tags)
    signatures = {}
    for signature in dict.fromkeys(signature for signature, _ in requests):
        if signature not in graph.signature_def:
            raise SavedModelError(f"{directory} has no signature {signature!r}")
        described = graph.signature_def[signature]
        signatures[signature] = {
            "inputs": {name: (tensor.name, tensor.dtype) for name, tensor in described.inputs.items()},
            "outputs": {name: tensor.name for name, tensor in described.outputs.items()},
        }
    work = {
        "libraries": str(Path(tf.__file__).parent),
        "directory": os.fspath(directory),
        "signatures": signatures,
        "requests": [
            (signature, {name: _to_json(array) for name, array in request.items()}) for signature, request in requests
        ],
    }
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    # -P keeps this directory out of the child's sys.path.
    child = subprocess.run(
        [sys.executable, "-P", __file__], input=json.dumps(work), capture_output=True, text=True, env=environment
    )
    try:
        answer = json.loads(child.stdout)
    except json.JSONDecodeError:
        raise SavedModelError(f"the C++ loader died ({child.returncode}): {child.stderr[-500:].strip()}") from None
    if "error" in answer:
        raise SavedModelError(answer["error"])
    return [{name: _from_json(value) for name, value in outputs.items()} for outputs in answer["responses"]]


def _to_json(array: np.ndarray) -> dict[str, Any]:
    return {"shape": array.shape, "values": array.ravel().tolist()}


def _from_json(value: dict[str, Any]) -> np.ndarray:
    return np.array(value["values"], value["dtype"]).reshape(value["shape"])


class _Output(ctypes.Structure):
    _fields_ = (("operation", _POINTER), ("index", _INT))


class _Library:
    """The few functions of TensorFlow's C API that are needed, each with its types."""

    def __init__(self, directory: str) -> None:
        ctypes.CDLL(f"{directory}/libtensorflow_framework.so.2", ctypes.RTLD_GLOBAL)
        library = ctypes.CDLL(f"{directory}/libtensorflow_cc.so.2", ctypes.RTLD_GLOBAL)

        def function(name: str, result: Any, *arguments: Any) -> Any:
            found = getattr(library, name)
            found.restype, found.argtypes = result, arguments
            return found

        pointers, outputs = ctypes.POINTER(_POINTER), ctypes.POINTER(_Output)
        self.code = function("TF_GetCode", _INT, _POINTER)
        self.message = function("TF_Message", _TEXT, _POINTER)
        self.operation = function("TF_GraphOperationByName", _POINTER, _POINTER, _TEXT)
        self.allocate = function(
            "TF_AllocateTensor", _POINTER, _INT, ctypes.POINTER(ctypes.c_int64), _INT, ctypes.c_size_t
        )
        self.delete = function("TF_DeleteTensor", None, _POINTER)
        self.data = function("TF_TensorData", _POINTER, _POINTER)
        self.dtype = function("TF_TensorType", _INT, _POINTER)
        self.rank = function("TF_NumDims", _INT, _POINTER)
        self.size = function("TF_Dim", ctypes.c_int64, _POINTER, _INT)
        self.string_init = function("TF_StringInit", None, _POINTER)
        self.string_copy = function("TF_StringCopy", None, _POINTER, _TEXT, ctypes.c_size_t)
        self.string_data = function("TF_StringGetDataPointer", _POINTER, _POINTER)
        self.string_size = function("TF_StringGetSize", ctypes.c_size_t, _POINTER)
        load = (_POINTER, _POINTER, _TEXT, ctypes.POINTER(_TEXT), _INT, _POINTER, _POINTER, _POINTER)
        self.load = function("TF_LoadSessionFromSavedModel", _POINTER, *load)
        run = (_POINTER, _POINTER, outputs, pointers, _INT, outputs, pointers, _INT, _POINTER, _INT, _POINTER, _POINTER)
        self.run = function("TF_SessionRun", None, *run)
        self.status = function("TF_NewStatus", _POINTER)()
        self.options = function("TF_NewSessionOptions", _POINTER)()
        self.graph = function("TF_NewGraph", _POINTER)()

    def check(self) -> None:
        if self.code(self.status):
            raise SavedModelError(self.message(self.status).decode(errors="replace"))

    def output(self, tensor_name: str) -> _Output:
        operation, _, index = tensor_name.partition(":")
        return _Output(self.operation(self.graph, operation.encode()), int(index or 0))

    def write(self, value: dict[str, Any], dtype: int) -> int:
        shape, values = value["shape"], value["values"]
        numbers = None if dtype == _STRING else np.array(values, _NUMBERS[dtype])
        size = _TSTRING_BYTES * len(values) if numbers is None else numbers.nbytes
        tensor = self.allocate(dtype, (ctypes.c_int64 * len(shape))(*shape), len(shape), size)
        if numbers is not None:
            ctypes.memmove(self.data(tensor), numbers.ctypes.data, size)
            return tensor
        for place, text in enumerate(values):
            cell = self.data(tensor) + _TSTRING_BYTES * place
            raw = text.encode("utf-8", "surrogateescape")
            self.string_init(cell)
            self.string_copy(cell, raw, len(raw))
        return tensor

    def read(self, tensor: int) -> dict[str, Any]:
        shape = [self.size(tensor, axis) for axis in range(self.rank(tensor))]
        count, dtype, start = int(np.prod(shape)), self.dtype(tensor), self.data(tensor)
        if dtype == _STRING:
            cells = [start + _TSTRING_BYTES * place for place in range(count)]
            raw = [ctypes.string_at(self.string_data(cell), self.string_size(cell)) for cell in cells]
            return {
                "dtype": "object",
                "shape": shape,
                "values": [text.decode("utf-8", "surrogateescape") for text in raw],
            }
        numbers = np.dtype(_NUMBERS[dtype])
        # The data of an empty tensor may be a null pointer.
        raw_numbers = ctypes.string_at(start, count * numbers.itemsize) if count else b""
        return {"dtype": numbers.name, "shape": shape, "values": np.frombuffer(raw_numbers, numbers).tolist()}


def _answer(work: dict[str, Any]) -> list[dict[str, Any]]:
    library = _Library(work["libraries"])
    tags = (_TEXT * 1)(b"serve")
    directory = work["directory"].encode()
    session = library.load(library.options, None, directory, tags, 1, library.graph, None, library.status)
    library.check()
    responses = []
    for name_of_signature, request in work["requests"]:
        signature = work["signatures"][name_of_signature]
        outputs = [library.output(name) for name in signature["outputs"].values()]
        inputs = [library.output(signature["inputs"][name][0]) for name in request]
        fed = [library.write(value, signature["inputs"][name][1]) for name, value in request.items()]
        fetched = (_POINTER * len(outputs))()
        given = ((_Output * len(inputs))(*inputs), (_POINTER * len(fed))(*fed), len(fed))
        wanted = ((_Output * len(outputs))(*outputs), fetched, len(outputs))
        library.run(session, None, *given, *wanted, None, 0, None, library.status)
        library.check()
        names = signature["outputs"]
        responses.append({name: library.read(tensor) for name, tensor in zip(names, fetched, strict=True)})
        for tensor in (*fed, *fetched):
            library.delete(tensor)
    return responses


if __name__ == "__main__":
    try:
        print(json.dumps({"responses": _answer(json.load(sys.stdin))}))
    except SavedModelError as error:
        print(json.dumps({"error": str(error)}))
        sys.exit(1)

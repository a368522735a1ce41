"""What a model's signatures look like, for both interfaces."""

from typing import Any

from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2
from tensorflow_serving.apis.model_pb2 import ModelSpec

from rd_tf.serving.server.loaded_version import LoadedVersion

FIELD = "signature_def"


def signature_map(version: LoadedVersion) -> get_model_metadata_pb2.SignatureDefMap:
    """All signatures of a version."""
    return get_model_metadata_pb2.SignatureDefMap(signature_def=version.signatures)


def metadata_response(name: str, version: LoadedVersion) -> get_model_metadata_pb2.GetModelMetadataResponse:
    """The answer over gRPC: the signatures as `Any`, under the key `signature_def`."""
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.CopyFrom(model_spec(name, version))
    response.metadata[FIELD].Pack(signature_map(version))
    return response


def metadata_document(name: str, version: LoadedVersion) -> dict[str, Any]:
    """The answer over REST: every field is written, set or not."""
    return {
        "model_spec": {"name": name, "version": str(version.number), "signature_name": ""},
        "metadata": {FIELD: full_document(signature_map(version))},
    }


def model_spec(name: str, version: LoadedVersion, signature_name: str = "") -> ModelSpec:
    """Who answered."""
    return ModelSpec(name=name, version={"value": version.number}, signature_name=signature_name)


def full_document(message: Any) -> dict[str, Any]:
    """A message as JSON with its unset fields and the names of the .proto file."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )

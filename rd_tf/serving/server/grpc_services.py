"""The gRPC interface: tensorflow.serving.PredictionService and ModelService."""

import functools
import logging
from collections.abc import Callable
from typing import Any

import grpc
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)

from rd_tf.serving.server import inference, metadata
from rd_tf.serving.server.loaded_version import DEFAULT_SIGNATURE
from rd_tf.serving.server.metrics import Metrics
from rd_tf.serving.server.model_config import check_models
from rd_tf.serving.server.model_store import ModelStore
from rd_tf.serving.server.serving_error import ServingError, invalid
from rd_tf.serving.server.tensor_protos import write_tensor
from rd_tf.storage import InputError

_log = logging.getLogger("rd_tf.serve")
# It travels in the trailing metadata, which clients limit to 8 KiB.
_LONGEST_MESSAGE = 2000


def _answers(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def answer(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            with self._metrics.observe(self._known(request), method.__name__):
                return method(self, request)
        except ServingError as error:
            code, message = error.code, error.message[:_LONGEST_MESSAGE]
        except Exception:
            _log.exception("a request failed")
            code, message = grpc.StatusCode.INTERNAL, "internal error; the server's log tells more"
        return context.abort(code, message)

    return answer


class _Service:
    def __init__(self, store: ModelStore, metrics: Metrics) -> None:
        self._store, self._metrics = store, metrics

    def _known(self, request: Any) -> str:
        spec = getattr(request, "model_spec", None)
        return spec.name if spec is not None and spec.name in self._store.names() else ""


class PredictionService(_Service, prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify, Regress, MultiInference and GetModelMetadata."""

    @_answers
    def Predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Runs a signature; outputs carry typed fields, not `tensor_content`."""
        spec = request.model_spec
        with self._store.use(spec) as version:
            outputs = inference.predict(version, request, self._store.limits)
            name = spec.signature_name or DEFAULT_SIGNATURE
            dtypes = {output: info.dtype for output, info in version.signature(name).outputs.items()}
            response = predict_pb2.PredictResponse(model_spec=metadata.model_spec(spec.name, version, name))
        for output, array in outputs.items():
            response.outputs[output].CopyFrom(write_tensor(array, dtypes[output]))
        return response

    @_answers
    def Classify(self, request: classification_pb2.ClassificationRequest) -> classification_pb2.ClassificationResponse:
        """Labels and scores for serialized examples."""
        return self._on_examples(request, inference.classify, classification_pb2.ClassificationResponse)

    @_answers
    def Regress(self, request: regression_pb2.RegressionRequest) -> regression_pb2.RegressionResponse:
        """A value for every serialized example."""
        return self._on_examples(request, inference.regress, regression_pb2.RegressionResponse)

    @_answers
    def MultiInference(self, request: inference_pb2.MultiInferenceRequest) -> inference_pb2.MultiInferenceResponse:
        """Several signatures of one version over the same examples."""
        specs = [task.model_spec for task in request.tasks]
        if not specs:
            raise invalid("no tasks")
        if len({spec.name for spec in specs}) > 1:
            raise invalid("all tasks must ask the same model")
        if len({spec.signature_name for spec in specs}) < len(specs):
            raise invalid("a signature is asked for twice")
        response = inference_pb2.MultiInferenceResponse()
        with self._store.use(specs[0]) as version:
            for task in request.tasks:
                result = response.results.add()
                result.CopyFrom(inference.multi_inference_task(version, task, request.input))
                name = task.model_spec.signature_name or DEFAULT_SIGNATURE
                result.model_spec.CopyFrom(metadata.model_spec(specs[0].name, version, name))
        return response

    @_answers
    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signatures of a version."""
        if not request.metadata_field or set(request.metadata_field) != {metadata.FIELD}:
            raise invalid(f"metadata_field must be {metadata.FIELD!r}")
        with self._store.use(request.model_spec) as version:
            return metadata.metadata_response(request.model_spec.name, version)

    def _on_examples(self, request: Any, infer: Callable[..., Any], response: Callable[..., Any]) -> Any:
        spec = request.model_spec
        with self._store.use(spec) as version:
            result = infer(version, spec.signature_name, request.input)
            answered = metadata.model_spec(spec.name, version, spec.signature_name or DEFAULT_SIGNATURE)
        return response(result=result, model_spec=answered)


class ModelService(_Service, model_service_pb2_grpc.ModelServiceServicer):
    """GetModelStatus and HandleReloadConfigRequest."""

    @_answers
    def GetModelStatus(
        self, request: get_model_status_pb2.GetModelStatusRequest
    ) -> get_model_status_pb2.GetModelStatusResponse:
        """The state of a model's versions."""
        statuses = self._store.statuses(request.model_spec)
        return get_model_status_pb2.GetModelStatusResponse(model_version_status=statuses)

    @_answers
    def HandleReloadConfigRequest(
        self, request: model_management_pb2.ReloadConfigRequest
    ) -> model_management_pb2.ReloadConfigResponse:
        """Serves other models from now on; answers once they are loaded."""
        try:
            models = check_models(request.config, "the request")
        except InputError as error:
            raise invalid(str(error)) from None
        self._store.configure(models)
        response = model_management_pb2.ReloadConfigResponse()
        response.status.SetInParent()
        return response

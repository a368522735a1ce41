"""A model server: its REST and gRPC interfaces, and the models behind them."""

import contextlib
import functools
import logging
import re
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import grpc
from google.protobuf import json_format
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    inference_pb2,
    input_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
    regression_pb2,
)
from tensorflow_serving.apis.get_model_metadata_pb2 import SignatureDefMap
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import TcpWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher

from rd_tf.serving.server.inference import (
    DEFAULT_SIGNATURE,
    LoadedVersion,
    classify,
    predict,
    read_examples,
    regress,
)
from rd_tf.serving.server.models import ModelStore
from rd_tf.serving.server.settings import Limits, SessionBatching, address_of, check_models
from rd_tf.serving.server.wire import (
    ServingError,
    invalid,
    read_document,
    read_inputs,
    shorten,
    signature_name,
    write_document,
    write_outputs,
    write_tensor,
)
from rd_tf.serving.server_files import PROMETHEUS_PATH
from rd_tf.storage import InputError

_METADATA_FIELD = "signature_def"
_log = logging.getLogger("rd_tf.serve")
# tensorflow_model_server takes upper case everywhere but in a method's name; it answers /METADATA with the status.
_VERSION = r"(?:(?i:/versions/)(?P<version>[0-9]+)|(?i:/labels/)(?P<label>[^/:]+))?"
_POST = re.compile(rf"(?i:/v1/models/)(?P<name>[^/:]+){_VERSION}:(?P<method>predict|classify|regress)")
_GET = re.compile(rf"(?i:/v1/models)(?:/(?P<name>[^/:]+))?{_VERSION}(?P<metadata>(?i:/metadata))?")
_LARGEST_VERSION = 2**63 - 1
_JSON, _TEXT, _HTML = "application/json", "text/plain; charset=utf-8", "text/html"
_NOT_FOUND_PAGE = b"<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n"
Answer = tuple[HTTPStatus, str, bytes]
_NO_SUCH_PAGE: Answer = (HTTPStatus.NOT_FOUND, _HTML, _NOT_FOUND_PAGE)
# What tensorflow_model_server says with --rest_api_enable_cors_support.
_CORS = [
    ("Access-Control-Allow-Origin", "*"),
    ("Access-Control-Allow-Methods", "POST, GET"),
    ("Access-Control-Allow-Headers", "Content-Type"),
]
_CLASSIFY, _REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"
# An error message travels in the trailing metadata, which clients limit to 8 KiB.
_LONGEST_MESSAGE = 2000


class Metrics:
    """Metrics of one server, under tensorflow_model_server's names (prometheus_client appends `_total` to a count)."""

    def __init__(self) -> None:
        """Starts at zero."""
        self._registry = CollectorRegistry()
        self._requests = Counter(
            ":tensorflow:serving:request_count", "Requests.", ["model_name", "status"], registry=self._registry
        )
        self._latency = Histogram(
            ":tensorflow:serving:request_latency", "Seconds a request.", ["model_name", "API"], registry=self._registry
        )

    @contextmanager
    def observe(self, model_name: str, api: str) -> Iterator[None]:
        """Counts a request by how the block ends.

        Args:
            model_name: must be one of the server's models: every name is kept for good.
            api: such as `predict`.
        """
        started, code = time.perf_counter(), grpc.StatusCode.OK
        try:
            yield
        except ServingError as error:
            code = error.code
            raise
        except BaseException:
            code = grpc.StatusCode.INTERNAL
            raise
        finally:
            self._requests.labels(model_name, code.name).inc()
            self._latency.labels(model_name, api).observe(time.perf_counter() - started)

    def text(self) -> bytes:
        """What a scrape gets."""
        return generate_latest(self._registry)


def model_spec(name: str, version: LoadedVersion, signature_name: str = "") -> ModelSpec:
    """Who answered."""
    return ModelSpec(name=name, version={"value": version.number}, signature_name=signature_name)


def full_document(message: Any) -> dict[str, Any]:
    """A message as JSON with its unset fields and the names of the .proto file."""
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


class RestApplication:
    """Answers /v1/models/... and the metrics' page."""

    def __init__(self, store: ModelStore, counted: Metrics, cors: bool = False) -> None:
        """Serves a store's models.

        Args:
            store: the models.
            counted: gets every request for a model.
            cors: whether pages of other web sites may read the answers.
        """
        self._store, self._metrics, self._cors = store, counted, cors

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """WSGI's entry point: never raises."""
        # WSGI hands a path's bytes over as Latin-1.
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
        is_api = path.lower().startswith("/v1/")
        try:
            if environ.get("REQUEST_URI", "").startswith("//"):
                # In such a URI the first part is a host; waitress has removed all slashes but one from PATH_INFO.
                status, kind, body = _NO_SUCH_PAGE
            elif path == PROMETHEUS_PATH and method == "GET":
                status, kind, body = HTTPStatus.OK, _TEXT, self._metrics.text()
            elif is_api and method == "OPTIONS":
                status, kind, body = _preflight(environ.get("HTTP_ORIGIN", ""))
            else:
                # tensorflow_model_server knows no queries: it takes one for a part of the path's last name.
                target = f"{path}?{query}" if query else path
                status, kind, body = self._answer(method, target, environ["wsgi.input"].read)
        except ServingError as error:
            status, kind, body = error.http_status, _JSON, write_document({"error": error.message})
        except Exception:
            _log.exception("a request failed")
            status, kind = HTTPStatus.INTERNAL_SERVER_ERROR, _JSON
            body = write_document({"error": "internal error; the server's log tells more"})
        headers = [("Content-Type", kind), ("Content-Length", str(len(body)))]
        start_response(f"{status.value} {status.phrase}", headers + (_CORS if self._cors and is_api else []))
        return [] if method == "HEAD" else [body]

    def _answer(self, method: str, path: str, read: Callable[[], bytes]) -> Answer:
        if not path.lower().startswith("/v1/"):
            return _NO_SUCH_PAGE
        if method == "POST" and (match := _POST.fullmatch(path)):
            spec, api = _spec(match), match["method"]
            with self._metrics.observe(self._store.known_name(spec), api):
                answer = self._infer(api, spec, read())
        elif method == "GET" and (match := _GET.fullmatch(path)):
            spec, api = _spec(match), "metadata" if match["metadata"] == "/metadata" else "status"
            with self._metrics.observe(self._store.known_name(spec), api):
                answer = self._describe(spec, api == "metadata")
        else:
            raise invalid(f"malformed request: {method} {path}")
        return HTTPStatus.OK, _JSON, write_document(answer)

    def _infer(self, api: str, spec: ModelSpec, body: bytes) -> dict[str, Any]:
        document = read_document(body)
        signature = signature_name(document)
        if api == "predict":
            with self._store.use(spec) as version:
                known = version.signature(signature).inputs
                inputs, by_rows = read_inputs(document, known, self._store.limits.max_values)
                return write_outputs(version.run(signature, inputs), by_rows)
        examples = read_examples(document)
        with self._store.use(spec) as version:
            if api == "regress":
                return {"results": shorten(regress(version, signature, examples)).tolist()}
            labels, scores = classify(version, signature, examples)
            return {
                "results": [[*zip(*row, strict=True)] for row in zip(labels, shorten(scores).tolist(), strict=True)]
            }

    def _describe(self, spec: ModelSpec, with_metadata: bool) -> dict[str, Any]:
        if not with_metadata:
            return {"model_version_status": [full_document(status) for status in self._store.statuses(spec)]}
        with self._store.use(spec) as version:
            signatures = full_document(SignatureDefMap(signature_def=version.signatures))
            return {
                "model_spec": {"name": spec.name, "version": str(version.number), "signature_name": ""},
                "metadata": {_METADATA_FIELD: signatures},
            }


def _preflight(origin: str) -> Answer:
    # A browser asks so before a page of another site may send JSON; tensorflow_model_server looks at nothing else.
    if "http://" not in origin and "https://" not in origin:
        raise ServingError(grpc.StatusCode.FAILED_PRECONDITION, "Origin header is missing in CORS preflight")
    return HTTPStatus.OK, _JSON, b""


def _spec(match: re.Match[str]) -> ModelSpec:
    spec = ModelSpec(name=match["name"] or "")
    if match["version"]:
        digits = match["version"].lstrip("0") or "0"
        if len(digits) > len(str(_LARGEST_VERSION)) or int(digits) > _LARGEST_VERSION:
            raise invalid(f"version {digits[:40]} is beyond int64")
        spec.version.value = int(digits)
    elif match["label"]:
        spec.version_label = match["label"]
    return spec


def _answers(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def answer(self: Any, request: Any, context: grpc.ServicerContext) -> Any:
        try:
            # Some requests have no model_spec.
            name = self._store.known_name(getattr(request, "model_spec", ModelSpec()))
            with self._metrics.observe(name, method.__name__):
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


class PredictionService(_Service, prediction_service_pb2_grpc.PredictionServiceServicer):
    """Predict, Classify, Regress, MultiInference and GetModelMetadata."""

    @_answers
    def Predict(self, request: predict_pb2.PredictRequest) -> predict_pb2.PredictResponse:
        """Runs a signature; outputs carry typed fields, not `tensor_content`."""
        spec = request.model_spec
        with self._store.use(spec) as version:
            outputs = predict(version, request, self._store.limits)
            name = spec.signature_name or DEFAULT_SIGNATURE
            dtypes = {output: info.dtype for output, info in version.signature(name).outputs.items()}
            response = predict_pb2.PredictResponse(model_spec=model_spec(spec.name, version, name))
        for output, array in outputs.items():
            response.outputs[output].CopyFrom(write_tensor(array, dtypes[output]))
        return response

    @_answers
    def Classify(self, request: classification_pb2.ClassificationRequest) -> classification_pb2.ClassificationResponse:
        """Labels and scores for serialized examples."""
        with self._store.use(request.model_spec) as version:
            result = _infer(version, _CLASSIFY, request.model_spec, request.input)
        return classification_pb2.ClassificationResponse(
            result=result.classification_result, model_spec=result.model_spec
        )

    @_answers
    def Regress(self, request: regression_pb2.RegressionRequest) -> regression_pb2.RegressionResponse:
        """A value for every serialized example."""
        with self._store.use(request.model_spec) as version:
            result = _infer(version, _REGRESS, request.model_spec, request.input)
        return regression_pb2.RegressionResponse(result=result.regression_result, model_spec=result.model_spec)

    @_answers
    def MultiInference(self, request: inference_pb2.MultiInferenceRequest) -> inference_pb2.MultiInferenceResponse:
        """Several signatures of one version over the same examples."""
        specs = [task.model_spec for task in request.tasks]
        if len({spec.name for spec in specs}) != 1 or len({spec.signature_name for spec in specs}) < len(specs):
            raise invalid("the tasks must ask one model, each of them another signature")
        with self._store.use(specs[0]) as version:
            results = [_infer(version, task.method_name, task.model_spec, request.input) for task in request.tasks]
        return inference_pb2.MultiInferenceResponse(results=results)

    @_answers
    def GetModelMetadata(
        self, request: get_model_metadata_pb2.GetModelMetadataRequest
    ) -> get_model_metadata_pb2.GetModelMetadataResponse:
        """The signatures of a version."""
        if not request.metadata_field or set(request.metadata_field) != {_METADATA_FIELD}:
            raise invalid(f"metadata_field must be {_METADATA_FIELD!r}")
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        with self._store.use(request.model_spec) as version:
            response.model_spec.CopyFrom(model_spec(request.model_spec.name, version))
            response.metadata[_METADATA_FIELD].Pack(SignatureDefMap(signature_def=version.signatures))
        return response


def _infer(
    version: LoadedVersion, method: str, spec: ModelSpec, given: input_pb2.Input
) -> inference_pb2.InferenceResult:
    examples = [example.SerializeToString() for example in given.example_list.examples]
    result = inference_pb2.InferenceResult(
        model_spec=model_spec(spec.name, version, spec.signature_name or DEFAULT_SIGNATURE)
    )
    if method == _CLASSIFY:
        for row in zip(*classify(version, spec.signature_name, examples), strict=True):
            classes = [{"label": label, "score": score} for label, score in zip(*row, strict=True)]
            result.classification_result.classifications.add(classes=classes)
    elif method == _REGRESS:
        for value in regress(version, spec.signature_name, examples):
            result.regression_result.regressions.add(value=value)
    else:
        raise ServingError(grpc.StatusCode.UNIMPLEMENTED, f"method {method!r} is not {_CLASSIFY} or {_REGRESS}")
    return result


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


# Seconds that a connection may stay silent between two requests, that a request may take to come in as a whole, and its
# answer to go out.
_SILENCE_SECONDS = 60
_REQUEST_SECONDS = 60
_ANSWER_SECONDS = 60
_SECONDS_BETWEEN_LOOKS = 5
_CONNECTIONS = 1000
# Whoever has sent something this lately, or has connected, is about to go on.
_FRESH_SECONDS = 1
# Connections that are being closed, beyond those.
_CLOSING = 64
# A call that never sends its message holds a thread of gRPC's; it ends with its connection. Clients connect again by
# themselves, and calls under way have a model's time and this to end.
_CONNECTION_SECONDS = 60
# Requests waiting for a thread; more are refused with RESOURCE_EXHAUSTED.
_WAITING_A_THREAD = 128


class _Parser(HTTPRequestParser):
    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        # With both, a proxy before this server may see another end of the request, and a second one behind it.
        if "CONTENT_LENGTH" in self.headers and (self.chunked or "TRANSFER_ENCODING" in self.headers):
            raise ParsingError("both Content-Length and Transfer-Encoding are given")


class _ErrorTask(ErrorTask):
    def write(self, data: bytes) -> None:
        is_head = getattr(self.request, "first_line", b"").startswith(b"HEAD ")
        super().write(b"" if is_head else data)


class _Channel(HTTPChannel):
    """A connection that knows how long its client has taken for a request, and for an answer."""

    parser_class, error_task_class = _Parser, _ErrorTask
    asked_since = answered_since = 0.0
    _partial: HTTPRequestParser | None = None

    def received(self, data: bytes) -> bool:
        done = super().received(data)
        if self.request is not self._partial:
            self._partial, self.asked_since = self.request, time.time()
        return bool(done)

    def write_soon(self, data: Any) -> int:
        if not self.total_outbufs_len:
            self.answered_since = time.time()
        return int(super().write_soon(data))

    def service(self) -> None:
        super().service()
        # The next request was not read meanwhile.
        self.asked_since = time.time()

    def is_waiting(self) -> bool:
        """Whether nothing is to be done before the client goes on."""
        return not self.requests and not self.total_outbufs_len

    def claim(self, now: float) -> tuple[bool, bool, float]:
        """Least for the one that is closed first: silent for a while, between two requests, and that for longest."""
        return now - self.last_activity < _FRESH_SECONDS, self.request is not None, self.last_activity

    def is_too_slow(self, now: float) -> bool:
        """Whether the client has had its time for the request or for the answer."""
        if self.total_outbufs_len:
            return now - self.answered_since > _ANSWER_SECONDS
        return not self.requests and self.request is not None and now - self.asked_since > _REQUEST_SECONDS


class _Server(TcpWSGIServer):
    channel_class = _Channel

    def handle_accept(self) -> None:
        super().handle_accept()
        if len(self.active_channels) <= self.adj.connection_limit - _CLOSING:
            return
        now = time.time()
        # The newest has not been heard yet.
        *older, _ = self.active_channels.values()
        waiting = [channel for channel in older if channel.is_waiting() and not channel.will_close]
        if waiting:
            min(waiting, key=lambda channel: channel.claim(now)).will_close = True

    def maintenance(self, now: float) -> None:
        super().maintenance(now)
        for channel in self.active_channels.values():
            if channel.is_too_slow(now):
                channel.will_close = True


class HttpServer:
    """waitress in a thread of its own.

    A new connection is answered however many idle or half-open ones there are: beyond 1,000 the one that has waited
    longest for its client is closed.
    """

    def __init__(
        self, application: RestApplication, listening: socket.socket, threads: int, max_body_bytes: int
    ) -> None:
        """Starts to answer.

        Args:
            application: who answers.
            listening: a bound socket; the server closes it.
            threads: requests that are worked on at a time.
            max_body_bytes: a longer body is refused with 413 before it is read.
        """
        # waitress warns of every request that waits for a thread.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        adjustments = Adjustments(
            sockets=[listening],
            threads=threads,
            # waitress also refuses a body of exactly this length.
            max_request_body_size=max_body_bytes + 1,
            channel_timeout=_SILENCE_SECONDS,
            cleanup_interval=_SECONDS_BETWEEN_LOOKS,
            connection_limit=_most_connections() + _CLOSING,
            # select(), the default, takes no file descriptor above 1023.
            asyncore_use_poll=True,
            ident=None,
            clear_untrusted_proxy_headers=True,
        )
        dispatcher = ThreadedTaskDispatcher()
        dispatcher.set_thread_count(threads)
        described = listening.family, listening.type, listening.proto, listening.getsockname()
        self._server = _Server(
            application,
            {},
            _sock=listening,
            dispatcher=dispatcher,
            adj=adjustments,
            bind_socket=False,
            sockinfo=described,
        )
        self._thread = threading.Thread(target=self._server.run, name="http", daemon=True)
        self._thread.start()

    def close(self, patience_seconds: float) -> None:
        """Takes no more connections, lets requests end for a while, and closes everything."""
        self._server.trigger.pull_trigger(self._stop_accepting)
        deadline = time.monotonic() + patience_seconds
        while self._server.active_channels and time.monotonic() < deadline:
            # Only the server's own thread may touch its channels.
            self._server.trigger.pull_trigger(self._close_idle_channels)
            time.sleep(0.02)
        # The server's thread may find the call, and close the trigger, before this thread has pulled it.
        with contextlib.suppress(OSError):
            self._server.trigger.pull_trigger(self._close_everything)
        self._thread.join(patience_seconds)
        self._server.task_dispatcher.shutdown(timeout=1)

    def _stop_accepting(self) -> None:
        self._server.accepting = False
        self._server.del_channel()
        self._server.socket.close()

    def _close_idle_channels(self) -> None:
        for channel in [*self._server.active_channels.values()]:
            if not channel.requests and not channel.request and not channel.total_outbufs_len:
                channel.handle_close()

    def _close_everything(self) -> None:
        for dispatcher in [*self._server._map.values()]:
            dispatcher.close()


def _most_connections() -> int:
    # Each is an open file; models need some, too.
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return _CONNECTIONS if files == resource.RLIM_INFINITY else max(1, min(_CONNECTIONS, files // 2))


def start_grpc_server(
    prediction: PredictionService, model: ModelService, host: str, port: int, threads: int, limits: Limits
) -> grpc.Server:
    """Starts to answer.

    Args:
        prediction: answers PredictionService.
        model: answers ModelService.
        host: address to listen on.
        port: port to listen on.
        threads: requests that are worked on at a time.
        limits: a message longer than `max_body_bytes` is refused with RESOURCE_EXHAUSTED.

    Raises:
        InputError: the port is taken.
    """
    # gRPC logs a traceback for every message that is no proto, which is the client's mistake.
    logging.getLogger("grpc._common").setLevel(logging.CRITICAL)
    options = [
        ("grpc.max_receive_message_length", limits.max_body_bytes),
        ("grpc.max_connection_age_ms", round(1000 * _CONNECTION_SECONDS)),
        ("grpc.max_connection_age_grace_ms", round(1000 * (_CONNECTION_SECONDS + limits.request_timeout_seconds))),
        ("grpc.max_send_message_length", -1),
        # With SO_REUSEPORT a second server could take the same port, and each would get some of the requests.
        ("grpc.so_reuseport", 0),
    ]
    pool = ThreadPoolExecutor(threads, thread_name_prefix="grpc")
    server = grpc.server(pool, options=options, maximum_concurrent_rpcs=threads * _WAITING_A_THREAD)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(model, server)
    address = address_of(host, port)
    try:
        server.add_insecure_port(address)
    except RuntimeError:
        raise InputError(f"cannot listen on {address}: address already in use") from None
    server.start()
    return server


class ModelServer:
    """Answers from its making until `close`.

    Attributes:
        store: the models.
    """

    def __init__(
        self,
        models: Sequence[ModelConfig],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        rest_socket: socket.socket | None = None,
        poll_seconds: float = 1.0,
        threads: int = 8,
        limits: Limits | None = None,
        batching: SessionBatching | None = None,
        cors: bool = False,
    ) -> None:
        """Loads the models, then listens.

        Args:
            models: what to serve.
            host: address of gRPC.
            port: port of gRPC; 0: no gRPC.
            rest_socket: a bound socket for REST; none: no REST.
            poll_seconds: between two looks for new versions; 0: none after the first.
            threads: requests that each interface works on at a time.
            limits: of every request.
            batching: how requests are batched before the graphs; None: not at all.
            cors: whether pages of other web sites may read the answers of REST.

        Raises:
            InputError: the port of gRPC is taken.
        """
        limits = limits or Limits()
        self._patience_seconds = limits.request_timeout_seconds
        self.store = ModelStore(models, limits, poll_seconds, batching)
        metrics = Metrics()
        self._grpc = None
        if port:
            services = PredictionService(self.store, metrics), ModelService(self.store, metrics)
            self._grpc = start_grpc_server(*services, host, port, threads, limits)
        self._http = None
        if rest_socket:
            application = RestApplication(self.store, metrics, cors)
            self._http = HttpServer(application, rest_socket, threads, limits.max_body_bytes)

    def close(self) -> None:
        """Takes no more requests, lets those under way end, unloads the models."""
        stopped = self._grpc.stop(self._patience_seconds) if self._grpc else None
        if self._http:
            self._http.close(self._patience_seconds)
        if stopped:
            stopped.wait()
        self.store.close(self._patience_seconds)

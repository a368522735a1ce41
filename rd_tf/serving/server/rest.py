"""The REST interface, as a WSGI application."""

import logging
import re
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from tensorflow_serving.apis.model_pb2 import ModelSpec

from rd_tf.serving.server import json_examples, json_tensors, metadata, metrics
from rd_tf.serving.server.inference import classify, regress
from rd_tf.serving.server.json_document import read_document, signature_name, write_document
from rd_tf.serving.server.loaded_version import LoadedVersion
from rd_tf.serving.server.metrics import Metrics
from rd_tf.serving.server.model_store import ModelStore
from rd_tf.serving.server.serving_error import ServingError, invalid

_log = logging.getLogger("rd_tf.serve")
# tensorflow_model_server takes upper case everywhere but in a method's name; upper-case /METADATA it answers with the
# status.
_VERSION = r"(?:(?i:/versions/)(?P<version>[0-9]+)|(?i:/labels/)(?P<label>[^/:]+))?"
_POST = re.compile(rf"(?i:/v1/models/)(?P<name>[^/:]+){_VERSION}:(?P<method>predict|classify|regress)")
_GET = re.compile(rf"(?i:/v1/models)(?:/(?P<name>[^/:]+))?{_VERSION}(?P<metadata>(?i:/metadata))?")
_LARGEST_VERSION = 2**63 - 1
_JSON, _TEXT, _HTML = "application/json", "text/plain; charset=utf-8", "text/html"
_NOT_FOUND_PAGE = b"<html><head><title>404 Not Found</title></head><body><h1>Not Found</h1></body></html>\n"

Answer = tuple[HTTPStatus, str, bytes]
_NO_SUCH_PAGE: Answer = (HTTPStatus.NOT_FOUND, _HTML, _NOT_FOUND_PAGE)


class RestApplication:
    """Answers /v1/models/... and the metrics' page."""

    def __init__(self, store: ModelStore, counted: Metrics) -> None:
        """Serves a store's models.

        Args:
            store: the models.
            counted: gets every request for a model.
        """
        self._store, self._metrics = store, counted

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """WSGI's entry point: never raises."""
        # WSGI hands a path's bytes over as Latin-1.
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        method, query = environ["REQUEST_METHOD"], environ.get("QUERY_STRING", "")
        try:
            if environ.get("REQUEST_URI", "").startswith("//"):
                # What follows is a host; waitress has taken all slashes but one away.
                status, kind, body = _NO_SUCH_PAGE
            elif path == metrics.PATH and method == "GET":
                status, kind, body = HTTPStatus.OK, _TEXT, self._metrics.text()
            else:
                # A query is nothing that tensorflow_model_server knows: it takes it for a part of the last name.
                target = f"{path}?{query}" if query else path
                status, kind, body = self._answer(method, target, environ["wsgi.input"].read)
        except ServingError as error:
            status, kind, body = error.http_status, _JSON, write_document({"error": error.message})
        except Exception:
            _log.exception("a request failed")
            status, kind = HTTPStatus.INTERNAL_SERVER_ERROR, _JSON
            body = write_document({"error": "internal error; the server's log tells more"})
        start_response(f"{status.value} {status.phrase}", [("Content-Type", kind), ("Content-Length", str(len(body)))])
        return [body]

    def _answer(self, method: str, path: str, read: Callable[[], bytes]) -> Answer:
        if not path.lower().startswith("/v1/"):
            return _NO_SUCH_PAGE
        if method == "POST" and (match := _POST.fullmatch(path)):
            spec, api = _spec(match), match["method"]
            with self._metrics.observe(self._known(spec), api):
                answer = self._infer(api, spec, read())
        elif method == "GET" and (match := _GET.fullmatch(path)):
            spec, api = _spec(match), "metadata" if match["metadata"] == "/metadata" else "status"
            with self._metrics.observe(self._known(spec), api):
                answer = self._describe(spec, api == "metadata")
        else:
            raise invalid(f"malformed request: {method} {path}")
        return HTTPStatus.OK, _JSON, write_document(answer)

    def _infer(self, api: str, spec: ModelSpec, body: bytes) -> dict[str, Any]:
        document = read_document(body)
        signature = signature_name(document)
        if api == "predict":
            with self._store.use(spec) as version:
                return _predict(version, signature, document)
        examples = json_examples.read_input(document)
        with self._store.use(spec) as version:
            if api == "classify":
                return json_examples.write_classifications(classify(version, signature, examples))
            return json_examples.write_regressions(regress(version, signature, examples))

    def _describe(self, spec: ModelSpec, with_metadata: bool) -> dict[str, Any]:
        if not with_metadata:
            return {"model_version_status": [metadata.full_document(status) for status in self._store.statuses(spec)]}
        with self._store.use(spec) as version:
            return metadata.metadata_document(spec.name, version)

    def _known(self, spec: ModelSpec) -> str:
        return spec.name if spec.name in self._store.names() else ""


def _predict(version: LoadedVersion, signature: str, document: dict[str, Any]) -> dict[str, Any]:
    inputs, by_rows = json_tensors.read_inputs(document, version.signature(signature).inputs)
    return json_tensors.write_outputs(version.run(signature, inputs), by_rows)


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

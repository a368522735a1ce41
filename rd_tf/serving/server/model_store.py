"""All models of a server, and the thread that watches their directories."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from rd_tf.serving.server.batching_parameters import SessionBatching
from rd_tf.serving.server.limits import Limits
from rd_tf.serving.server.loaded_version import LoadedVersion
from rd_tf.serving.server.served_model import ServedModel
from rd_tf.serving.server.serving_error import ServingError, invalid, not_found
from rd_tf.serving.server.warmup_replay import replay_warmup

_log = logging.getLogger("rd_tf.serve")


class ModelStore:
    """Model name -> ServedModel."""

    def __init__(
        self,
        models: Sequence[ModelConfig],
        limits: Limits,
        poll_seconds: float,
        batching: SessionBatching | None = None,
    ) -> None:
        """Loads every model once, then goes on watching from a thread.

        Args:
            models: what to serve.
            limits: of every request.
            poll_seconds: between two looks at the base paths; 0 looks only once.
            batching: how requests are batched before the graphs; None: not at all.
        """
        self._batching = batching
        self.limits = limits
        self._poll_seconds = poll_seconds
        self._poll_lock = threading.Lock()
        self._stop = threading.Event()
        self._models: dict[str, ServedModel] = {}
        self._dropped: list[ServedModel] = []
        self.configure(models)
        self._thread = threading.Thread(target=self._watch, name="versions", daemon=True)
        self._thread.start()

    def configure(self, models: Sequence[ModelConfig]) -> None:
        """Serves these models and no others; models that stay keep their versions."""
        with self._poll_lock:
            wanted: dict[str, ServedModel] = {}
            for config in models:
                model = self._models.get(config.name)
                if model is None or model.config.base_path != config.base_path:
                    model = ServedModel(config, self._load)
                model.config = config
                wanted[config.name] = model
            for model in wanted.values():
                model.poll()
            kept = {id(model) for model in wanted.values()}
            self._dropped += [model for model in self._models.values() if id(model) not in kept]
            self._models = wanted

    def names(self) -> list[str]:
        """The models' names."""
        return list(self._models)

    def unavailable(self) -> dict[str, list[str]]:
        """Name -> why nothing could be loaded, for every model without a version in service."""
        return {name: model.errors() for name, model in self._models.items() if not model.is_available}

    @contextmanager
    def use(self, spec: ModelSpec) -> Iterator[LoadedVersion]:
        """The version a request asks for, kept loaded until the block ends.

        Raises:
            ServingError: no such model, version or label.
        """
        version = self._model(spec).acquire(spec)
        try:
            yield version
        finally:
            version.release()

    def statuses(self, spec: ModelSpec) -> list[ModelVersionStatus]:
        """States of a model's versions; a label in the request is ignored, as tensorflow_model_server does.

        Raises:
            ServingError: no such model or version.
        """
        return self._model(spec).statuses(spec.version.value if spec.HasField("version") else None)

    def close(self, patience_seconds: float) -> None:
        """Stops watching and unloads every model once its requests have ended, or leaves it after a while."""
        self._stop.set()
        self._thread.join()
        deadline = time.monotonic() + patience_seconds
        models = [*self._models.values(), *self._dropped]
        while models and time.monotonic() < deadline:
            models = [model for model in models if not model.unload()]
            time.sleep(0.02)

    def _model(self, spec: ModelSpec) -> ServedModel:
        if not spec.name:
            raise invalid("missing ModelSpec name")
        model = self._models.get(spec.name)
        if model is None:
            raise not_found(f"servable not found for request: {spec.name}")
        return model

    def _load(self, directory: Path, number: int) -> LoadedVersion:
        version = LoadedVersion(directory, number, self.limits, self._batching)
        try:
            replay_warmup(version, directory, self.limits)
        except BaseException as error:
            version.close()
            if isinstance(error, ServingError):
                raise ServingError(error.code, f"warm-up failed: {error.message}") from error
            raise
        return version

    def _watch(self) -> None:
        while self._poll_seconds and not self._stop.wait(self._poll_seconds):
            with self._poll_lock:
                for model in self._models.values():
                    self._guard(model.poll)
                self._dropped = [model for model in self._dropped if not self._guard(model.unload)]

    def _guard(self, step: Callable[[], bool | None]) -> bool:
        # The thread is the only one that switches versions: it outlives whatever a directory holds.
        try:
            return bool(step())
        except Exception:
            _log.exception("looking after a model's versions failed")
            return False

"""Which versions of which models are served, and the change from one to another."""

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc
from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.apis.model_pb2 import ModelSpec
from tensorflow_serving.config.model_server_config_pb2 import ModelConfig

from rd_tf.serving.server.inference import LoadedVersion, replay_warmup
from rd_tf.serving.server.settings import Limits, SessionBatching
from rd_tf.serving.server.wire import ServingError, invalid, not_found

LoadVersion = Callable[[Path, int], LoadedVersion]
_log = logging.getLogger("rd_tf.serve")
# Of versions that were unloaded; a server that switches versions for months must not remember them all.
_ENDED_VERSIONS_KEPT = 8
_LARGEST_NUMBER = 2**63 - 1


class ServedModel:
    """The versions of one model. `poll` is called by one thread, everything else by any."""

    def __init__(self, config: ModelConfig, load: LoadVersion) -> None:
        """Serves nothing until the first `poll`.

        Args:
            config: name, base path, version policy and labels.
            load: makes a version that is ready for requests, or raises ServingError.
        """
        self._load = load
        self._lock = threading.Lock()
        self._serving: dict[int, LoadedVersion] = {}
        self._retiring: list[LoadedVersion] = []
        self._status: dict[int, ModelVersionStatus] = {}
        self._failed: dict[int, object] = {}
        self.config = config

    def poll(self) -> None:
        """Looks at the base path; loads what ought to be served, and only then unloads what ought not.

        While a version that ought to be served cannot be loaded, the old ones stay. It is tried again when its files
        have changed.
        """
        self._close_retired()
        try:
            found = _version_directories(Path(self.config.base_path))
        except OSError as error:
            _log.warning("%s: %s", self.config.name, error)
            return
        aspired = _choose(self.config, found)
        for number in [*self._failed.keys() - found.keys()]:
            del self._failed[number], self._status[number]
        for number in sorted(aspired, reverse=True):
            if number not in self._serving:
                self._try_to_load(number, found[number])
        if aspired <= self._serving.keys():
            self._retire(self._serving.keys() - aspired)
        self._close_retired()

    def acquire(self, spec: ModelSpec) -> LoadedVersion:
        """The version a request asks for, in use until its `release`.

        Raises:
            ServingError: no such version or label.
        """
        with self._lock:
            number = self._number(spec)
            if number not in self._serving:
                raise not_found(f"servable not found for request: {self.config.name}, version {number or 'latest'}")
            version = self._serving[number]
            version.acquire()
            return version

    def statuses(self, number: int | None) -> list[ModelVersionStatus]:
        """State of every version, the latest first, or of one.

        Raises:
            ServingError: nothing is known about that version.
        """
        with self._lock:
            chosen = [self._status[key] for key in sorted(self._status, reverse=True) if number in (None, key)]
        if number is not None and not chosen:
            raise not_found(f"could not find version {number} of model {self.config.name}")
        return chosen

    def errors(self) -> list[str]:
        """Why versions could not be loaded; empty once one is served."""
        with self._lock:
            return [] if self._serving else [status.status.error_message for status in self._status.values()]

    @property
    def is_available(self) -> bool:
        """Whether some version answers."""
        return bool(self._serving)

    def unload(self) -> bool:
        """Takes every version out of service; returns whether all of them are closed."""
        self._retire([*self._serving])
        self._close_retired()
        return not self._retiring

    def _number(self, spec: ModelSpec) -> int | None:
        choice = spec.WhichOneof("version_choice")
        if choice == "version":
            return spec.version.value
        if choice == "version_label":
            if spec.version_label not in self.config.version_labels:
                raise invalid(f"unrecognized version label {spec.version_label!r} of model {self.config.name}")
            return self.config.version_labels[spec.version_label]
        return max(self._serving, default=None)

    def _try_to_load(self, number: int, directory: Path) -> None:
        fingerprint = _fingerprint(directory)
        if self._failed.get(number) == fingerprint:
            return
        self._set_status(number, ModelVersionStatus.LOADING)
        try:
            version = self._load(directory, number)
        except Exception as unexpected:
            error = _as_serving_error(unexpected)
            _log.error("%s: version %d cannot be served: %s", self.config.name, number, error.message)
            self._failed[number] = fingerprint
            self._set_status(number, ModelVersionStatus.END, error)
            return
        self._failed.pop(number, None)
        with self._lock:
            self._serving = {**self._serving, number: version}
        self._set_status(number, ModelVersionStatus.AVAILABLE)
        _log.info("%s: version %d is served", self.config.name, number)

    def _retire(self, numbers: Iterable[int]) -> None:
        for number in [*numbers]:
            with self._lock:
                self._retiring.append(self._serving[number])
                self._serving = {key: version for key, version in self._serving.items() if key != number}
            self._set_status(number, ModelVersionStatus.UNLOADING)

    def _close_retired(self) -> None:
        for version in [version for version in self._retiring if version.is_idle]:
            self._retiring.remove(version)
            version.close()
            self._set_status(version.number, ModelVersionStatus.END)
            _log.info("%s: version %d is unloaded", self.config.name, version.number)
        ended = [key for key, status in self._status.items() if status.state == ModelVersionStatus.END]
        with self._lock:
            for key in sorted(set(ended) - self._failed.keys())[:-_ENDED_VERSIONS_KEPT]:
                del self._status[key]

    def _set_status(
        self, number: int, state: "ModelVersionStatus.State.ValueType", error: ServingError | None = None
    ) -> None:
        status = ModelVersionStatus(version=number, state=state)
        code = error.code if error else grpc.StatusCode.OK
        status.status.error_code = code.value[0]
        status.status.error_message = error.message if error else ""
        with self._lock:
            self._status[number] = status


def _as_serving_error(error: Exception) -> ServingError:
    if isinstance(error, ServingError):
        return error
    # Joined into one line, for the log.
    return ServingError(grpc.StatusCode.INTERNAL, f"{type(error).__name__}: {' '.join(str(error).split())}")


def _version_directories(base_path: Path) -> dict[int, Path]:
    paths = [path for path in base_path.iterdir() if re.fullmatch("[0-9]{1,19}", path.name)]
    directories = {int(path.name): path for path in paths if _is_directory(path)}
    return {number: path for number, path in directories.items() if number <= _LARGEST_NUMBER}


def _is_directory(path: Path) -> bool:
    # An entry that cannot be looked at, such as a link to itself, must not stop the others.
    try:
        return path.is_dir()
    except OSError:
        return False


def _choose(config: ModelConfig, found: Iterable[int]) -> set[int]:
    policy, numbers = config.model_version_policy, sorted(found)
    if policy.HasField("all"):
        return set(numbers)
    if policy.HasField("specific"):
        return set(numbers) & set(policy.specific.versions)
    return set(numbers[-max(1, policy.latest.num_versions) :])


def _check_files(directory: Path) -> None:
    """Refuses what a loader would wait for without end: pipes and devices in place of files."""
    for parent, _, names in os.walk(directory):
        for path in (Path(parent, name) for name in names):
            if path.exists() and not path.is_file():
                raise ServingError(grpc.StatusCode.DATA_LOSS, f"{path} is no regular file")


def _fingerprint(directory: Path) -> object:
    files = []
    for parent, _, names in os.walk(directory):
        for name in names:
            try:
                state = Path(parent, name).stat()
            except OSError:
                continue
            files.append((parent, name, state.st_size, state.st_mtime_ns, state.st_ino))
    return sorted(files)


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

    def known_name(self, spec: ModelSpec) -> str:
        """The name of the model that a request asks for; empty where there is no such model."""
        return spec.name if spec.name in self._models else ""

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
        _check_files(directory)
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
        # No other thread switches versions, so no error may end this one.
        try:
            return bool(step())
        except Exception:
            _log.exception("looking after a model's versions failed")
            return False

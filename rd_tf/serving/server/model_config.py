"""Which models to serve, and which of their versions."""

from pathlib import Path

from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2 as config_pb2

from rd_tf.storage import InputError

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

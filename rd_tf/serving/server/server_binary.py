"""tensorflow_model_server itself, in place of the server in Python."""

import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rd_tf.serving.compose import LOAD_RETRY_INTERVAL_MICROS, MAX_NUM_LOAD_RETRIES
from rd_tf.storage import InputError

NAME = "tensorflow_model_server"


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


def binary_arguments(program: str, flags: Mapping[str, Any]) -> list[str]:
    """The command line that does what our flags say.

    --host, --max_body_bytes and --max_batch have no counterpart. The program cannot do without gRPC: for --port=0 it
    gets a UNIX socket in the directory for temporary files, which only this user may write to.

    Args:
        program: path of the program.
        flags: our flags.
    """
    arguments = [program]
    if flags["model_config_file"]:
        # Without it the program refuses labels until their versions have been loaded once.
        labels = "--allow_version_labels_for_unavailable_models=true"
        arguments += [f"--model_config_file={Path(flags['model_config_file']).absolute()}", labels]
    else:
        base_path = Path(flags["model_base_path"]).absolute()
        arguments += [f"--model_name={flags['model_name']}", f"--model_base_path={base_path}"]
    if not flags["port"]:
        # The program takes this process's place, and its number with it.
        arguments.append(f"--grpc_socket_path={Path(tempfile.gettempdir(), f'rd_tf.serve-{os.getpid()}.sock')}")
    if flags["enable_batching"]:
        arguments.append("--enable_batching=true")
        # The program refuses to start with parameters but no batching.
        if flags["batching_parameters_file"]:
            arguments.append(f"--batching_parameters_file={Path(flags['batching_parameters_file']).absolute()}")
    return [
        *arguments,
        f"--port={flags['port']}",
        f"--grpc_max_threads={flags['grpc_max_threads']}",
        f"--rest_api_port={flags['rest_api_port']}",
        f"--rest_api_num_threads={flags['threads']}",
        f"--rest_api_timeout_in_ms={round(1000 * flags['request_timeout_seconds'])}",
        f"--file_system_poll_wait_seconds={round(flags['file_system_poll_wait_seconds'])}",
        f"--max_num_load_retries={MAX_NUM_LOAD_RETRIES}",
        f"--load_retry_interval_micros={LOAD_RETRY_INTERVAL_MICROS}",
    ]

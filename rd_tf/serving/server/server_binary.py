"""tensorflow_model_server itself, in place of the server in Python."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rd_tf.errors import InputError

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

    --host, --max_body_bytes and --max_batch have no counterpart.

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
    return [
        *arguments,
        f"--port={flags['port']}",
        f"--rest_api_port={flags['rest_api_port']}",
        f"--rest_api_num_threads={flags['threads']}",
        f"--rest_api_timeout_in_ms={round(1000 * flags['request_timeout_seconds'])}",
        f"--file_system_poll_wait_seconds={round(flags['file_system_poll_wait_seconds'])}",
    ]

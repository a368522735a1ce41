"""Starts processes that train together on this machine."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

_ROOT = Path(__file__).parents[2]


def start(arguments: list[str], workers: int = 1) -> list[subprocess.Popen[str]]:
    """Starts Python with the same arguments once a worker, each with its TF_CONFIG where there are several."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(workers)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    started = []
    for index in range(workers):
        if workers > 1:
            config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
            environment["TF_CONFIG"] = json.dumps(config)
        started.append(
            subprocess.Popen(
                [sys.executable, *arguments],
                env=environment,
                cwd=_ROOT,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return started


def finish(processes: list[subprocess.Popen[str]], code: int = 0) -> list[tuple[str, str]]:
    """Waits for processes, checks their exit codes and returns what each wrote to stdout and stderr."""
    written = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), written
    return written

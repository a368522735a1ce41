"""Bytes that workers send each other in training: python -m benchmarks.scale_model_network.

Two and three workers on this machine train a Caser on a small built-in world, once for one epoch and once for five.
What the loopback device has carried meanwhile is read from /proc/net/dev (Linux); the difference by four is an epoch's,
without what is sent at the start and in the evaluation at the end. Any other traffic of the machine with itself would
count too, so run it in a network of its own:

    unshare -n sh -c 'ip link set lo up && python -m benchmarks.scale_model_network'

Measured figures: docs/scale.md.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import flags
from benchmarks.harness import Measurement, Report, check_output, measure_machine
from rd_tf.runtime import import_quietly
from rd_tf.storage import InputError

_WORKERS = (2, 3)
_FEW, _MORE = 1, 5
_MB = 1e6


def scale_model_network(*, dim: int, batch_size: int, seed: int, output: str) -> None:
    """Measures the bytes between two and between three workers in an epoch.

    Prints JSON lines and a table.
    """
    check_output(output)
    carried_bytes()
    import_quietly()
    report = Report("scale_model_network", measure_machine(), output)
    with tempfile.TemporaryDirectory() as directory:
        dataset = Path(directory) / "dataset"
        _python("rd_tf.prepare", "--format=synthetic", f"--seed={seed}", f"--dataset={dataset}").communicate()
        described = json.loads((dataset / "manifest.json").read_text())
        words = [f"--dataset={dataset}", f"--dim={dim}", f"--batch_size={batch_size}", "--strategy=multi_worker"]
        for workers in _WORKERS:
            carried = []
            for epochs in (_FEW, _MORE):
                before = carried_bytes()
                windows = _train(workers, [*words, f"--run_dir={directory}/{workers}-{epochs}", f"--epochs={epochs}"])
                carried.append(carried_bytes() - before)
            sizes = {"users": described["users"], "items": described["items"], "windows": windows}
            extra = {**sizes, "dim": dim, "batch_size": batch_size}
            an_epoch = (carried[1] - carried[0]) / (_MORE - _FEW) / _MB
            report.add(Measurement(f"{workers} workers", "MB/epoch", [an_epoch], extra=extra))
    report.finish()


def carried_bytes() -> int:
    """What the loopback device has carried since it was there.

    Raises:
        InputError: there is no /proc/net/dev.
    """
    try:
        lines = Path("/proc/net/dev").read_text().splitlines()
    except OSError:
        raise InputError("/proc/net/dev cannot be read; run this benchmark on Linux") from None
    return next(int(line.split()[1]) for line in lines if line.split()[0] == "lo:")


def _train(workers: int, words: list[str]) -> int:
    """Trains, and returns how many windows an epoch has."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(workers)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    processes = []
    for index in range(workers):
        config = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        processes.append(_python("rd_tf.train", *words, TF_CONFIG=json.dumps(config)))
    said = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise InputError(f"a worker ended with an error; its last words: {said[0][-500:]}")
    found = re.search(r"([\d,]+) windows", said[0])
    assert found is not None
    return int(found[1].replace(",", ""))


def _python(module: str, *words: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *words], env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True
    )


if __name__ == "__main__":
    flags.run(scale_model_network, flags.dim_flag(100))

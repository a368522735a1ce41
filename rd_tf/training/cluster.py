"""The workers that TF_CONFIG names."""

import json
import os
from typing import Any

from rd_tf.errors import InputError


def cluster() -> tuple[int, int]:
    """This process' number among the workers, and how many there are; 0 and 1 without TF_CONFIG.

    A chief counts as the first worker.

    Raises:
        InputError: TF_CONFIG cannot be used.
    """
    text = os.environ.get("TF_CONFIG")
    if not text:
        return 0, 1
    try:
        return _parse(json.loads(text))
    except ValueError as error:
        reason = f"no JSON: {error}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise InputError(
            f"TF_CONFIG={text[:200]!r} in the environment cannot be used ({reason}); it has to be like "
            '{"cluster": {"worker": ["host:port", ...]}, "task": {"type": "worker", "index": 0}}'
        ) from None


def _parse(config: Any) -> tuple[int, int]:
    jobs = config.get("cluster") if isinstance(config, dict) else None
    task = config.get("task") if isinstance(config, dict) else None
    if not isinstance(jobs, dict) or not isinstance(task, dict):
        raise ValueError("no cluster or no task")
    if set(jobs) - {"chief", "worker"}:
        raise ValueError(f"jobs {', '.join(sorted(jobs))}, not only chief and worker")
    for job, addresses in jobs.items():
        if not isinstance(addresses, list):
            raise ValueError(f"{job} is no list")
    chiefs, workers = jobs.get("chief", []), jobs.get("worker", [])
    addresses = [*chiefs, *workers]
    if not addresses or len(set(map(str, addresses))) < len(addresses):
        raise ValueError("no workers, or one of them twice")
    kind, index = task.get("type"), task.get("index")
    if kind not in list(jobs) or not isinstance(index, int) or not 0 <= index < len(jobs[kind]):
        raise ValueError(f"task {kind!r} {index!r} is not in the cluster")
    return index + (len(chiefs) if kind == "worker" else 0), len(addresses)

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
    wrong = (
        f"TF_CONFIG={text[:200]!r} in the environment cannot be used ({{}}); it has to be like "
        '{{"cluster": {{"worker": ["host:port", ...]}}, "task": {{"type": "worker", "index": 0}}}}'
    )
    try:
        config: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(wrong.format(f"no JSON: {error}")) from None
    cluster = config.get("cluster") if isinstance(config, dict) else None
    task = config.get("task") if isinstance(config, dict) else None
    if not isinstance(cluster, dict) or not isinstance(task, dict):
        raise InputError(wrong.format("no cluster or no task"))
    if set(cluster) - {"chief", "worker"}:
        raise InputError(
            wrong.format(f"jobs {', '.join(sorted(cluster))}; there is no other job than chief and worker")
        )
    addresses = [*cluster.get("chief", []), *cluster.get("worker", [])]
    if not addresses or len(set(map(str, addresses))) < len(addresses):
        raise InputError(wrong.format("no workers, or one of them twice"))
    kind, index = task.get("type"), task.get("index")
    if kind not in cluster or not isinstance(index, int) or not 0 <= index < len(cluster[kind]):
        raise InputError(wrong.format(f"task {kind!r} {index!r} is not in the cluster"))
    return index + (len(cluster.get("chief", [])) if kind == "worker" else 0), len(addresses)

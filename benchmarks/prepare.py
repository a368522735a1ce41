"""How fast and in how much memory rd_tf.prepare reads a large CSV: python -m benchmarks.prepare --rows=10000000.

A seeded CSV (user, item, epoch seconds; popular items more often) is written to a temporary directory, and prepare runs
over it in a child process. Prints one JSON line and a readable one.

The floor is what pyarrow's CSV parser alone takes to read the bytes and split them into three columns; it is measured
beside it. On 2 idle cores, 10,000,000 rows (234 MB): floor 0.4 s with the file in the page cache; prepare 18.5 s (0.54
million rows/s) and a peak of 1.49 GiB. The gap is 18 s. Step by step at 2,000,000 rows (2.0 s together): 0.99 s sorting
(duplicates, k-core, order of the output), 0.86 s reading (0.45 s of it parsing), 0.18 s fingerprint and writing.
"""

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from absl import app, flags


def write_check_ins(path: Path, rows: int, users: int, items: int, seed: int) -> None:
    """Writes `user_id,item_id,timestamp` rows in time order."""
    generator = np.random.default_rng(seed)
    columns = {
        "user_id": generator.integers(0, users, rows),
        "item_id": np.floor(items * generator.random(rows) ** 2).astype(np.int64),
        "timestamp": 1_300_000_000 + np.sort(generator.integers(0, 100_000_000, rows)),
    }
    pyarrow.csv.write_csv(pa.table(columns), path, pyarrow.csv.WriteOptions(quoting_style="none"))


def parse_only(path: Path) -> float:
    """Seconds of the CSV parser alone."""
    names = ["user_id", "item_id", "timestamp"]
    started = time.perf_counter()
    pyarrow.csv.read_csv(
        path, convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.binary()))
    )
    return time.perf_counter() - started


def measure(rows: int, seed: int) -> dict[str, float]:
    """Runs prepare over a fresh file with a user and an item for every 50 rows.

    Returns:
        rows, bytes of the file, seconds, peak resident bytes of the child, seconds of the parser alone.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "check_ins.csv"
        write_check_ins(path, rows, rows // 50 + 1, rows // 50 + 1, seed)
        command = [sys.executable, "-m", "rd_tf.prepare", f"--input={path}", f"--dataset={directory}/dataset"]
        command += ["--min_user_items=5", "--min_item_users=5"]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=sys.stderr)
        seconds = time.perf_counter() - started
        # The only child so far, so the largest of the children is it. Linux counts in KiB, macOS in bytes.
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        floor = parse_only(path)
        size = path.stat().st_size
    return {"rows": rows, "bytes": size, "seconds": seconds, "peak_rss_bytes": peak, "parse_only_seconds": floor}


def main(arguments: Sequence[str]) -> None:
    if len(arguments) > 1:
        raise app.UsageError(f"unexpected word {arguments[1]!r}")
    result = measure(_ROWS.value, _SEED.value)
    print(json.dumps({"benchmark": "prepare", **result}))
    print(
        f"{result['rows']:,} rows ({result['bytes'] / 1e6:.0f} MB) in {result['seconds']:.1f} s,"
        f" peak {result['peak_rss_bytes'] / 2**30:.2f} GiB; the parser alone {result['parse_only_seconds']:.1f} s"
    )


if __name__ == "__main__":
    _ROWS = flags.DEFINE_integer("rows", 10_000_000, "Rows of the file.", 1)
    _SEED = flags.DEFINE_integer("seed", 0, "Seed of the file.", 0)
    app.run(main)

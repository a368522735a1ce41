"""What the clients of benchmarks.soak count, and the bounds."""

import collections
import itertools
import statistics
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.malformed_requests import DROPPED
from rd_tf.storage import InputError

_MORE_FILES = 10
_EXAMPLES = 5
_MB = 1e6
# What a server says of a request it does not like. UNAVAILABLE and DEADLINE_EXCEEDED mean that it did not say anything.
_REFUSALS = {
    DROPPED,
    "INVALID_ARGUMENT",
    "FAILED_PRECONDITION",
    "NOT_FOUND",
    "UNIMPLEMENTED",
    "RESOURCE_EXHAUSTED",
    "INTERNAL",
}
# Requests answered so far, resident bytes, file descriptors and threads of the server.
Sample = tuple[int, int, int, int]


class SoakCounts:
    """Counts of all clients together.

    Args:
        requests: valid and malformed ones.

    Attributes:
        requests: as given.
        next: gives the number of the next request.
        done: requests that have ended.
        samples: of the server's use of the machine, in the order of time.
    """

    def __init__(self, requests: int) -> None:
        self.requests = requests
        self.next = itertools.count().__next__
        self.done = 0
        self.samples: list[Sample] = []
        self._failed, self._malformed, self._accepted = 0, 0, 0
        self._examples: list[str] = []
        self._outcomes: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
        self._lock = threading.Lock()

    def add_right(self) -> None:
        """A valid request got the right answer."""
        with self._lock:
            self.done += 1

    def add_failed(self, example: str) -> None:
        """A valid request got something else."""
        with self._lock:
            self.done += 1
            self._failed += 1
            if len(self._examples) < _EXAMPLES:
                self._examples.append(example)

    def add_malformed(self, kind: str, outcome: str) -> None:
        """A malformed request ended."""
        with self._lock:
            self.done += 1
            self._malformed += 1
            self._accepted += not _is_refusal(outcome)
            self._outcomes[kind][outcome] += 1

    def record(self) -> dict[str, Any]:
        """The counts, and medians of the samples over the second half of the first tenth and over the last tenth."""
        shares = [(sample[0] / self.requests, sample) for sample in self.samples]
        first = [sample for share, sample in shares if 0.05 <= share <= 0.1] or self.samples[:1]
        last = [sample for share, sample in shares if share > 0.9] or self.samples[-1:]
        tenths = [[sample for share, sample in shares if tenth <= 10 * share < tenth + 1] for tenth in range(10)]
        return {
            "requests": self.done,
            "failed": self._failed,
            "malformed": self._malformed,
            "accepted": self._accepted,
            **_medians(first, "first_"),
            **_medians(last, ""),
            # A leak goes on, memory that settles does not.
            "rss_mb_by_tenth": [_medians(samples, "")["rss_mb"] for samples in tenths if samples],
            "most_rss_mb": round(max(sample[1] for sample in self.samples) / _MB, 1),
            "examples": self._examples,
            "outcomes": {kind: dict(ends) for kind, ends in sorted(self._outcomes.items())},
        }


def check_bounds(record: Mapping[str, Any], most_growth: float) -> None:
    """Judges a soak.

    Args:
        record: that of `SoakCounts` with `tracebacks`, `last_version_served` and `exit_code` beside it.
        most_growth: of the resident memory, in percent.

    Raises:
        InputError: a bound is broken; the sentence names all that are.
    """
    growth = 100 * (record["rss_mb"] / record["first_rss_mb"] - 1)
    files, first_files = record["open_files"], record["first_open_files"]
    kinds = [kind for kind, ends in record["outcomes"].items() if not all(map(_is_refusal, ends))]
    bounds = [
        (record["failed"], f"{record['failed']} valid requests failed, such as {'; '.join(record['examples'])}"),
        (record["accepted"], f"{record['accepted']} malformed requests were not refused: {', '.join(kinds)}"),
        (growth > most_growth, f"memory grew by {growth:.1f} % from {record['first_rss_mb']} MB"),
        (files > first_files + _MORE_FILES, f"file descriptors grew from {first_files} to {files}"),
        (record["tracebacks"], f"the server's log has {record['tracebacks']} tracebacks"),
        (not record["last_version_served"], "the last version was not served"),
        (record["exit_code"], f"the server ended with {record['exit_code']}"),
    ]
    if sentences := [sentence for is_broken, sentence in bounds if is_broken]:
        raise InputError("; ".join(sentences))


def _is_refusal(outcome: str) -> bool:
    return outcome in _REFUSALS or (outcome.isdigit() and int(outcome) >= 400)


def _medians(samples: Sequence[Sample], prefix: str) -> dict[str, float]:
    _, rss, files, threads = (statistics.median(column) for column in zip(*samples, strict=True))
    return {f"{prefix}rss_mb": round(rss / _MB, 1), f"{prefix}open_files": files, f"{prefix}threads": threads}

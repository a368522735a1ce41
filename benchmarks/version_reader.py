"""Fake versions with checksums, and a reader that polls for them as tensorflow_model_server does."""

import hashlib
import json
import os
import random
import time
from pathlib import Path
from typing import Any

from rd_tf.serving.publishing import versions

MANIFEST = "manifest.json"
# As in a SavedModel: some files in folders, some small, some that take several writes.
_FILES = {
    "saved_model.pb": 30_000,
    "variables/variables.index": 500,
    "variables/variables.data-00000-of-00001": 300_000,
    "assets/users.txt": 20_000,
    "assets/items.txt": 20_000,
    "assets.extra/tf_serving_warmup_requests": 1_000,
    "assets.extra/report.json": 300,
}
_CHUNK = 16_384
_POLL_SECONDS = 0.0005
_SHOWN = 5


def write_version(directory: Path, seed: int) -> None:
    """Fills a directory with random files; `manifest.json`, first of all, tells the SHA-256 of each."""
    generator = random.Random(seed)
    contents = {name: generator.randbytes(size) for name, size in _FILES.items()}
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    (directory / MANIFEST).write_text(json.dumps(digests))
    for name, content in contents.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        with open(path, "wb", buffering=0) as file:
            for begin in range(0, len(content), _CHUNK):
                file.write(content[begin : begin + _CHUNK])


def read_version(path: Path) -> tuple[str, str]:
    """Reads every file of a version that was seen under its number.

    A server loads a version within seconds of seeing it and serves it from memory, so a version that vanishes as a
    whole costs at most a load that is tried again; a part of one under its number is what must never be.

    Returns:
        "whole" and what the manifest holds; or "vanished" and "", where the version had lost its number when a file was
        missed; or "partial" and what is wrong with a version that still has its number.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return "vanished", ""
    try:
        manifest, trouble = _read(descriptor)
        if not trouble:
            return "whole", manifest
        try:
            is_there = os.path.samestat(path.stat(), os.fstat(descriptor))
        except FileNotFoundError:
            is_there = False
        return ("partial", f"{path.name}: {trouble}") if is_there else ("vanished", "")
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> tuple[str, str]:
    def content(name: str) -> bytes:
        # Relative to the directory that was opened, whatever its name has become.
        with open(name, "rb", opener=lambda path, flags: os.open(path, flags, dir_fd=descriptor)) as file:
            return file.read()

    name = MANIFEST
    try:
        manifest = content(name).decode()
        digests = json.loads(manifest)
        for name, digest in digests.items():
            if hashlib.sha256(content(name)).hexdigest() != digest:
                return "", f"{name} is not what the manifest says"
    except (FileNotFoundError, json.JSONDecodeError) as error:
        return "", f"{name}: {error}"
    return manifest, "" if set(digests) == set(_FILES) else "files are missing in the manifest"


class VersionReader:
    """Polls a served model's directory and keeps count of what it finds.

    Attributes:
        counts: `polls`, `reads`, `whole`, `partial`, `vanished`, `reused` (a number with other files than before),
            `lower` (the highest version was lower than before) and `examples` of what must not be.
    """

    def __init__(self, directory: Path, seed: int) -> None:
        self._directory, self._random = directory, random.Random(seed)
        self._manifests: dict[str, str] = {}
        self._highest = 0
        kinds = ("polls", "reads", "whole", "partial", "vanished", "reused", "lower")
        self.counts: dict[str, Any] = {**dict.fromkeys(kinds, 0), "examples": []}

    def poll(self) -> None:
        """Reads the highest version, the lowest (the next to be removed) and one of all."""
        found = versions(self._directory)
        self.counts["polls"] += 1
        highest = int(found[-1].name) if found else 0
        if highest < self._highest:
            self._wrong("lower", f"highest version {highest} after {self._highest}")
        self._highest = max(highest, self._highest)
        for path in dict.fromkeys((found[-1], found[0], self._random.choice(found))) if found else ():
            kind, told = read_version(path)
            self.counts["reads"] += 1
            if kind == "partial":
                self._wrong("partial", told)
                continue
            self.counts[kind] += 1
            if kind == "whole" and self._manifests.setdefault(path.name, told) != told:
                self._wrong("reused", f"{path.name} has other files than before")
        time.sleep(_POLL_SECONDS)

    def _wrong(self, kind: str, example: str) -> None:
        self.counts[kind] += 1
        if len(self.counts["examples"]) < _SHOWN:
            self.counts["examples"].append(example)

"""Whenever a publisher is killed, a reader finds whole versions only, and the next publisher clears up."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.interrupted import PUBLISHERS, VersionReader, read_version, write_version

ROOT = Path(__file__).parents[2]
KILLS = 12
# What a publisher must not do: write under the number, and remove file by file under it.
CARELESS = """
import json, pathlib, shutil, sys
from benchmarks.interrupted import interrupt_publishers, write_version
from rd_tf.serving.publishing import versions

def publish(directory, keep_versions, seed, tell):
    found = versions(directory)
    path = directory / str(1 + max((int(old.name) for old in found), default=0))
    path.mkdir()
    tell(1)
    write_version(path, seed)
    tell(2)
    for old in found[:-1]:
        shutil.rmtree(old)

print(json.dumps(interrupt_publishers(pathlib.Path(sys.argv[1]), int(sys.argv[2]), 2, 0, publish)))
"""


def run(*arguments):
    # A process of its own: TensorFlow's threads and fork do not go together.
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    output = tmp_path_factory.mktemp("interrupted") / "records.jsonl"
    cases = f"--cases={','.join(PUBLISHERS)}"
    printed = run("-m", "benchmarks.interrupted", cases, f"--publishes={KILLS}", f"--output={output}")
    lines = output.read_text().splitlines()
    assert [line for line in printed.splitlines() if line.startswith("{")] == lines
    return {record["case"]: record for record in map(json.loads, lines)}


@pytest.mark.parametrize(("case", "stay"), [("publish", None), ("publish --keep_versions", 2)])
def test_a_reader_never_finds_a_part(records, case, stay):
    record = records[case]
    assert sum(record["killed"].values()) == KILLS
    assert record["whole"] > 0
    assert (record["partial"], record["reused"], record["lower"], record["examples"]) == (0, 0, 0, [])
    assert (record["leftovers"], record["failures"]) == ([], [])
    assert record["broken_versions"] == 0
    if stay is None:
        assert record["vanished"] == 0
    else:
        assert record["versions"] == stay


def test_a_careless_publisher_is_caught(tmp_path):
    record = json.loads(run("-c", CARELESS, tmp_path, KILLS))
    assert record["partial"] + record["broken_versions"] > 0
    assert record["failures"]


def test_a_version_that_lacks_something_is_partial_as_long_as_it_has_its_number(tmp_path):
    path = tmp_path / "7"
    path.mkdir()
    assert read_version(path)[0] == "partial"
    write_version(path, 0)
    assert read_version(path)[0] == "whole"
    (path / "saved_model.pb").write_bytes(b"half")
    assert read_version(path) == ("partial", "7: saved_model.pb is not what the manifest says")
    (path / "saved_model.pb").unlink()
    kind, told = read_version(path)
    assert kind == "partial"
    assert "saved_model.pb" in told
    path.rename(tmp_path / ".tmp-7")
    assert read_version(path) == ("vanished", "")


def test_a_number_with_other_files_and_a_lower_highest_version_are_noticed(tmp_path):
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        write_version(tmp_path / str(number), number)
    reader = VersionReader(tmp_path, 0)
    reader.poll()
    assert (reader.counts["whole"], reader.counts["examples"]) == (2, [])
    write_version(tmp_path / "1", 3)
    (tmp_path / "2").rename(tmp_path / "aside")
    reader.poll()
    assert (reader.counts["reused"], reader.counts["lower"]) == (1, 1)
    assert reader.counts["examples"] == ["highest version 1 after 2", "1 has other files than before"]

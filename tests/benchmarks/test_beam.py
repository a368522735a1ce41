"""What the benchmark of large data works on, and the memory that is seen of a command's processes."""

import json
import sys

import pandas as pd
import pytest

from benchmarks import beam
from benchmarks.beam import make_world, run_watched
from rd_tf.data.dataset import load_dataset
from rd_tf.storage import InputError
from rd_tf.teach import teach

# 300 MB here and 500 MB in a child, for half a second.
TWO_PROCESSES = """
import subprocess, sys
held = b"1" * 300_000_000
subprocess.run([sys.executable, "-c", "import time; held = b'1' * 500_000_000; time.sleep(0.5)"])
"""


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(beam, "_WORLD_USERS", 20)
    monkeypatch.setattr(beam, "_FILE_ROWS", 3000)
    monkeypatch.setattr(beam, "_WORLDS_OF_A_COUNTRY", 2)


def test_files_hold_the_rows_asked_for_of_worlds_with_users_of_their_own(small, tmp_path):
    paths = beam.write_check_ins(tmp_path, 7000, seed=5)
    tables = [pd.read_csv(path) for path in paths]
    assert [len(table) for table in tables] == [3000, 3000, 1000]
    table = pd.concat(tables)
    users = {world: set(rows) for world, rows in table["user_id"].groupby(table["user_id"].str.split("@").str[1])}
    assert len(users) > 2
    assert all(len(each) <= 20 for each in users.values())
    assert set(table["item_id"].str.split("@").str[1]) >= {"country-0", "country-1"}
    (tmp_path / "again").mkdir()
    again = beam.write_check_ins(tmp_path / "again", 7000, seed=5)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]


def test_the_peak_of_every_process_is_seen():
    run = run_watched([sys.executable, "-c", TWO_PROCESSES])
    assert [round(peak, -8) for peak in run.peak_bytes] == [300_000_000, 500_000_000]
    assert run.seconds > 0.5


def test_the_city_can_be_taught_on(tmp_path):
    make_world(1200, 4, 0, tmp_path)
    interactions = load_dataset(tmp_path / "dataset")
    assert 600 < len(interactions) < 2400
    flags = {"k": 10, "mask": "target", "block_size": 1024, "force": False}
    teach(teacher=str(tmp_path / "teacher"), dataset=str(tmp_path / "dataset"), cache=str(tmp_path / "cache"), **flags)
    assert len(json.loads((tmp_path / "cache" / "manifest.json").read_text())["shards"]) == 2


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ([], "--sizes is empty"),
        (["many"], "--sizes=many is no whole number from 1000"),
        (["1000000", "999"], "--sizes=999 is no whole number"),
    ],
)
def test_unusable_sizes_are_refused(sizes, message):
    flags = {"cases": [], "beam_options": [], "bucket_rows": 1, "dim": 4, "seed": 0, "work_dir": "", "output": ""}
    with pytest.raises(InputError, match=message):
        beam.beam(sizes=sizes, **flags)

"""What the benchmark of the teacher's lists works on, and what it refuses."""

import json

import pytest

from benchmarks.beam_teach import make_world, parse_sizes
from rd_tf.data.dataset import load_dataset
from rd_tf.storage import InputError
from rd_tf.teach import teach


def test_the_city_can_be_taught_on(tmp_path):
    make_world(1200, 4, 0, tmp_path)
    interactions = load_dataset(tmp_path / "dataset")
    assert 600 < len(interactions) < 2400
    flags = {"k": 10, "mask": "target", "block_size": 1024, "force": False}
    teach(teacher=str(tmp_path / "teacher"), dataset=str(tmp_path / "dataset"), cache=str(tmp_path / "cache"), **flags)
    assert len(json.loads((tmp_path / "cache" / "manifest.json").read_text())["shards"]) == 2


@pytest.mark.parametrize("sizes", [[], ["many"], ["1000000", "599"]])
def test_unusable_sizes_are_refused(sizes):
    with pytest.raises(InputError, match=f"--sizes{'=' + sizes[-1] if sizes else ' is empty'}"):
        parse_sizes(sizes)


def test_sizes_are_measured_smallest_first():
    assert parse_sizes(["700000", "80000"]) == [80000, 700000]

"""Datasets of TensorFlow Datasets through pipelines."""

import gzip

import pytest

pytest.importorskip("apache_beam")

from pipelines.beam.prepare import beam_prepare
from rd_tf.command_line import choose, default_flags
from rd_tf.data.readers import tfds
from rd_tf.prepare import prepare
from rd_tf.storage import InputError


@pytest.fixture
def flags(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds, "_BATCH", 4)
    monkeypatch.setattr(tfds, "_PIECE", 2)
    (tmp_path / "raw").mkdir()
    rows = "".join(f"u{row % 4},i{row % 7},{row // 2}\n" for row in range(30))
    raw = gzip.compress(f"user_id,item_id,timestamp\n{rows}".encode())
    (tmp_path / "raw" / "checkins.csv.gz").write_bytes(raw)
    folders = {"tfds_data_dir": str(tmp_path / "tfds"), "tfds_manual_dir": str(tmp_path / "raw")}
    return {**default_flags(beam_prepare), "format": "tfds", "input": ["foursquare_checkins"], **folders}


def test_a_dataset_that_has_to_be_built_first_gives_the_local_bytes(tmp_path, flags):
    beam_prepare(**flags | {"dataset": str(tmp_path / "beam"), "shards": 2, "bucket_rows": 10})
    prepare(**choose(prepare, flags, dataset=str(tmp_path / "local"), shards=2))
    files = sorted(path.name for path in (tmp_path / "local").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "beam").iterdir())
    for name in files:
        assert (tmp_path / "beam" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()


def test_a_column_that_is_missing_gets_the_local_sentence(tmp_path, flags):
    with pytest.raises(InputError) as local:
        prepare(**choose(prepare, flags, dataset=str(tmp_path / "local"), item_column="place"))
    with pytest.raises(InputError) as beam:
        beam_prepare(**flags | {"dataset": str(tmp_path / "beam"), "item_column": "place"})
    assert str(beam.value) == str(local.value)
    assert "has no column 'place', which --item_column names" in str(local.value)

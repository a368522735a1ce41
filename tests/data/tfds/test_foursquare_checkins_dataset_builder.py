"""The builder `foursquare_checkins`: TensorFlow Datasets' own checks, and the files that it reads."""

import gzip
import tempfile
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from rd_tf.data.tfds.foursquare_checkins import foursquare_checkins_dataset_builder

FILE = "checkins.csv.gz"
POSITIONS = "user_id,item_id,position\nu1,bar,0\nu1,gym,1\nu2,bar,0\n"


def write(folder, text=POSITIONS):
    (Path(folder) / FILE).write_bytes(gzip.compress(text.encode()))
    return str(folder)


def build(folder, text):
    builder = tfds.builder("foursquare_checkins", data_dir=folder)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=write(folder, text)))
    found = tfds.as_numpy(builder.as_dataset(split="train"))
    rows = [(example["user_id"].decode(), example["item_id"].decode(), int(example["timestamp"])) for example in found]
    return rows, builder.info.metadata["units"]["timestamp"]


class FoursquareCheckinsTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = foursquare_checkins_dataset_builder.Builder
    SPLITS = {"train": 3}  # noqa: RUF012

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.EXAMPLE_DIR = write(folder.name)
        super().setUpClass()


def test_positions_stand_for_times(tmp_path):
    rows, unit = build(tmp_path, POSITIONS)
    assert rows == [("u1", "bar", 0), ("u1", "gym", 1), ("u2", "bar", 0)]
    assert unit == "check-ins of the user before this one"


def test_times_are_seconds_or_iso_and_win_over_positions(tmp_path):
    text = '\ufeffposition,timestamp,item_id,user_id,note\n0,60,"a, b",ü,x\n1,1970-01-01T00:02:00Z,c,ü,\n'
    text += "2,1970-01-01 00:03:00,c,ü,\n3,1970-01-01T01:04:00+01:00,c,ü,\n"
    rows, unit = build(tmp_path, text)
    assert rows == [("ü", "a, b", 60), ("ü", "c", 120), ("ü", "c", 180), ("ü", "c", 240)]
    assert unit == "seconds since 1970-01-01 UTC"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user_id,item_id\n", r"its first line names \['user_id', 'item_id'\], not user_id, item_id and timestamp or"),
        (POSITIONS + "u2,gym,later\n", "line 5: the position 'later' is not a whole number"),
        (POSITIONS + "u2,,1\n", "line 5: a user, an item or a time is missing"),
        (POSITIONS + "u2,gym\n", "line 5: a user, an item or a time is missing"),
        ("user_id,item_id,timestamp\nu,i,soon\n", "line 2: the timestamp 'soon' is neither whole seconds nor ISO 8601"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, text)

"""The builder `gowalla`: TensorFlow Datasets' own checks, and what comes out of five invented check-ins."""

import gzip
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tensorflow_datasets as tfds

from rd_tf.data.tfds.gowalla import gowalla_dataset_builder

FILE = "loc-gowalla_totalCheckins.txt.gz"
CHECK_INS = """7\t2010-01-02T00:00:00Z\t48.5\t-2.25\t31
7\t2010-01-01T23:59:59Z\t48.5\t-2.25\t30
7\t1970-01-01T00:00:01Z\t0.0\t0.0\t31
12\t2010-01-01T00:00:00Z\t-33.125\t151.0\t30
12\t2010-01-01T00:00:00Z\t-33.0\t151.0\t29
"""


def write(folder, text=CHECK_INS):
    (Path(folder) / FILE).write_bytes(gzip.compress(text.encode()))
    return str(folder)


def build(data_dir, manual_dir):
    builder = tfds.builder("gowalla", data_dir=data_dir)
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=manual_dir))
    return builder


def examples(builder):
    return list(tfds.as_numpy(builder.as_dataset(split="train")))


class GowallaTest(tfds.testing.DatasetBuilderTestCase):
    DATASET_CLASS = gowalla_dataset_builder.Builder
    SPLITS = {"train": 5}  # noqa: RUF012
    # There is no checksum to check: see the builder.
    SKIP_CHECKSUMS = True

    @classmethod
    def setUpClass(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.EXAMPLE_DIR = write(folder.name)
        super().setUpClass()


def test_examples_hold_every_column_in_the_order_of_the_file(tmp_path):
    found = examples(build(tmp_path, write(tmp_path)))
    assert [(example["user_id"], example["item_id"]) for example in found] == [
        (b"7", b"31"),
        (b"7", b"30"),
        (b"7", b"31"),
        (b"12", b"30"),
        (b"12", b"29"),
    ]
    assert [example["timestamp"] for example in found] == [1262390400, 1262390399, 1, 1262304000, 1262304000]
    assert [example["latitude"] for example in found] == [48.5, 48.5, 0.0, -33.125, -33.0]
    assert [example["longitude"] for example in found] == [-2.25, -2.25, 0.0, 151.0, 151.0]
    assert (found[0]["timestamp"].dtype, found[0]["latitude"].dtype) == (np.int64, np.float32)


def test_info_names_the_source_and_the_unit(tmp_path):
    info = build(tmp_path, write(tmp_path)).info
    assert info.full_name == "gowalla/1.0.0"
    assert "cho2011friendship" in info.citation
    assert info.homepage == "https://snap.stanford.edu/data/loc-Gowalla.html"
    assert info.supervised_keys is None
    assert info.metadata["units"] == {"timestamp": "seconds since 1970-01-01 UTC"}


def test_without_a_manual_file_the_published_one_is_downloaded(tmp_path):
    write(tmp_path)
    with mock.patch.object(tfds.download.DownloadManager, "download", return_value=tmp_path / FILE) as download:
        assert len(examples(build(tmp_path / "data", None))) == 5
    download.assert_called_once_with("https://snap.stanford.edu/data/loc-gowalla_totalCheckins.txt.gz")


@pytest.mark.parametrize("line", ["7\t2010-01-02T00:00:00Z\t48.5\t-2.25", "7\tlast week\t48.5\t-2.25\t31", "7"])
def test_a_line_that_is_no_check_in_is_named(tmp_path, line):
    with pytest.raises(
        ValueError, match=r"totalCheckins\.txt\.gz, line 6: b'7.*' is not user, ISO 8601 time, latitude"
    ):
        build(tmp_path, write(tmp_path, CHECK_INS + line))
    assert not (tmp_path / "gowalla" / "1.0.0").exists()

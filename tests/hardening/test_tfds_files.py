"""Built datasets of TensorFlow Datasets whose files are damaged: the rows that were built, or one sentence."""

import numpy as np
import pytest
import tensorflow_datasets as tfds
from damage import damaged, refusing
from hypothesis import given, settings
from hypothesis import strategies as st

from rd_tf.data.readers.check_ins import join_tables
from rd_tf.data.readers.tfds import open_builder, read_tfds_table
from rd_tf.storage import InputError

COLUMNS = {"user_column": "viewer", "item_column": "film", "time_column": "seen"}
ROWS = [(2, "dune", 30), (2, "heat", 20), (1, "é\0", 10)]

with tfds.core.registered.skip_registration():

    class Plays(tfds.core.GeneratorBasedBuilder):
        """A dataset that is known by its files only."""

        name = "plays"
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = {"viewer": np.int64, "film": tfds.features.Text(), "seen": np.int64}
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for index, (viewer, film, seen) in enumerate(ROWS):
                yield index, {"viewer": viewer, "film": film, "seen": seen}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder of built datasets, and the content of every file."""
    folder = tmp_path_factory.mktemp("tfds")
    Plays(data_dir=folder).download_and_prepare()
    version = folder / "plays" / "1.0.0"
    return folder, {path: path.read_bytes() for path in sorted(version.iterdir())}


def rows(folder):
    builder = open_builder("plays", str(folder), "")
    check_ins = join_tables([(builder.info.full_name, read_tfds_table(builder, COLUMNS), COLUMNS)], False)
    users = [check_ins.user_ids[code] for code in check_ins.users]
    items = [check_ins.item_ids[code] for code in check_ins.items]
    return list(zip(users, items, check_ins.timestamps.tolist(), strict=True))


@settings(max_examples=10)
@given(data=st.data())
def test_a_damaged_file(built, data):
    folder, contents = built
    path = data.draw(st.sampled_from(list(contents)))
    for each, content in contents.items():
        each.write_bytes(content)
    path.write_bytes(data.draw(damaged(contents[path])))
    with refusing("plays"):
        found = rows(folder)
        # TensorFlow Datasets keeps checksums of records, not of what describes them.
        if "tfrecord" in path.name:
            assert found == [(str(viewer), film, seen) for viewer, film, seen in ROWS]


def test_a_file_that_ends_between_two_examples(built):
    folder, contents = built
    for each, content in contents.items():
        each.write_bytes(content)
    path = next(path for path in contents if "tfrecord" in path.name)
    length = int.from_bytes(contents[path][:8], "little")
    # A record is its length, a checksum of that, its content and a checksum of that.
    path.write_bytes(contents[path][: 8 + 4 + length + 4])
    with pytest.raises(InputError, match="has 1 examples and not 3; build it again"):
        rows(folder)


@pytest.mark.parametrize("pattern", ["dataset_info.json", "features.json", "*.tfrecord-*", "*"])
def test_a_missing_file(built, pattern):
    folder, contents = built
    for each, content in contents.items():
        each.parent.mkdir(parents=True, exist_ok=True)
        each.write_bytes(content)
    missing = list(next(iter(contents)).parent.glob(pattern))
    for each in missing:
        each.unlink()
    with refusing("plays") as refused:
        rows(folder)
    assert missing
    assert refused

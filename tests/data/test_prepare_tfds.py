"""--format=tfds: datasets of TensorFlow Datasets, ours and any other."""

import gzip
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tensorflow_datasets as tfds

from pipelines.distill import _prepare_if_asked, distill
from rd_tf.command_line import choose, default_flags
from rd_tf.data.dataset import load_dataset
from rd_tf.prepare import prepare
from rd_tf.storage import InputError

FILMS = [(2, "dune", 30), (2, "heat", 20), (1, "dune", 10)]
COLUMNS = {"user_column": "viewer", "item_column": "film", "time_column": "seen"}
SNAP = (
    "0\t2010-01-02T00:00:00Z\t1.5\t2.5\t31\n0\t2010-01-01T00:00:00Z\t1.5\t2.5\t9\n5\t2010-01-01T00:00:00Z\t1\t2\t31\n"
)
POSITIONS = "user_id,item_id,position\nu1,bar,0\nu1,gym,1\nu2,bar,0\n"

with tfds.core.registered.skip_registration():

    class Films(tfds.core.GeneratorBasedBuilder):
        """A dataset that is known by its files only, as one that somebody else has built."""

        name = "films"
        VERSION = tfds.core.Version("1.0.0")
        rows = FILMS
        split = "train"

        def _info(self):
            features = {"viewer": np.int64, "film": tfds.features.Text(), "seen": np.int64, "cast": {"lead": np.int64}}
            features["scores"] = tfds.features.Sequence(np.float32)
            return tfds.core.DatasetInfo(
                builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
            )

        def _split_generators(self, dl_manager):
            return {self.split: self._generate_examples()}

        def _generate_examples(self):
            for index, (viewer, film, seen) in enumerate(self.rows):
                yield index, {"viewer": viewer, "film": film, "seen": seen, "cast": {"lead": 0}, "scores": [1.0, 2.0]}


@pytest.fixture
def films(tmp_path):
    def build(rows=FILMS, split="train", file_format="tfrecord"):
        builder = Films(data_dir=tmp_path / "tfds", file_format=file_format)
        builder.rows, builder.split = rows, split
        builder.download_and_prepare()
        return {"format": "tfds", "input": ["films"], "tfds_data_dir": str(tmp_path / "tfds"), **COLUMNS}

    return build


@pytest.fixture
def dataset(tmp_path):
    return str(tmp_path / "out")


def run(**flags):
    return prepare(**default_flags(prepare) | flags)


def write(folder, name, text):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(gzip.compress(text.encode()))
    return str(folder)


@pytest.mark.parametrize("file_format", ["tfrecord", "array_record", "parquet"])
def test_any_built_dataset_is_read_by_its_columns(films, dataset, file_format):
    run(**films(file_format=file_format), dataset=dataset)
    interactions = load_dataset(dataset)
    assert (interactions.user_ids, interactions.item_ids) == (["2", "1"], ["dune", "heat"])
    assert interactions.users.tolist() == [0, 0, 1]
    assert interactions.items.tolist() == [2, 1, 1]
    assert interactions.timestamps.tolist() == [20, 30, 10]


RATINGS = [("138", "357", 4.0, 879024327), ("92", "709", 2.0, 875654590), ("138", "709", 5.0, 879024300)]
PERSON = {
    "user_gender": True,
    "bucketized_user_age": 45.0,
    "raw_user_age": 46.0,
    "user_occupation_label": 4,
    "user_occupation_text": "doctor",
    "user_zip_code": "53211",
}


@pytest.mark.parametrize(
    ("config", "person"), [("100k-ratings", PERSON), ("1m-ratings", PERSON), ("latest-small-ratings", {})]
)
def test_movielens_is_read_as_tensorflow_datasets_builds_it(tmp_path, dataset, config, person):
    def examples():
        for index, (user, movie, rating, time) in enumerate(RATINGS):
            film = {"movie_id": movie, "movie_title": f"Film {movie} (1995)", "movie_genres": ["Drama", "Comedy"]}
            own = {name: value for name, value in person.items() if name in builder.info.features}
            yield index, {"user_id": user, "user_rating": rating, "timestamp": time, **film, **own}

    builder = tfds.builder(f"movielens/{config}", data_dir=tmp_path / "tfds")
    with mock.patch.object(type(builder), "_split_generators", return_value={"train": examples()}):
        builder.download_and_prepare()
    flags = {"format": "tfds", "input": [f"movielens/{config}"], "tfds_data_dir": str(tmp_path / "tfds")}
    with pytest.raises(InputError, match=r"has no column 'item_id', which --item_column names; it has .*movie_id"):
        run(**flags, dataset=dataset)
    source = run(**flags, item_column="movie_id", dataset=dataset)["source"]
    assert source["tfds"] == [{"builder": "movielens", "config": config, "version": "0.1.1", "split": "train"}]
    assert (source["rows_read"], source["skipped_rows"]["count"]) == (3, 0)
    interactions = load_dataset(dataset)
    users = [interactions.user_ids[user] for user in interactions.users]
    items = [interactions.item_ids[item - 1] for item in interactions.items]
    wanted = [("138", "709", 879024300), ("138", "357", 879024327), ("92", "709", 875654590)]
    assert sorted(zip(users, items, interactions.timestamps.tolist(), strict=True)) == sorted(wanted)


def test_manifest_names_builder_version_and_split(films, dataset):
    source = run(**films(), dataset=dataset)["source"]
    assert source["tfds"] == [{"builder": "films", "config": "", "version": "1.0.0", "split": "train"}]
    assert source["time_unit"] == "integers as given"
    assert source["rows_read"] == 3


def test_gowalla_gives_what_its_file_gives(tmp_path, dataset):
    folder = write(tmp_path / "manual", "loc-gowalla_totalCheckins.txt.gz", SNAP)
    file = run(format="snap", input=[f"{folder}/loc-gowalla_totalCheckins.txt.gz"], dataset=f"{dataset}-file")
    flags = {"format": "tfds", "tfds_data_dir": str(tmp_path / "tfds"), "tfds_manual_dir": folder}
    built = run(**flags, input=["gowalla"], dataset=dataset)
    assert built["fingerprint"] == file["fingerprint"]
    assert built["source"]["time_unit"] == "microseconds since 1970-01-01 UTC"
    # Built once, it is read again without its file.
    (Path(folder) / "loc-gowalla_totalCheckins.txt.gz").unlink()
    again = run(**flags | {"tfds_manual_dir": ""}, input=["gowalla:1.0.0"], dataset=f"{dataset}-again")
    assert again["fingerprint"] == file["fingerprint"]


def test_foursquare_positions_stay_as_they_are(tmp_path, dataset):
    folder = write(tmp_path / "manual", "checkins.csv.gz", POSITIONS)
    file = run(input=[f"{folder}/checkins.csv.gz"], time_column="position", dataset=f"{dataset}-file")
    flags = {"format": "tfds", "tfds_data_dir": str(tmp_path / "tfds"), "tfds_manual_dir": folder}
    assert run(**flags, input=["foursquare_checkins"], dataset=dataset)["fingerprint"] == file["fingerprint"]


def test_bad_rows_are_named_by_dataset_and_example(films, dataset):
    flags = films(rows=[*FILMS, (3, "", 5)])
    with pytest.raises(
        InputError, match=r"films/1\.0\.0, example 4 of train: the item id b?'' is empty; mend it or pass"
    ):
        run(**flags, dataset=dataset)
    assert run(**flags, dataset=dataset, skip_bad_rows=True)["source"]["skipped_rows"]["count"] == 1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"input": ["no_such_set"]},
            "--input=no_such_set: TensorFlow Datasets knows no such dataset, and none lies in .*",
        ),
        ({"input": ["films.csv"]}, r"--input=films\.csv is not a dataset's name, such as gowalla, gowalla:1\.0\.0"),
        (
            {"input": ["gowalla:9.9.9"]},
            r"\(Dataset gowalla cannot be loaded at version 9\.9\.9, only: 1\.0\.0\); name another version",
        ),
        ({"input": ["gowalla"]}, "--input=gowalla is not built in .*; name the folder it lies in with --tfds_data"),
        (
            {"tfds_data_dir": "/nowhere"},
            "--tfds_data_dir=/nowhere is not a directory; name the one that holds the data",
        ),
        ({"tfds_manual_dir": "/nowhere"}, "--tfds_manual_dir=/nowhere is not a directory"),
        ({"user_column": "who"}, "films/1.0.0 has no column 'who', which --user_column names; it has .*film"),
        (
            {"item_column": "scores"},
            "films/1.0.0: the column 'scores', which --item_column names, holds no single text",
        ),
        ({"item_column": "cast"}, "films/1.0.0: the column 'cast', which --item_column names, holds no single text"),
        ({"input": []}, r"--input is empty; name the check-in files \(with --format=tfds: the datasets\)"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(films, dataset, changed, message):
    with pytest.raises(InputError, match=message) as caught:
        run(**films() | changed, dataset=dataset)
    assert "\n" not in str(caught.value)
    assert not Path(dataset).exists()


def test_files_that_a_builder_cannot_use_are_named(tmp_path, dataset):
    flags = {"format": "tfds", "input": ["foursquare_checkins"], "tfds_data_dir": str(tmp_path / "tfds")}
    folder = write(tmp_path / "manual", "checkins.csv.gz", POSITIONS + "u2,gym,later\n")
    with pytest.raises(
        InputError, match=r"cannot be built from --tfds_manual_dir=.*line 5: the position 'later' is not"
    ):
        run(**flags, tfds_manual_dir=folder, dataset=dataset)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"cannot be built from .*Manual directory .* does not exist or is empty"):
        run(**flags, tfds_manual_dir=str(tmp_path / "empty"), dataset=dataset)


def test_a_dataset_without_a_train_split_is_refused(films, dataset):
    with pytest.raises(InputError, match=r"has no split 'train' \(its splits: test\); name another dataset"):
        run(**films(split="test"), dataset=dataset)


def test_damaged_records_are_refused(films, dataset, tmp_path):
    flags = films()
    record = next((tmp_path / "tfds").rglob("*.tfrecord*"))
    record.write_bytes(record.read_bytes()[:-3])
    with pytest.raises(InputError, match=r"films/1\.0\.0 in .* cannot be read \(.*\); build it again"):
        run(**flags, dataset=dataset)


def test_the_pipeline_keeps_a_dataset_until_its_records_change(films, dataset, tmp_path, capsys):
    flags = choose(distill, default_flags(distill), **films(), dataset=dataset)
    _prepare_if_asked(flags)
    _prepare_if_asked(flags)
    assert "dataset kept" in capsys.readouterr().out
    record = next((tmp_path / "tfds").rglob("*.tfrecord*"))
    record.write_bytes(record.read_bytes() + b"x")
    with pytest.raises(InputError, match="held something else; name another directory, or --force makes it again"):
        _prepare_if_asked(flags)

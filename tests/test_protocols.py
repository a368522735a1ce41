"""What is held out (--split_by) and whether known items may be listed (--seen_items): one meaning in every command."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipelines.beam.teach import beam_teach
from rd_tf.command_line import choose, default_flags
from rd_tf.data.dataset import load_dataset, save_dataset
from rd_tf.data.interactions import Interactions
from rd_tf.data.windows import Dataset, open_dataset, split_interactions
from rd_tf.evaluate import evaluate
from rd_tf.evaluation.held_out import left_out_line, make_held_out
from rd_tf.export import export
from rd_tf.flag_definitions import SPLIT_RULES, SPLITS, Protocol, protocol_of
from rd_tf.prepare import prepare
from rd_tf.recommend import recommend
from rd_tf.storage import InputError
from rd_tf.teach import teach
from rd_tf.train import train

REPLAYS = next((Path(__file__).parent / "data/field_files/replays").iterdir())


def call(command, **flags):
    return command(**choose(command, default_flags(command), **flags))


def world(counts, seed=0):
    """Users with so many rows each, whose times are apart and overlap between users."""
    generator = np.random.default_rng(seed)
    users = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
    times = np.concatenate([np.sort(generator.integers(0, 200, count)) for count in counts]).astype(np.int64)
    items = generator.integers(1, 41, len(users)).astype(np.int32)
    return Interactions(users, items, times, [str(user) for user in range(len(counts))], [str(i) for i in range(40)])


def test_a_protocol_has_one_name():
    names = {Protocol(part, by, seen).name for part in SPLITS for by in SPLIT_RULES for seen in ("exclude", "keep")}
    assert len(names) == len(SPLITS) * 6
    for name in names:
        assert Protocol.of(name).name == name
    assert {"test", "validation/last", "test/keep", "all/time/keep"} <= names
    for name in ("", "train", "test/", "test/ratio", "test/keep/last", "test/exclude", "test/last/keep/keep"):
        with pytest.raises(ValueError, match=r"must be one of|is no name of a split"):
            Protocol.of(name)
    assert protocol_of("test", "auto", "auto", "validation/last/keep") == Protocol("test", "last", "keep")
    assert protocol_of("test", "time", "exclude", "validation/last/keep") == Protocol("test", "time")
    assert protocol_of("test") == Protocol("test")


@pytest.mark.parametrize(("count", "test", "validation"), [(1, 0, 0), (2, 1, 0), (3, 1, 1), (9, 1, 1)])
def test_the_last_item_is_left_out(count, test, validation):
    rows = world([count, 4])
    found = split_interactions(rows, "test/last")
    assert found.held_out[:count].tolist() == [False] * (count - test) + [True] * test
    assert (found.train ^ found.held_out).all()
    before = split_interactions(rows, "validation/last")
    assert (
        before.held_out[:count].tolist() == [False] * (count - test - validation) + [True] * validation + [False] * test
    )
    assert before.train[:count].tolist() == [True] * (count - test - validation) + [False] * (test + validation)
    rehearsal = split_interactions(rows, "rehearsal/last")
    assert (rehearsal.train == before.train).all()


@pytest.mark.parametrize("seed", range(5))
def test_one_time_cuts_all_users(seed):
    rows = world([30, 1, 12, 7, 50], seed)
    ordered = np.sort(rows.timestamps)
    parts = {name: split_interactions(rows, f"{name}/time") for name in ("rehearsal", "validation", "test")}
    for name, share in (("rehearsal", 0.64), ("validation", 0.7), ("test", 0.8)):
        begin = ordered[int(share * len(rows) + 1e-9)]
        assert (parts[name].train == (rows.timestamps < begin)).all()
        assert parts[name].times[0] == begin
    end = parts["test"].times[0]
    for name in ("rehearsal", "validation"):
        expected = (rows.timestamps >= parts[name].times[0]) & (rows.timestamps < end)
        assert (parts[name].held_out == expected).all()
    assert (parts["test"].held_out == ~parts["test"].train).all()
    # A shard of the users, which knows nothing of the others, is cut at the same times.
    own = rows.users == 4
    part = Interactions(rows.users[own] - 4, rows.items[own], rows.timestamps[own], ["4"], rows.item_ids)
    for name, whole in parts.items():
        found = split_interactions(part, f"{name}/time", whole.times)
        assert (found.train == whole.train[own]).all()
        assert (found.held_out == whole.held_out[own]).all()


def test_rows_of_one_time_stay_together():
    users = np.repeat(np.arange(2, dtype=np.int32), 10)
    rows = Interactions(users, np.ones(20, np.int32), np.full(20, 7, np.int64), ["a", "b"], ["x"])
    for part in ("validation", "test"):
        assert not split_interactions(rows, f"{part}/time").train.any()
    assert not split_interactions(rows, "validation/time").train.any()


def test_users_without_a_training_row_are_left_out_and_counted():
    users = np.repeat(np.arange(3, dtype=np.int32), [8, 2, 8])
    times = np.array([*range(8), 98, 99, *range(10, 17), 97], np.int64)
    items = np.arange(1, 19, dtype=np.int32)
    rows = Interactions(users, items, times, ["early", "late", "both"], [str(item) for item in range(18)])
    held_out = make_held_out(Dataset(rows).split("test", "time"), 3)
    assert held_out.users.tolist() == [2]
    assert held_out.counts["unknown_users"] == 1
    assert held_out.counts["users_without_targets"] == 1
    assert "ranked for 1 of 3 users (1 have nothing to rank, 1 no training row)" in left_out_line(held_out.counts)


@pytest.mark.parametrize("seed", range(3))
def test_known_items_are_targets_where_they_are_kept(seed):
    rows = world([30, 3, 12, 9], seed)
    data = Dataset(rows).split("test", seen_items="keep")
    held_out = make_held_out(data, 3)
    for row, user in enumerate(held_out.users):
        targets = held_out.targets[held_out.target_offsets[row] : held_out.target_offsets[row + 1]]
        expected = np.unique(rows.items[(rows.users == user) & data.split.held_out])
        assert targets.tolist() == expected.tolist()
    assert len(held_out.seen) == 0
    assert held_out.seen_offsets.tolist() == [0] * (len(held_out.users) + 1)
    without = make_held_out(Dataset(rows).split("test"), 3).counts
    assert held_out.counts["repeated_targets"] == without["repeated_targets"] > 0
    assert held_out.counts["targets"] == without["targets"] + without["repeated_targets"]


@pytest.fixture(scope="module")
def replays(tmp_path_factory):
    """A play log in which everybody repeats the same tracks."""
    path = tmp_path_factory.mktemp("replays") / "dataset"
    call(prepare, input=[str(REPLAYS)], dataset=str(path), duplicates="keep_all")
    return str(path)


@pytest.fixture(scope="module")
def teacher(replays, train_flags, tmp_path_factory):
    """A teacher that may list known items, trained without a user's last one."""
    path = str(tmp_path_factory.mktemp("runs") / "teacher")
    flags = {"split_by": "last", "seen_items": "keep", "epochs": 8, "sequence_length": 3, "mask": "seen"}
    train(**train_flags(dataset=replays, run_dir=path, **flags))
    return path


def read(path):
    return json.loads(Path(path).read_text())


def test_repeat_consumption_from_training_to_served_lists(replays, teacher, train_flags, tmp_path, capsys):
    data = open_dataset(replays)
    manifest, metrics = read(f"{teacher}/manifest.json"), read(f"{teacher}/metrics.json")
    assert manifest["split"] == metrics["split"] == "test/last/keep"
    assert metrics["counts"]["users"] == 60
    assert metrics["metrics"]["map"] > 0.2
    # Evaluated as trained, unless it is asked otherwise.
    assert call(evaluate, run_dir=teacher, dataset=replays, cutoffs=["3", "5"])["metrics"] == metrics["metrics"]
    capsys.readouterr()
    with pytest.raises(InputError, match="the 60 held-out items are all known to their users, and --seen_items=keep"):
        call(evaluate, run_dir=teacher, dataset=replays, seen_items="exclude")
    with pytest.raises(
        InputError, match=r"was trained on rows that --split_by=last chose.*give --split_by=last or none"
    ):
        call(evaluate, run_dir=teacher, dataset=replays, split_by="ratio")

    # A student of it is split and masked as it is.
    student = str(tmp_path / "student")
    train(**train_flags(dataset=replays, run_dir=student, teacher=teacher, sequence_length=3, mask="seen"))
    found = read(f"{student}/manifest.json")
    assert found["split"] == "test/last/keep"
    assert (found["flags"]["split_by"], found["flags"]["seen_items"]) == ("last", "keep")
    assert found["teacher"]["mask"] == "target"
    assert found["teacher"]["split"] == "test/last/keep"
    again = train(**train_flags(dataset=replays, run_dir=student, teacher=teacher, sequence_length=3, mask="seen"))
    assert again == found
    with pytest.raises(InputError, match=r"was trained with --split=test --split_by=last --seen_items=keep, but this"):
        train(**train_flags(dataset=replays, run_dir=str(tmp_path / "x"), teacher=teacher, split_by="ratio"))

    # Lists made by the command, of the same name.
    cache = call(teach, teacher=teacher, dataset=replays, cache=str(tmp_path / "cache"), k=5)
    assert read(f"{cache}/manifest.json")["split"] == "test/last/keep"
    cache = call(teach, teacher="popularity", dataset=replays, cache=str(tmp_path / "p"), k=5, split_by="last")
    assert read(f"{cache}/manifest.json")["split"] == "test/last"

    # Known items are recommended, or are not.
    known = {
        (data.interactions.user_ids[u], data.interactions.item_ids[i - 1])
        for u, i in zip(data.interactions.users.tolist(), data.interactions.items.tolist(), strict=True)
    }
    repeats = {}
    for seen in ("auto", "exclude"):
        output = str(tmp_path / f"{seen}.parquet")
        call(recommend, run_dir=student, dataset=replays, k=5, output=output, seen_items=seen)
        listed = pd.read_parquet(output)
        repeats[seen] = sum(pair in known for pair in zip(listed.user_id, listed.item_id, strict=True))
    assert repeats["auto"] > 60
    assert repeats["exclude"] == 0

    # So does the export, recent items among them.
    version = call(export, run_dir=student, dataset=replays, export_dir=str(tmp_path / "saved"))
    report = read(f"{version}/assets.extra/report.json")
    assert report["quality"]["split"] == "test/last/keep"
    call(recommend, saved_model=version, dataset=replays, k=5, output=str(tmp_path / "e.csv"), seen_items="keep")
    by_export, by_run = pd.read_csv(tmp_path / "e.csv"), pd.read_parquet(tmp_path / "auto.parquet")
    assert (by_export.item_id.astype(str).to_numpy() == by_run.item_id.to_numpy()).mean() > 0.99


def test_lists_of_a_split_by_time_are_the_same_from_shards(tiny_dataset, sharded_dataset, train_flags, tmp_path):
    run = str(tmp_path / "run")
    train(**train_flags(dataset=tiny_dataset, run_dir=run, split_by="time", epochs=1))
    lists = {"k": 5, "mask": "target", "block_size": 32, "force": False}
    expected = call(teach, teacher=run, dataset=tiny_dataset, cache=str(tmp_path / "whole"), **lists)
    found = call(teach, teacher=run, dataset=sharded_dataset, cache=str(tmp_path / "shards"), **lists)
    assert read(f"{expected}/manifest.json")["windows"] == read(f"{found}/manifest.json")["windows"]
    pytest.importorskip("apache_beam")
    places = {"teacher": run, "dataset": sharded_dataset, "cache": str(tmp_path / "beam")}
    beam_teach(**places, **lists, runner="DirectRunner", beam_options=[])
    for path in Path(found).iterdir():
        assert (tmp_path / "beam" / path.name).read_bytes() == path.read_bytes()


def test_a_dataset_splits_by_keywords_or_by_a_name(tmp_path):
    rows = world([9, 9])
    save_dataset(rows, tmp_path / "data", {})
    data = Dataset(load_dataset(tmp_path / "data"))
    assert data.split("validation", "last", "keep").name == data.split("validation/last/keep").name
    with pytest.raises(ValueError, match="by must be one of ratio, last, time; received 'half'"):
        data.split("test", "half")

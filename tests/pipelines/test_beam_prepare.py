"""Prepared by pipelines, a dataset has the bytes that rd_tf.prepare writes, and bad input the same sentence."""

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

pytest.importorskip("apache_beam")

from pipelines.beam.files import run_pipeline
from pipelines.beam.prepare import beam_prepare
from rd_tf.command_line import choose, default_flags
from rd_tf.data.readers import files, text
from rd_tf.prepare import prepare
from rd_tf.storage import InputError

ODD_IDS = ["a", "é日本🙂", "a\u2028b", " 7", "7 ", "007", "7", '"', "a,b", "#", "null", "\u0085"]


def run(command, directory, **flags):
    values = {"bucket_rows": 40, **flags, "dataset": str(directory)}
    return command(**choose(command, default_flags(beam_prepare), **values))


def files_of(directory):
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


def check_same(tmp_path, **flags):
    manifest = run(prepare, tmp_path / "local", **flags)
    assert run(beam_prepare, tmp_path / "beam", **flags) == manifest
    assert files_of(tmp_path / "beam") == files_of(tmp_path / "local")
    return manifest


def messy_rows(seed, rows=150, users=18, items=14):
    """Check-ins with repeats, equal times and a core that takes some rounds; ids of odd characters."""
    generator = np.random.default_rng(seed)
    user = np.minimum(generator.geometric(0.12, rows), users)
    item = np.minimum(generator.geometric(0.15, rows), items)
    names = [*ODD_IDS, *(f"id-{number}" for number in range(30))]
    time = generator.integers(0, 12, rows)
    return [(names[u], names[-i], str(t)) for u, i, t in zip(user, item, time, strict=True)]


def quoted(value):
    return '"' + value.replace('"', '""') + '"'


def as_csv(rows, delimiter=","):
    lines = [delimiter.join(map(quoted, row)) for row in [("user_id", "item_id", "timestamp"), *rows]]
    return "\n".join(lines) + "\n"


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    """Even small files are read in several pieces."""
    monkeypatch.setattr(text, "_BLOCK", 512)
    monkeypatch.setattr(files, "_PIECE", 30)


@pytest.mark.parametrize(
    ("duplicates", "shards", "core"), [("keep_last", 3, (3, 9)), ("keep_first", 0, (1, 1)), ("keep_all", 100, (4, 9))]
)
def test_files_of_every_named_column_and_every_filter(tmp_path, duplicates, shards, core):
    (tmp_path / "a.csv").write_text(as_csv(messy_rows(1)))
    (tmp_path / "b.tsv.gz").write_bytes(gzip.compress(as_csv(messy_rows(2, 40), "\t").encode()))
    columns = zip(*messy_rows(3, 70), strict=True)
    table = pa.table(dict(zip(("user_id", "item_id", "timestamp"), map(list, columns), strict=True)))
    pq.write_table(table.set_column(2, "timestamp", table["timestamp"].cast("int32")), tmp_path / "c.parquet")
    (tmp_path / "d.csv").write_text("user_id,item_id,timestamp\n")
    manifest = check_same(
        tmp_path,
        input=[str(tmp_path / name) for name in ("a.csv", "b.tsv.gz", "c.parquet", "d.csv")],
        duplicates=duplicates,
        shards=shards,
        min_user_items=core[0],
        min_item_users=core[1],
    )
    assert (manifest["source"]["duplicates_dropped"] > 0) == (duplicates != "keep_all")
    assert manifest["source"]["k_core_rounds"] >= (2 if core[0] > 1 else 0)
    assert len(manifest.get("shards", [])) == min(shards, manifest["users"])


def test_skipped_rows_and_times_that_turn_out_fractional(tmp_path):
    whole, fractional = messy_rows(4, 60), messy_rows(5, 60)
    (tmp_path / "whole.csv").write_text(as_csv([*whole, ("x", "", "7"), ("x", "y", "soon")]))
    (tmp_path / "fractional.csv").write_text(
        as_csv([*fractional, ("", "y", "7"), ("id-0", "id-1", "2.5")]) + "one,two\n"
    )
    files = [str(tmp_path / name) for name in ("fractional.csv", "whole.csv")]
    source = check_same(tmp_path, input=files, skip_bad_rows=True, shards=2)["source"]
    assert source["time_unit"] == "numbers as given, times 1,000,000"
    assert source["skipped_rows"]["count"] == 4
    assert "fractional.csv, line 62" in source["skipped_rows"]["first"]


def test_snap_files(tmp_path):
    lines = [f"{u}\t2010-10-{10 + int(t):02}T00:00:00Z\t1.5\t2.5\t{i}" for u, i, t in messy_rows(6, 90)]
    (tmp_path / "in.txt").write_text("\n".join(lines).replace('"', "'") + "\n")
    check_same(tmp_path, input=[str(tmp_path / "in.txt")], shards=2)


def test_triples_whose_order_goes_on_in_the_next_file(tmp_path):
    rows = [(u, i) for u, i, _ in messy_rows(7, 90) if not set(u + i) & set(" \u0085\u2028")]
    for name, part in (("1.txt", rows[:50]), ("2.txt", [*rows[50:], ("one", "two three 4")])):
        (tmp_path / name).write_text("".join(f"{user} {item} 1\n" for user, item in part))
    files = [str(tmp_path / name) for name in ("1.txt", "2.txt", "1.txt")]
    check_same(tmp_path, input=files, skip_bad_rows=True, duplicates="keep_first", shards=2)


def test_other_layouts_and_flags_of_reading(tmp_path, capsys):
    rows = messy_rows(8, 90)
    for name, lines in (
        ("ratings.dat", [f"{u}::{i}::{n % 6}::{1_500_000_000 + int(t)}" for n, (u, i, t) in enumerate(rows)]),
        ("a.jsonl", [json.dumps({"user_id": u, "item_id": i, "timestamp": t, "rating": 4}) for u, i, t in rows]),
        ("old.csv", ["x", "", "user_id;item_id;timestamp;rating", 'a;"p\nq;1;5', *(f"{n};{n};7;5" for n in range(40))]),
    ):
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    for name, flags in (("ratings.dat", {}), ("a.jsonl", {}), ("old.csv", {"skip_lines": 2, "skip_bad_rows": True})):
        source = check_same(tmp_path, input=[str(tmp_path / name)], min_rating="3", force=True, **flags)["source"]
        assert (source["below_min_rating"] > 0) == (name == "ratings.dat")
        local, beam = capsys.readouterr().out.split("dataset  ")[:2]
        # Equal times are not counted by the pipelines.
        said = [line for line in local.splitlines() if not line.startswith("warning")]
        assert said == [line for line in beam.partition("\n")[2].splitlines() if not line.startswith("warning")]


def test_a_pipe_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"--input: - is a pipe, which workers cannot read again; write it to a file"):
        run(beam_prepare, tmp_path / "beam", input=["-"])


def test_the_built_in_world(tmp_path):
    world = {"synthetic_users": 30, "synthetic_items": 40, "synthetic_visits": 12.0, "seed": 3}
    check_same(tmp_path, format="synthetic", **world, shards=4, bucket_rows=200)


GOOD = as_csv([("a", "p", "1"), ("b", "q", "2")])


@pytest.mark.parametrize(
    ("files", "flags"),
    [
        ({"a.csv": GOOD, "b.csv": GOOD + "c,r,soon\nd\n"}, {}),
        ({"a.csv": GOOD + "c\n" * 3 + ",,\n"}, {}),
        ({"a.csv": "user_id,item_id\n", "b.csv": GOOD + "c,r,soon\n"}, {}),
        ({"a.csv": GOOD, "b.csv.gz": gzip.compress(GOOD.encode() * 50, mtime=0)[:-9]}, {}),
        ({"a.csv": GOOD + '"c,r,1\n' + "d,s,2\n" * 20}, {}),
        ({"a.csv": GOOD, "b.csv": GOOD.replace('"1"', "2012-01-01").replace('"2"', "2012-01-02")}, {}),
        ({"a.csv": GOOD + "c,r,9223372036854775807\n", "b.csv": GOOD + "c,r,0.5\n"}, {}),
        ({"a.csv": GOOD.replace('"1"', "soon").replace('"2"', "late")}, {"skip_bad_rows": True}),
        ({"a.dat": "1 2 3 4\n"}, {}),
        ({"a.csv": GOOD + '"c,r,1\n' + "d,s,2\n" * 20}, {"multiline_fields": True}),
        ({"a.csv": GOOD}, {"encoding": "morse"}),
        ({"a.csv": GOOD}, {"min_rating": "4"}),
        ({"a.csv": "user_id,item_id,timestamp,rating\na,p,1,3\n"}, {"min_rating": "4"}),
        ({"a.parquet": b"PAR1"}, {}),
        ({}, {"input": ["nowhere.csv"]}),
        ({}, {"format": "synthetic", "synthetic_visits": 9.0, "input": ["x.csv"]}),
        ({"a.csv": GOOD}, {"min_user_items": 2}),
        ({"a.csv": GOOD}, {"time_column": "user_id"}),
    ],
)
def test_bad_input_gets_the_sentence_of_the_local_command(tmp_path, files, flags):
    for name, content in files.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    flags = {"input": [str(tmp_path / name) for name in files], **flags}
    with pytest.raises(InputError) as local:
        run(prepare, tmp_path / "local", **flags)
    with pytest.raises(InputError) as beam:
        run(beam_prepare, tmp_path / "beam", **flags)
    # The one number that belongs to the small pieces of this test.
    assert str(beam.value).replace("0 MiB long", "16 MiB long") == str(local.value).replace("0 MiB long", "16 MiB long")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)


def test_an_existing_dataset_is_kept_or_replaced_by_force_only_and_nothing_else_is_left(tmp_path, capsys):
    (tmp_path / "in.csv").write_text(GOOD)
    (tmp_path / "work").mkdir()
    flags = {"input": [str(tmp_path / "in.csv")], "work_dir": str(tmp_path / "work")}
    run(prepare, tmp_path / "local", **flags)
    run(prepare, tmp_path / "beam", **flags, shards=2)
    assert run(beam_prepare, tmp_path / "beam", **flags, shards=2)["shards"]
    assert capsys.readouterr().out.endswith(f"dataset kept: {tmp_path / 'beam'}\n")
    with pytest.raises(InputError, match=r"was made with --shards=2, not 0; .* or --force makes it again"):
        run(beam_prepare, tmp_path / "beam", **flags)
    run(beam_prepare, tmp_path / "beam", **flags, force=True)
    assert files_of(tmp_path / "beam") == files_of(tmp_path / "local")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["beam", "in.csv", "local", "work"]
    assert not list((tmp_path / "work").iterdir())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"runner": "SlowRunner"}, r"--runner=SlowRunner cannot be used \(.*\); try DirectRunner"),
        ({"beam_options": ["--project=p"]}, "--beam_options: '--project=p' is no name=value"),
        (
            {"runner": "PortableRunner"},
            "--work_dir is empty; name a directory or URL that every worker of --runner=Port",
        ),
        (
            {"beam_options": ["direct_num_workers=two"]},
            r"--beam_options=direct_num_workers=two cannot be used \(argument --direct_num_workers: invalid int value",
        ),
        ({"beam_options": ["runner=DirectRunner"]}, "--beam_options: 'runner=DirectRunner' is no name=value"),
    ],
)
def test_settings_of_beam_that_cannot_be_used(tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        run(beam_prepare, tmp_path / "beam", input=["in.csv"], **flags)
    assert not list(tmp_path.iterdir())


def test_without_beam_one_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(InputError, match=r"^Apache Beam is not installed; pip install -r requirements-beam\.txt$"):
        run(beam_prepare, tmp_path / "beam", input=["in.csv"])


def test_a_pipeline_that_fails_is_no_success(monkeypatch):
    import apache_beam as beam

    def fail(_):
        raise RuntimeError("worker lost")

    with pytest.raises(RuntimeError, match="worker lost"):
        run_pipeline(lambda pipeline: pipeline | beam.Create([1]) | beam.Map(fail), "DirectRunner", [])

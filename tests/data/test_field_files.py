"""Files as they come in the field: what prepare makes of them, or the sentence that names the flag that reads them."""

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from rd_tf.command_line import default_flags
from rd_tf.data.dataset import load_dataset
from rd_tf.prepare import prepare
from rd_tf.storage import InputError

FILES = Path(__file__).parent / "field_files"
ROOT = Path(__file__).parents[2]
MICRO = 1_000_000


def run(tmp_path, *inputs, **flags):
    flags = {"input": [str(each) for each in inputs], "dataset": str(tmp_path / "out"), **flags}
    return prepare(**default_flags(prepare) | {"force": True} | flags)


def rows(tmp_path):
    """`[(user, item, time)]` by user and time."""
    found = load_dataset(tmp_path / "out")
    users, items = [found.user_ids[n] for n in found.users], [found.item_ids[n - 1] for n in found.items]
    return list(zip(users, items, found.timestamps.tolist(), strict=True))


# Case, flags that "auto" does not need, what the file is taken for, rows, and the first and the last row.
READ = [
    ("ml_dat/ratings.dat", {"format": "movielens"}, "MovieLens", 80, ("1", "10", 1300001100), ("8", "19", 1300008190)),
    ("ml100k_udata/u.data", {"format": "movielens"}, "MovieLens", 80, ("1", "10", 1300001100), ("8", "19", 1300008190)),
    (
        "fsq_nyc/dataset_TSMC2014_NYC.txt",
        {"format": "foursquare"},
        "Foursquare",
        80,
        ("1", "4bf10", 1333476000 * MICRO),
        ("8", "4bf19", 1333476079 * MICRO),
    ),
    (
        "fsq_nyc_head/nyc.tsv",
        {"format": "tsv"},
        "header, separated by tabs",
        80,
        ("1", "4bf10", 1333476000 * MICRO),
        ("8", "4bf19", 1333476079 * MICRO),
    ),
    ("lightgcn/train.txt", {"format": "item_lists"}, "item lists", 48, ("1", "10", 0), ("6", "17", 47)),
    ("recbole_inter/ml.inter", {"format": "recbole"}, "RecBole", 80, ("1", "10", 1300001100), ("8", "19", 1300008190)),
    ("recbole_sci/ml.tsv", {"format": "recbole"}, "RecBole", 80, ("1", "10", 1300001100), ("8", "19", 1300008190)),
    ("semicolon/a.csv", {"separator": ";"}, "separated by semicolons", 48, ("u1", "i10", 110), ("u6", "i17", 617)),
    ("header_spaces/a.csv", {"format": "csv"}, "commas", 48, ("u1", "i10", 110), ("u6", "i17", 617)),
    ("trailing_comma_rows/a.csv", {"format": "csv"}, "commas", 48, ("u1", "i10", 110), ("u6", "i17", 617)),
    ("tsv_quote_swallow/a.tsv", {"format": "tsv"}, "tabs", 48, ("u1", "i0", 100), ("u6", "i7", 607)),
    ("tsv_quote_one_open/a.tsv", {"format": "tsv"}, "tabs", 48, ("u1", "i0", 100), ("u6", "i7", 607)),
    ("times_lost/a.csv", {"format": "csv"}, "commas", 100, ("u4", "i19", 1300000000), None),
    ("float32_times/exact.parquet", {"format": "parquet"}, "Parquet", 100, ("u4", "i24", 1300004000), None),
]


@pytest.mark.parametrize(("name", "flags", "words", "count", "first", "last"), READ, ids=[each[0] for each in READ])
def test_read_by_auto_and_by_the_flag(tmp_path, capsys, name, flags, words, count, first, last):
    for given in ({}, flags):
        manifest = run(tmp_path, FILES / name, duplicates="keep_all", **given)
        assert manifest["source"]["rows_read"] == manifest["interactions"] == count
        found = rows(tmp_path)
        assert found[0] == first
        assert last is None or found[-1] == last
        said = capsys.readouterr().out
        assert words in said.splitlines()[0]
        assert f"sum                 {count} rows = 0 bad" in said
        if not name.endswith(".parquet"):
            total = len((FILES / name).read_bytes().splitlines())
            assert f"lines               {total} = {total - (6 if 'lists' in words else count)} header" in said


def test_amazon_json_lines_need_only_the_item_column(tmp_path, capsys):
    manifest = run(tmp_path, FILES / "amazon_jsonl/Music.jsonl.gz", item_column="asin")
    assert (manifest["users"], manifest["items"], manifest["interactions"]) == (8, 10, 80)
    assert rows(tmp_path)[0] == ("A1", "B10", 1588687728923)
    assert "JSON lines" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"no field 'item_id', which --item_column names; they have 'user_id', 'asin'"):
        run(tmp_path, FILES / "amazon_jsonl/Music.jsonl.gz")


def test_triples_say_what_ordered_them_and_are_read_with_their_times_by_columns(tmp_path, capsys):
    run(tmp_path, FILES / "triples_time/t.txt")
    said = capsys.readouterr().out
    assert "in the order of the lines" in said
    assert "where it is a time: --separator=space --columns=user_id,item_id,timestamp" in said
    assert [item for user, item, _ in rows(tmp_path) if user == "1"] == [str(number) for number in range(10, 18)]
    run(tmp_path, FILES / "triples_time/t.txt", separator="space", columns=["user_id", "item_id", "timestamp"])
    assert "in the order of timestamp" in capsys.readouterr().out
    assert [item for user, item, _ in rows(tmp_path) if user == "1"] == [str(number) for number in range(17, 9, -1)]


def test_marks_in_tab_separated_ids_stand_as_they_are(tmp_path):
    manifest = run(tmp_path, FILES / "tsv_quote_ids2/a.tsv")
    assert (manifest["items"], manifest["interactions"]) == (9, 36)
    assert {'"weird al" yankovic', "weird al yankovic", '"', '""'} < {item for _, item, _ in rows(tmp_path)}


# Case, the sentence, flags that read it, rows then.
REFUSED = [
    ("comment_lines/a.csv", r"line 2 has them: pass --skip_lines=1$", {"skip_lines": 1}, 48),
    ("footer/a.csv", r"line 50: 1 fields instead of 3 \('\(48 rows\)'\); mend it or pass --skip_bad_rows", None, 48),
    ("csv_backslash/a.csv", r"line 5: 5 fields instead of 4 .*--escape=backslash", {"escape": "backslash"}, 48),
    (
        "csv_quote_swallow/a.csv",
        r"line 5: a quotation mark is opened and is closed only in line 21 .*--quote=none.*--multiline_fields",
        {"quote": "none"},
        48,
    ),
    ("csv_quote_swallow/a.csv", r"line 5: .* line 21 .*--multiline_fields", {"multiline_fields": True}, 32),
    ("t_us_date/a.csv", r"line 2: .*'--time_format=%m/%d/%Y %H:%M'", {"time_format": "%m/%d/%Y %H:%M"}, 48),
    ("t_comma_dec/a.csv", r"line 2: the time '1588687728,0' .* it has a decimal comma; write a decimal point", None, 0),
    ("t_NULL/a.csv", r"line 7: the time 'NULL' is no number", None, 47),
]


@pytest.mark.parametrize(("name", "message", "flags", "count"), REFUSED)
def test_refused_with_the_flag_that_reads_it(tmp_path, name, message, flags, count):
    with pytest.raises(InputError, match=rf"{name}.*{message}"):
        run(tmp_path, FILES / name)
    assert not (tmp_path / "out").exists()
    if count:
        manifest = run(tmp_path, FILES / name, **(flags or {"skip_bad_rows": True}))
        assert manifest["interactions"] == count
        skipped = manifest["source"]["skipped_rows"]["count"]
        assert manifest["source"]["rows_read"] == count + skipped
        assert (skipped > 0) == (flags is None)


def test_stray_marks_cost_one_row_each_where_bad_rows_are_skipped(tmp_path):
    manifest = run(tmp_path, FILES / "csv_quote_swallow/a.csv", skip_bad_rows=True)
    assert manifest["source"]["skipped_rows"]["reasons"] == {"quoted field of more than one line": 1}
    assert (manifest["source"]["rows_read"], manifest["interactions"]) == (48, 47)


@pytest.mark.parametrize(
    ("name", "second", "time"),
    [
        ("t_rfc2822", 1, 1588672860),
        ("t_slash", 1, 1588413600),
        ("t_one_digit", 1, 1588381200),
        ("t_24h", 3, 1588672800),
    ],
)
def test_times_are_read(tmp_path, name, second, time):
    run(tmp_path, FILES / name / "a.csv")
    assert [row for row in rows(tmp_path) if row[0] == "u1"][second][2] == time * MICRO
    if name == "t_24h":
        assert rows(tmp_path)[7] == ("u1", "i13", 1588723200 * MICRO)


def test_odd_times_are_warned_of(tmp_path, capsys):
    run(tmp_path, FILES / "t_mixed_s_ms/a.csv")
    said = capsys.readouterr().out
    assert (
        "units of time are mixed: read as seconds, times lie 24 of 48 in the year 2020; 24 of 48 in the year 523"
        in said
    )
    run(tmp_path, FILES / "times_lost/a.csv")
    assert "users whose times are all equal: 10;" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"the time column timestamp is of type float, .* from 16,777,216 on"):
        run(tmp_path, FILES / "float32_times/a.parquet")


def test_positive_feedback_alone(tmp_path, capsys):
    for name in ("ml_dat/ratings.dat", "ml100k_udata/u.data", "recbole_inter/ml.inter", "amazon_jsonl/Music.jsonl.gz"):
        manifest = run(tmp_path, FILES / name, min_rating="4", **({"item_column": "asin"} if "jsonl" in name else {}))
        source = manifest["source"]
        assert (source["min_rating"], source["below_min_rating"]) == ("4", 80 - manifest["interactions"])
        assert 0 < manifest["interactions"] < 80
        said = capsys.readouterr().out
        assert f"below --min_rating  {source['below_min_rating']} (4)" in said
    with pytest.raises(InputError, match=r"nothing remains: no row has a rating of --min_rating=6 or more; lower it"):
        run(tmp_path, FILES / "ml_dat/ratings.dat", min_rating="6")
    with pytest.raises(InputError, match="--format=item_lists has no ratings; leave out --min_rating"):
        run(tmp_path, FILES / "lightgcn/train.txt", min_rating="4")


def test_another_flag_of_reading_is_another_dataset(tmp_path):
    run(tmp_path, FILES / "ml_dat/ratings.dat")
    with pytest.raises(InputError, match="was made with --min_rating=, not 4;"):
        run(tmp_path, FILES / "ml_dat/ratings.dat", min_rating="4", force=False)
    run(tmp_path, FILES / "ml_dat/ratings.dat", min_rating="4", skip_lines=1)
    with pytest.raises(InputError, match="was made with --skip_lines=1, not 0;"):
        run(tmp_path, FILES / "ml_dat/ratings.dat", min_rating="4", force=False)


def command(tmp_path, script):
    script = script.replace("PREPARE", f"{sys.executable} -m rd_tf.prepare --dataset={tmp_path / 'out'} --force")
    return subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    "script",
    [
        "cat {file} | PREPARE --input=-",
        "cat {file} | PREPARE --input=/dev/stdin",
        "PREPARE --input=/dev/stdin < {file}",
        "PREPARE --input=<(cat {file})",
        "gzip -c {file} | PREPARE --input=-",
    ],
)
def test_standard_input_and_pipes(tmp_path, script):
    file = FILES / "csv_quote_swallow/a.csv"
    ended = command(tmp_path, script.format(file=file) + " --quote=none")
    assert (ended.returncode, ended.stderr) == (0, "")
    source = json.loads((tmp_path / "out" / "manifest.json").read_text())["source"]
    assert source["rows_read"] == 48
    if "gzip" not in script:
        assert source["input_sha256"] == [hashlib.sha256(file.read_bytes()).hexdigest()]
    refused = command(tmp_path, script.format(file=file))
    assert refused.returncode == 1
    assert refused.stderr.startswith(
        "error: /dev/" if "-" not in script.partition("--input=")[2][:1] else "error: -, line 5"
    )
    assert refused.stderr.count("\n") == 1


def test_a_parquet_file_in_a_pipe_and_devices(tmp_path):
    ended = command(tmp_path, f"cat {FILES / 'float32_times/exact.parquet'} | PREPARE --input=-")
    assert (ended.returncode, ended.stderr) == (0, "")
    for device in ("/dev/zero", "/dev/null"):
        with pytest.raises(InputError, match=rf"--input: {device} is a device; name a file, or - for a pipe"):
            run(tmp_path, device)


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    content = text.encode(encoding)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path

"""What the readers take, and what they say about what they do not take."""

import bz2
import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rd_tf.data.readers import files as parquet_table
from rd_tf.data.readers import text as text_table
from rd_tf.data.readers.check_ins import CheckIns, Reading, find_input, read_check_ins
from rd_tf.data.readers.checked_rows import CheckedFile, NowFractional
from rd_tf.data.readers.files import LineCount
from rd_tf.storage import InputError

COLUMNS = {"user_column": "u", "item_column": "i", "time_column": "t"}
MICRO = 1_000_000


def read_in_pieces(path: Path, monkeypatch, **reading) -> tuple[CheckedFile, list[tuple[str, str, int]]]:
    """A file as the pieces of a distributed reader, each of a few lines."""
    monkeypatch.setattr(text_table, "_BLOCK", 64)
    monkeypatch.setattr(parquet_table, "_PIECE", 3)
    for fractional in (False, True):
        file = find_input(str(path), "auto", COLUMNS, Reading(**reading)).checked_pieces(fractional)
        found = []
        try:
            for piece in file:
                users, items = (
                    [ids[code] for code in codes]
                    for ids, codes in ((piece.user_ids, piece.users), (piece.item_ids, piece.items))
                )
                found.append(list(zip(users, items, piece.timestamps.tolist(), strict=True)))
        except NowFractional:
            continue
        assert len(found) > 1
        return file, [row for piece in found for row in piece]
    raise AssertionError("fractional twice")


def read(path: Path | list[Path], format: str = "auto", skip_bad_rows: bool = False, **reading) -> CheckIns:
    paths = path if isinstance(path, list) else [path]
    return read_check_ins([str(each) for each in paths], format, COLUMNS, skip_bad_rows, Reading(**reading))


def rows(check_ins: CheckIns) -> list[tuple[str, str, int]]:
    users = [check_ins.user_ids[code] for code in check_ins.users]
    items = [check_ins.item_ids[code] for code in check_ins.items]
    return list(zip(users, items, check_ins.timestamps.tolist(), strict=True))


@pytest.fixture
def write(tmp_path):
    def write_file(content: bytes | str | pa.Table, name: str = "in.csv") -> Path:
        path = tmp_path / name
        if isinstance(content, pa.Table):
            pq.write_table(content, path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return write_file


def test_csv_takes_the_named_columns_wherever_they_stand(write):
    assert rows(read(write("x,t,u,i\n9,5,a,p\n9,6,b,q\n"))) == [("a", "p", 5), ("b", "q", 6)]


def test_tsv_and_gzip_go_by_the_ending(write):
    assert rows(read(write(gzip.compress(b"u\ti\tt\na\tp\t5\n", mtime=0), "in.tsv.gz"))) == [("a", "p", 5)]


def test_snap_reads_user_place_and_time_of_five_columns(write):
    text = "0\t2010-10-19T18:55:27Z\t30.2\t-97.7\t22847\n0\t2010-10-18T00:00:01Z\t30.2\t-97.7\t420315\n"
    assert rows(read(write(text, "in.txt"))) == [
        ("0", "22847", 1287514527 * MICRO),
        ("0", "420315", 1287360001 * MICRO),
    ]


def test_a_quotation_mark_in_snap_is_a_plain_character(write):
    assert rows(read(write('0\t1970-01-01\t1\t2\t"3\n', "in.txt"))) == [("0", '"3', 0)]


def test_triples_take_the_order_of_the_lines_as_time_across_files(write):
    files = [write("1 a 1\n1\tb   1\n", "train.txt"), write("1 c 1\n", "test.txt")]
    assert rows(read(files)) == [("1", "a", 0), ("1", "b", 1), ("1", "c", 2)]


def test_txt_of_another_layout_asks_for_a_format(write):
    with pytest.raises(InputError, match=r"in\.txt: its first line \('1 2 3 4'\) .* --columns=u,i,t.* or --format"):
        read(write("1 2 3 4\n", "in.txt"))


@pytest.mark.parametrize("name", ["in.dat", "in", "in.csv", "in.tsv", "in.txt"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "  "])
def test_a_header_tells_the_separator_whatever_the_ending(write, name, separator):
    path = write("u,i,t\na,p,5\n".replace(",", separator), name)
    assert rows(read(path)) == rows(read(path, "csv")) == [("a", "p", 5)]


def test_files_are_joined_in_order_and_share_ids(write):
    files = [write("u,i,t\na,7,5\n"), write(pa.table({"u": ["b"], "i": [7], "t": [1]}), "in.parquet")]
    check_ins = read(files)
    assert rows(check_ins) == [("a", "7", 5), ("b", "7", 1)]
    assert check_ins.items[0] == check_ins.items[1]


@pytest.mark.parametrize(
    "name", ["nan", "NA", "null", "007", "7 ", " 7", "1.0", "é日本🙂", "a\u2028b", "\u0085", "#", "\0"]
)
def test_ids_are_literal(write, name):
    assert rows(read(write(f"u,i,t\n{name},{name},5\n"))) == [(name, name, 5)]


def test_quoted_ids_may_hold_commas_and_quotation_marks(write):
    assert rows(read(write('u,i,t\n"a,b","say ""hi""",5\n'))) == [("a,b", 'say "hi"', 5)]


def test_byte_order_mark_blank_lines_and_dos_line_ends_are_passed_over(write):
    assert rows(read(write(b"\xef\xbb\xbfu,i,t\r\na,p,5\r\n\r\nb,q,6"))) == [("a", "p", 5), ("b", "q", 6)]


def test_header_alone_is_no_rows_with_and_without_a_line_end(write):
    assert rows(read(write("u,i,t\n"))) == rows(read(write("u,i,t"))) == []


def test_fields_of_more_than_one_line_are_read_where_they_are_asked_for(write):
    path = write('u,i,t,note\na,p,5,"two\nlines"\n\nb,q,late,x\n')
    with pytest.raises(InputError, match=r"in\.csv, line 5: the time 'late' is no number .* no ISO 8601 date or time;"):
        read(path, multiline_fields=True)
    found = read(path, skip_bad_rows=True, multiline_fields=True)
    assert rows(found) == [("a", "p", 5)]
    assert found.report.lines == LineCount(total=5, head=1, blank=1, continued=1)
    with pytest.raises(
        InputError, match=r"line 2: a quotation mark is opened and is closed only in line 3 .*--multiline"
    ):
        read(path)
    assert read(path, skip_bad_rows=True).skipped == {
        "wrong number of fields": 1,
        "unreadable time": 1,
        "quoted field of more than one line": 1,
    }


def test_a_quotation_mark_that_is_never_closed_costs_its_own_row_only(write):
    path = write('u,i,t\na,p,5\na,"q,6\nb,q,7\n')
    with pytest.raises(InputError, match=r"in\.csv, line 3: a quotation mark is opened and never closed"):
        read(path)
    assert rows(read(path, skip_bad_rows=True)) == [("a", "p", 5), ("b", "q", 7)]
    assert rows(read(path, quote="none")) == [("a", "p", 5), ("a", '"q', 6), ("b", "q", 7)]
    for last in ('a,"q,6\nb,q,7\n', '"'):
        path = write("u,i,t\na,p,5\n" + last)
        with pytest.raises(InputError, match=r"in\.csv, line 3: a quotation mark is opened and never closed"):
            read(path, multiline_fields=True, skip_bad_rows=True)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (["5", "-3", "+7", " 8 "], [5, -3, 7, 8]),
        (["9223372036854775807", "-9223372036854775808"], [2**63 - 1, -(2**63)]),
        (["5.0", "1e3", "7"], [5, 1000, 7]),
        (["5.5", "7"], [5_500_000, 7_000_000]),
        (["1970-01-01", "1970-01-01T00:00:01Z", "1970-01-01 01:00:00+01:00"], [0, MICRO, 0]),
        (
            ["1970-01-01T00:00:00.25", "1970-01-01T00:00:00.1234569Z", "1969-12-31T23:59"],
            [250_000, 123_456, -60 * MICRO],
        ),
        (["0001-01-01", "9999-12-31T23:59:59Z"], [-62135596800 * MICRO, 253402300799 * MICRO]),
    ],
)
def test_times_in_text(write, times, expected):
    check_ins = read(write("u,i,t\n" + "".join(f"a,p,{time}\n" for time in times)))
    assert check_ins.timestamps.tolist() == expected


@pytest.mark.parametrize(
    "time",
    ["", "nan", "inf", "0x10", "yesterday", "now", "2012-02-30", "2012-13-01", "1e300", "9" * 20, "5,5", "2012-01-01"],
)
def test_times_that_are_none(write, time):
    with pytest.raises(InputError, match=r"line 3: the time .* is no number|line 3: 4 fields instead of 3"):
        read(write(f"u,i,t\na,p,5\na,p,{time}\n"))


def test_one_fractional_file_scales_all(write):
    files = [write("u,i,t\na,p,5\n", "1.csv"), write("u,i,t\na,q,5.5\n", "2.csv")]
    check_ins = read(files)
    assert check_ins.timestamps.tolist() == [5_000_000, 5_500_000]
    assert check_ins.time_unit == "numbers as given, times 1,000,000"


def test_numbers_and_clock_times_do_not_mix_across_files(write):
    files = [write("u,i,t\na,p,5\n", "1.csv"), write("u,i,t\na,q,2012-01-01\n", "2.csv")]
    with pytest.raises(
        InputError, match=r"the times of .*1\.csv \(integers as given\) and .*2\.csv \(microseconds since"
    ):
        read(files)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array([7, 8], pa.uint8()), ["7", "8"]),
        (pa.array([7.0, 8.0]), ["7", "8"]),
        (pa.array(["x", "nan"]), ["x", "nan"]),
        (pa.array([b"x", b"y"], pa.large_binary()), ["x", "y"]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
    ],
)
def test_parquet_ids(write, ids, expected):
    check_ins = read(write(pa.table({"u": ids, "i": ids, "t": [1, 2]}), "in.parquet"))
    assert [row[:2] for row in rows(check_ins)] == [(name, name) for name in expected]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (pa.array([1, 2], pa.int16()), [1, 2]),
        (pa.array([1.0, 2.0], pa.float32()), [1, 2]),
        (pa.array([1.5, 2.0]), [1_500_000, 2_000_000]),
        (pa.array([1, 2], pa.timestamp("s")), [MICRO, 2 * MICRO]),
        (pa.array([1999, 2000], pa.timestamp("ns", "Europe/Paris")), [1, 2]),
        (pa.array([0, 1], pa.date32()), [0, 86400 * MICRO]),
        (pa.array(["1970-01-01", "1970-01-02"]), [0, 86400 * MICRO]),
    ],
)
def test_parquet_times(write, times, expected):
    table = pa.table({"u": ["a", "b"], "i": ["p", "q"], "t": times})
    assert read(write(table, "in.parquet")).timestamps.tolist() == expected


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("i", pa.array(["p", None]), "row 2: the item id None is empty"),
        ("u", pa.array([1.0, float("nan")]), "row 2: the user id nan is empty"),
        ("u", pa.array([1.0, 2.5]), "row 2: the user id 2.5 is not a whole number"),
        ("t", pa.array([1.0, float("nan")]), "row 2: the time nan is no number"),
        ("t", pa.array([1, None]), "row 2: the time None is no number"),
        ("t", pa.array([1, 2**63], pa.uint64()), "row 2: the time 9223372036854775808 is no number (or too large)"),
        ("t", pa.array([True, False]), "the time column t is of type bool"),
        ("i", pa.array([[1], [2]]), "the item column i is of type list"),
    ],
)
def test_parquet_rows_and_columns_that_cannot_be_used(write, column, values, message):
    columns = {"u": pa.array(["a", "b"]), "i": pa.array(["p", "q"]), "t": pa.array([1, 2])} | {column: values}
    with pytest.raises(InputError) as caught:
        read(write(pa.table(columns), "in.parquet"))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"a,p", "line 3: 2 fields instead of 3 ('a,p')"),
        (b"a,p,5,6", "line 3: 4 fields instead of 3 ('a,p,5,6')"),
        (b",p,5", "line 3: the user id '' is empty"),
        (b"a,,5", "line 3: the item id '' is empty"),
        (b"a,\xff,5", "line 3: the item id b'\\xff' is not UTF-8"),
        (b'"a\nb",p,5', "line 3: a quotation mark is opened and is closed only in line 4"),
        (b'a,"p\r",5', "line 3: a quotation mark is opened and is closed only in line 4"),
        (b"a,p," + b"x" * 500, "line 3: the time '" + "x" * 56 + "... is no number"),
    ],
)
def test_the_first_bad_row_stops_with_its_line_and_value(write, line, message):
    path = write(b"u,i,t\nb,q,1\n" + line + b"\na,p,late\n")
    with pytest.raises(InputError) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}, {message}")
    assert str(caught.value).endswith("; mend it or pass --skip_bad_rows")


def test_skipped_rows_are_counted_by_reason(write):
    path = write(b"u,i,t\nb,q,1\na,p\na,p,late\n,p,late\na,\xff,1\na,p,2\n")
    check_ins = read(path, skip_bad_rows=True)
    assert rows(check_ins) == [("b", "q", 1), ("a", "p", 2)]
    assert check_ins.rows_read == 6
    assert check_ins.skipped == {
        "wrong number of fields": 1,
        "user id empty": 1,
        "item id not UTF-8": 1,
        "unreadable time": 1,
    }
    assert check_ins.first_skipped == f"{path}, line 3: 2 fields instead of 3 ('a,p')"


def test_bad_triples_are_named_by_line(write):
    with pytest.raises(InputError, match=r"in\.txt, line 3: 2 fields instead of 3 \('2 b'\)"):
        read(write("1 à 1\n\n2 b\n", "in.txt"))


@pytest.mark.parametrize("skip_bad_rows", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("in.csv", b"", "in.csv is empty"),
        ("in.csv", b"\nu,i,t\n", "in.csv is blank in line 1"),
        ("in.csv", "ü,i,t\n".encode("latin-1"), "in.csv, line 1: the header is not UTF-8"),
        (
            "in.csv",
            b"u,i,x\n1,2,3\n",
            "line 1: the header has no column 't', which --time_column names; it has 'u', 'i', 'x'",
        ),
        ("in.csv", b"u,i,t,u\n", "line 1: the header has 2 columns 'u', which --user_column names"),
        ("in.csv.gz", gzip.compress(b"u,i,t\n" + b"a,p,5\n" * 99, mtime=0)[:-9], "damaged or truncated gzip file"),
        ("in.csv.gz", b"u,i,t\na,p,5\n", "damaged or truncated gzip file"),
        ("in.csv.gz", b"", "is empty"),
        ("in.parquet", b"u,i,t\n", "in.parquet is not a Parquet file or is damaged"),
    ],
)
def test_files_that_cannot_be_used_stop_even_where_bad_rows_are_skipped(write, name, content, message, skip_bad_rows):
    with pytest.raises(InputError) as caught:
        read(write(content, name), skip_bad_rows=skip_bad_rows)
    assert message in str(caught.value)


def test_an_open_quotation_mark_before_much_text_is_found(write):
    path = write(b'u,i,t\na,p,5\nb,"q,6\n' + b"a,p,5\n" * 3_000_000)
    with pytest.raises(InputError, match="line 3: a quotation mark is opened and never closed"):
        read(path)


def test_missing_file_and_directory(tmp_path):
    with pytest.raises(InputError, match=r"--input: .*none\.csv does not exist"):
        read(tmp_path / "none.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=r"--input: .*folder\.csv is a directory"):
        read(tmp_path / "folder.csv")


def test_parquet_names_the_missing_column(write):
    with pytest.raises(InputError, match=r"in\.parquet has no column 't', which --time_column names; it has 'u', 'i'"):
        read(write(pa.table({"u": [1], "i": [2]}), "in.parquet"))


_LATE = [str(day) for day in range(8)]


@pytest.mark.parametrize(
    "times",
    [
        _LATE,
        ["5.0", "1e3", *_LATE],
        [*_LATE, "7.5"],
        ["7.5", *_LATE],
        [*_LATE, "2012-01-01", "7", ""],
        ["", "late", *_LATE, "2012-01-01"],
        ["2012-01-01", *_LATE, "2012-01-02T03:04:05.5"],
        ["1e300", *_LATE, "1e15", "2012-01-01"],
        ["1e300", *_LATE, "9223372036854", "9223372036855", "12345678901234.0", "0.5"],
        ["late", "later"] * 5,
    ],
)
def test_pieces_of_a_text_are_the_whole(write, times, monkeypatch):
    path = write("u,i,t\n" + "".join(f"a{row % 3},p{row},{time}\n" for row, time in enumerate(times)))
    whole = read(path, skip_bad_rows=True)
    file, pieces = read_in_pieces(path, monkeypatch)
    assert pieces == rows(whole)
    assert (file.rows_read, file.skipped, file.first_skipped) == (
        whole.rows_read,
        whole.skipped,
        whole.first_skipped,
    )
    assert file.rows == len(pieces)
    assert (file.unit or whole.time_unit) == whole.time_unit


def test_bad_rows_of_every_kind_are_found_in_pieces(write, monkeypatch):
    lines = ["a,p,5", "b,,6", '"c\nd",q,7', "e,r", "f,s,late", ",,late", '"g,h","i ""j""",8', "k,l,9,10", "m,n,11"]
    for order in (lines, lines[::-1]):
        path = write("u,i,t\n" + "\n".join(order * 3) + "\n")
        whole = read(path, skip_bad_rows=True)
        file, pieces = read_in_pieces(path, monkeypatch)
        assert pieces == rows(whole)
        assert len(whole.skipped) == 5
        assert (file.rows_read, list(file.skipped.items()), file.first_skipped) == (
            whole.rows_read,
            list(whole.skipped.items()),
            whole.first_skipped,
        )


def test_triples_count_their_lines_across_pieces(write, monkeypatch):
    path = write("".join(f"user{row}  item{row}\t1\n" for row in range(20)), "in.txt")
    assert read_in_pieces(path, monkeypatch)[1] == rows(read(path))


@pytest.mark.parametrize("late", [1, 2.5, None])
def test_pieces_of_parquet_are_the_whole(write, late, monkeypatch):
    table = pa.table({"u": [1, 2, None, 4, 5, 6, 7], "i": list("abcdefg"), "t": pa.array([1, 2, 3, 4, 5, 6, late])})
    path = write(table, "in.parquet")
    whole = read(path, skip_bad_rows=True)
    file, pieces = read_in_pieces(path, monkeypatch)
    assert pieces == rows(whole)
    assert (file.skipped, file.first_skipped) == (whole.skipped, whole.first_skipped)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (gzip.compress(b"u,i,t\n" + b"a,p,5\n" * 40, mtime=0)[:-9], "in.csv.gz"),
        ("u,i\n1,2\n", "in.csv"),
        ("", "in.csv"),
        (b"PAR1 and more", "in.parquet"),
    ],
)
def test_a_file_that_cannot_be_used_says_the_same_in_pieces(write, content, name, monkeypatch):
    path = write(content, name)
    with pytest.raises(InputError) as whole:
        read(path)
    with pytest.raises(InputError) as pieces:
        read_in_pieces(path, monkeypatch)
    assert str(pieces.value).replace("a record may be 0 MiB", "a record may be 16 MiB") == str(whole.value)


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("in.csv.gz", gzip.compress),
        ("in.csv.bz2", bz2.compress),
        ("in.csv.xz", lzma.compress),
        ("in.csv.zst", lambda data: pa.compress(data, "zstd", asbytes=True)),
        ("in.csv.zip", lambda data: zipped(["a.csv"], data)),
    ],
)
def test_compressed_files_go_by_their_content_and_damaged_ones_are_named(write, name, compress):
    content = compress(b"u,i,t\n" + b"a,p,5\n" * 3000)
    assert len(read(write(content, name)).users) == len(read(write(content, "in.csv")).users) == 3000
    kind = {"gz": "gzip", "bz2": "bzip2", "zst": "zstd"}.get(name.rpartition(".")[2], name.rpartition(".")[2])
    for damaged in (content[:-9], b"u,i,t\na,p,5\n"):
        with pytest.raises(InputError, match=rf"damaged or truncated {kind} file"):
            read(write(damaged, name))
    with pytest.raises(InputError, match="is empty"):
        read(write(b"", name))


def zipped(names: list[str], data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, data)
    return file.getvalue()


def test_a_zip_archive_of_several_files_is_refused_with_their_names(write):
    with pytest.raises(InputError, match=r"in\.zip holds 2 files \('ml/a\.csv', 'ml/b\.csv'\); unpack it"):
        read(write(zipped(["ml/a.csv", "ml/b.csv"], b"u,i,t\n"), "in.zip"))


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "shift_jis", "utf-16", "utf-16-le", "utf-8-sig"])
def test_other_encodings(write, encoding):
    word = "カフェ" if encoding == "shift_jis" else "Café"
    content = f"u,i,t\n{word},p,5\n{word},q,6\n".encode(encoding)
    assert rows(read(write(content), encoding=encoding)) == [(word, "p", 5), (word, "q", 6)]
    if encoding.startswith("utf") and encoding != "utf-16-le":
        assert len(read(write(content)).users) == 2
    elif encoding == "latin-1":
        with pytest.raises(InputError, match=r"line 2: the user id .* is not UTF-8; --encoding names another"):
            read(write(content))


@pytest.mark.parametrize(
    ("reading", "message"),
    [
        ({"encoding": "morse"}, "--encoding=morse is not known"),
        ({"encoding": "base64"}, "--encoding=base64 is not known"),
        ({"separator": '"'}, "--separator='\"' separates no fields"),
        ({"time_format": "day"}, "--time_format=day is no format of strptime"),
        ({"time_format": "%Q"}, "--time_format=%Q is no format of strptime"),
        ({"min_rating": "good"}, "--min_rating=good is no number"),
        ({"columns": ["u", "i"]}, r"--columns=u,i does not have 't', which --time_column names"),
        ({"columns": ["u", "i", "t", "u"]}, r"--columns=u,i,t,u has 'u' 2 times"),
        ({"columns": ["u", "i", "x", "t"]}, r"makes the 4 columns of --columns of its first line 'u,i,t'"),
        ({"skip_lines": 9}, r"no line behind --skip_lines=9"),
        ({"min_rating": "4"}, r"line 1: the header has no column 'rating', which --value_column names"),
    ],
)
def test_flags_that_do_not_fit(write, reading, message):
    with pytest.raises(InputError, match=message):
        read(write("u,i,t\na,p,5\n"), **reading)


@pytest.mark.parametrize("reading", [{"quote": "double"}, {"escape": "backslash"}, {"multiline_fields": True}])
def test_quotation_marks_where_white_space_separates(write, reading):
    with pytest.raises(InputError, match=r"separated by white space, where no field is quoted; leave out --quote"):
        read(write("u i t\na p 5\n"), **reading)


@pytest.mark.parametrize(
    ("content", "reading", "expected"),
    [
        ("a;p;5\nb;q;6\n", {"columns": ["u", "i", "t"]}, [("a", "p", 5), ("b", "q", 6)]),
        ("a p 5\n b  q\t6 \n", {"columns": ["u", "i", "t"], "separator": "space"}, [("a", "p", 5), ("b", "q", 6)]),
        ("5::x:y::a\n6::z::b\n", {"columns": ["t", "i", "u"]}, [("a", "x:y", 5), ("b", "z", 6)]),
        ("a\x01b::p::5\nc::q::6\n", {"columns": ["u", "i", "t"]}, [("a\x01b", "p", 5), ("c", "q", 6)]),
        ("# x\n\nold\na,p,5\n", {"columns": ["u", "i", "t"], "skip_lines": 3}, [("a", "p", 5)]),
        ("a~~p~~5\n", {"columns": ["u", "i", "t"], "separator": "~~"}, [("a", "p", 5)]),
        ('u\ti\tt\n"a"\t"p\t5\n', {}, [('"a"', '"p', 5)]),
        ('"u"\t"i"\t"t"\n"a"\t"p\t"\t5\n', {}, [("a", "p\t", 5)]),
        ("u,i,t\na,p,5,\nb,q,6,,,\nc,r,7\n", {}, [("a", "p", 5), ("b", "q", 6), ("c", "r", 7)]),
        ("u,i,t\na,p\\,q,5\n", {"escape": "backslash"}, [("a", "p,q", 5)]),
        ("i,u\np,a\nq,b\n", {"no_time": True}, [("a", "p", 0), ("b", "q", 1)]),
    ],
)
def test_flags_overrule_what_the_first_lines_tell(write, content, reading, expected):
    columns = COLUMNS | ({"time_column": ""} if reading.pop("no_time", False) else {})
    path = write(content, "in.txt" if "::" in content else "in.csv" if "\t" not in content else "in.tsv")
    assert rows(read_check_ins([str(path)], "auto", columns, False, Reading(**reading))) == expected


HOUR = 3_600 * MICRO
NOON = 1_588_680_000 * MICRO  # 2020-05-05 12:00 UTC.


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2020-05-05T12:00:00.250+00:00", NOON + 250_000),
        ("2020/5/5 12:00", NOON),
        ("2020.05.05 12:00:00", NOON),
        ("2020-5-5", NOON - 12 * HOUR),
        ("2020-05-05T24:00:00Z", NOON + 12 * HOUR),
        ("20200505T120000Z", NOON),
        ("20200505T120000.5+0200", NOON - 2 * HOUR + 500_000),
        ("20200505T1200", NOON),
        ("20200505T12Z", NOON),
        ("2020-05-05 12:00:00 UTC", NOON),
        ("2020-05-05 12:00:00.1234567 GMT", NOON + 123_456),
        ("2020-05-05 12:00 PM", NOON),
        ("2020-05-05 12:30 am", NOON - 12 * HOUR + HOUR // 2),
        ("2020-05-05 12:00:00 America/New_York", NOON + 4 * HOUR),
        ("2020-05-05T14:00+02:00[Europe/Paris]", NOON),
        ("2020-05-05T14:00[Europe/Paris]", NOON),
        ("Tue, 05 May 2020 12:00:00 GMT", NOON),
        ("5 May 2020 08:00:00 EDT", NOON),
        ("Tue, 5 May 2020 12:00:00 +0000 (UTC)", NOON),
        ("Tue May 05 12:00:00 +0000 2020", NOON),
        ("Tue May  5 12:00:00 2020", NOON),
        ("Tue May  5 12:00:00 UTC 2020", NOON),
        ("Tue May 05 2020 14:00:00 GMT+0200 (Central European Summer Time)", NOON),
        ("May 5, 2020, 12:00 PM", NOON),
        ("May 5, 2020 at 12:00 PM", NOON),
        ("05/May/2020:12:00:00 +0000", NOON),
        ("5-May-2020", NOON - 12 * HOUR),
        ("September 5th, 2020", NOON + (123 * 24 - 12) * HOUR),
    ],
)
def test_dates_that_tell_day_from_month(write, time, expected):
    check_ins = read(write(f'u,i,t\na,p,"{time}"\n'))
    assert check_ins.timestamps.tolist() == [expected]
    assert check_ins.time_unit == "microseconds since 1970-01-01 UTC"


@pytest.mark.parametrize(
    ("time", "advice"),
    [
        ("05/01/2020 10:00", "'--time_format=%m/%d/%Y %H:%M' or '--time_format=%d/%m/%Y %H:%M'"),
        ("25.12.2020", r"'--time_format=%m\.%d\.%Y' or '--time_format=%d\.%m\.%Y'"),
        ("5/1/20 1:00:00 PM", "'--time_format=%m/%d/%y %I:%M:%S %p' or"),
        ("1588687728,5", "it has a decimal comma"),
        ("2020-05-05 10:00:00 IST", "its time zone has a short name"),
        ("2020-05-05 25:00:00", "--time_format reads others"),
        ("2020/02/30", "--time_format reads others"),
        ("2020-05-05T24:00:01", "--time_format reads others"),
        ("31 Jun 2020", "no ISO 8601"),
        ("2020-05-05 13:00 PM", "--time_format|short name"),
    ],
)
def test_dates_that_cannot_be_read_say_how(write, time, advice):
    with pytest.raises(InputError, match=rf"line 2: the time '{time}' is no number .*{advice}"):
        read(write(f'u,i,t\na,p,"{time}"\n'))


def test_a_format_of_the_times(write):
    path = write("u,i,t\na,p,05/01/2020 10:00\na,q,13/01/2020 10:00\n")
    assert rows(read(path, time_format="%d/%m/%Y %H:%M")) == [
        ("a", "p", 1_578_218_400 * MICRO),
        ("a", "q", 1_578_909_600 * MICRO),
    ]
    with pytest.raises(InputError, match=r"line 3: the time '13/01/2020 10:00' is not of the form --time_format=%m/%d"):
        read(path, time_format="%m/%d/%Y %H:%M")
    table = pa.table({"u": ["a"], "i": ["p"], "t": [20200505]})
    assert read(write(table, "in.parquet"), time_format="%Y%m%d").timestamps.tolist() == [NOON - 12 * HOUR]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (
            ["1588687728"] * 3 + ["1588687728923"],
            "mixed: read as seconds, times lie 3 of 4 in the year 2020; 1 of 4 in",
        ),
        (["1588687728.5", "1588687728000"], "mixed: read as seconds"),
        (["1588687728923", "1588687728924", "0"], "times lie 2 of 3 in the year 2020; 1 of 3 in the year 1970"),
        (["0020-05-05", "2020-05-05"], "times lie 1 of 2 in the year 2020; 1 of 2 in the year 20"),
        (["0020-05-05", "0020-05-06"], "times lie 2 of 2 in the year 20"),
        (["1", "2", "300000"], None),
        (["1588687728", "1588687729"], None),
        (["2020-05-05", "2020-05-06"], None),
    ],
)
def test_times_of_several_units_or_centuries_are_warned_of(write, times, expected):
    path = write("u,i,t\n" + "".join(f"a,p{row},{time}\n" for row, time in enumerate(times)))
    warnings = read(path).report.warnings
    assert len(warnings) == (expected is not None)
    assert expected is None or expected in warnings[0]


def test_users_whose_times_are_all_equal_are_counted(write):
    path = write("u,i,t\na,p,1.30E+09\na,q,1.30E+09\nb,p,1.30E+09\nc,p,1\nc,q,2\n")
    assert "users whose times are all equal: 1;" in read(path).report.warnings[-1]


@pytest.mark.parametrize("kind", [pa.float16(), pa.float32(), pa.float64()])
def test_times_of_floats_are_taken_as_far_as_these_are_exact(write, kind):
    exact = {pa.float16(): 2**11, pa.float32(): 2**24, pa.float64(): 2**53}[kind]
    for time in (exact - 1, exact):
        path = write(pa.table({"u": ["a"], "i": ["p"], "t": pa.array([float(time)]).cast(kind)}), "in.parquet")
        if time < exact:
            assert read(path).timestamps.tolist() == [time]
        else:
            with pytest.raises(InputError, match=f"the time column t is of type .* from {exact:,} on are one"):
                read(path)


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.parquet"])
def test_rows_below_the_lowest_rating_are_counted(write, name, monkeypatch):
    values = [("a", "p", 5, 4.0), ("a", "q", 6, 3.5), ("b", "p", 7, 5.0), ("b", "r", 8, None)]
    if name == "in.parquet":
        path = write(pa.Table.from_pylist([dict(zip("uitr", row, strict=True)) for row in values]), name)
    elif name == "in.csv":
        path = write("u,i,t,r\n" + "".join(",".join(map(str, row)) + "\n" for row in values))
    else:
        path = write("".join(json.dumps(dict(zip("uitr", row, strict=True))) + "\n" for row in values), name)
    flags = {"value_column": "r", "min_rating": "4"}
    with pytest.raises(InputError, match=r"(line|row) \d: the rating .* is no number; mend it"):
        read(path, **flags)
    found = read(path, skip_bad_rows=True, **flags)
    assert rows(found) == [("a", "p", 5), ("b", "p", 7)]
    assert (found.rows_read, found.skipped, found.report.below_min_rating) == (4, {"unreadable rating": 1}, 1)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1, 2]", r"line 2: '\[1, 2\]' is no JSON object"),
        ('{"u": "a", "i": ["p"], "t": 5}', "line 2: .* is no JSON object"),
        ('{"u": "a", "t": 5}', "line 2: the item id '' is empty"),
        ('{"u": "a", "i": true, "t": 5}', "line 2: .* is no JSON object"),
        ("{'u': 'a'}", "line 2: .* is no JSON object"),
    ],
)
def test_json_lines(write, line, message):
    good = '{"u": 7, "i": "p\\u00e9,\\"", "t": 5}\n{"x": {}, "t": 6, "i": 7.0, "u": "b"}\n'
    assert rows(read(write(good, "in.json"))) == [("7", 'pé,"', 5), ("b", "7", 6)]
    path = write(good.splitlines()[0] + "\n" + line + "\n", "in.jsonl")
    with pytest.raises(InputError, match=message):
        read(path)
    found = read(path, skip_bad_rows=True)
    assert (len(found.users), sum(found.skipped.values())) == (1, 1)


def test_json_arrays_and_missing_fields_are_refused(write):
    with pytest.raises(InputError, match=r"is one JSON array; write an object a line"):
        read(write('[{"u": 1, "i": 2, "t": 3}]\n', "in.json"))
    with pytest.raises(InputError, match=r"no field 't', which --time_column names; they have 'u', 'i', 'when'"):
        read(write('{"u": 1, "i": 2, "when": 3}\n', "in.json"))


def test_item_lists_of_any_length_and_users_without_items(write):
    found = read(write("1 10 11\n2\n\n3 10 12 13\n", "in.txt"), "item_lists")
    assert rows(found) == [("1", "10", 0), ("1", "11", 1), ("3", "10", 2), ("3", "12", 3), ("3", "13", 4)]
    assert found.report.lines == LineCount(total=4, blank=1)
    assert rows(read(write("1 10\n2 10 11 12\n", "in.txt"))) == [
        ("1", "10", 0),
        *(("2", str(n), n - 9) for n in (10, 11, 12)),
    ]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2020-05-01T10:00:00.123456789", "2020-05-01T10:00:00.123456788"),
        ("2020-05-01 10:00:00.1234564+02:00", "2020-05-01 10:00:00.1234561+02:00"),
        ("1588327200.1234567", "1588327200.1234566"),
        (1588327200123456789, 1588327200123456788),
        (1234.12345671, 1234.12345672),
    ],
)
def test_times_less_than_a_microsecond_apart_are_refused(write, first, second):
    columns = {"u": ["a", "a", "b"], "i": ["x", "y", "z"]}
    if isinstance(first, int):
        times = pa.array([first, second, first - 2000], pa.timestamp("ns"))
    else:
        times = pa.array([first, second, type(first)("1588327100.5") if isinstance(first, float) else first])
    with pytest.raises(InputError, match="are less than a microsecond apart, in which their order is lost; round them"):
        read(write(pa.table(columns | {"t": times}), "in.parquet"))
    # As nanoseconds in whole numbers they keep their order, and equal ones are no loss.
    if isinstance(first, int):
        found = read(write(pa.table(columns | {"t": times.cast(pa.int64())}), "whole.parquet"))
        assert found.timestamps.tolist() == [first, second, first - 2000]
    same = pa.table(columns | {"t": pa.array([first, first, first], times.type)})
    assert len(set(read(write(same, "same.parquet")).timestamps.tolist())) == 1

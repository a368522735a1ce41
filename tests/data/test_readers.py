"""What the readers take, and what they say about what they do not take."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rd_tf.data.readers import check_ins as parquet_table
from rd_tf.data.readers import text as text_table
from rd_tf.data.readers.check_ins import CheckIns, checked_pieces, read_check_ins
from rd_tf.data.readers.checked_rows import CheckedFile, NowFractional
from rd_tf.storage import InputError

COLUMNS = {"user_column": "u", "item_column": "i", "time_column": "t"}
MICRO = 1_000_000


def read_in_pieces(path: Path, monkeypatch) -> tuple[CheckedFile, list[tuple[str, str, int]]]:
    """A file as the pieces of a distributed reader, each of a few lines."""
    monkeypatch.setattr(text_table, "_BLOCK", 64)
    monkeypatch.setattr(parquet_table, "_PIECE", 3)
    for fractional in (False, True):
        file = checked_pieces(str(path), "auto", COLUMNS, fractional)
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


def read(path: Path | list[Path], format: str = "auto", skip_bad_rows: bool = False) -> CheckIns:
    paths = path if isinstance(path, list) else [path]
    return read_check_ins([str(each) for each in paths], format, COLUMNS, skip_bad_rows)


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
    with pytest.raises(InputError, match=r"in\.txt: its first line is neither five .* give --format"):
        read(write("1 2 3 4\n", "in.txt"))


def test_unknown_ending_asks_for_a_format_and_takes_it(write):
    path = write("u,i,t\na,p,5\n", "in.dat")
    with pytest.raises(InputError, match=r"in\.dat: its ending does not tell its layout; give --format"):
        read(path)
    assert rows(read(path, "csv")) == [("a", "p", 5)]


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


def test_line_breaks_in_other_columns_are_legal_and_counted(write):
    path = write('u,i,t,note\na,p,5,"two\nlines"\n\nb,q,late,x\n')
    with pytest.raises(InputError, match=r"in\.csv, line 5: the time 'late' is no number .* no ISO 8601 date or time;"):
        read(path)
    assert rows(read(path, skip_bad_rows=True)) == [("a", "p", 5)]


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
        (b'"a\nb",p,5', "line 3: the user id 'a\\nb' is more than one line"),
        (b'a,"p\r",5', "line 3: the item id 'p\\r' is more than one line"),
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
        ("in.csv", b'u,i,t\na,p,5\na,"q,6\nb,q,7\n', "in.csv, line 3: a quotation mark is opened and never closed"),
        ("in.csv", b'u,i,t,x\na,p,5,"z\nb,q,7,"" \n', "in.csv, line 2: a quotation mark is opened and never closed"),
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
        ("u,i,t\n" + "a,p,5\n" * 40 + '"b,p,5\n' + "a,p,5\n" * 40, "in.csv"),
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

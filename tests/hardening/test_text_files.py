"""Text files of check-ins: read back as written, and damaged ones read as they stand or refused, never half."""

import contextlib
import csv
import gzip
import io
import json
import os
import re

import pytest
from damage import TEXT_SCRAPS, damaged, refusing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rd_tf.command_line import default_flags
from rd_tf.data.dataset import load_manifest
from rd_tf.data.readers.check_ins import CheckIns, Reading, find_layout, read_check_ins
from rd_tf.data.readers.text import read_text_table
from rd_tf.prepare import prepare
from rd_tf.storage import InputError

COLUMNS = {"user_column": "u", "item_column": "i", "time_column": "t"}
VALID = {
    "csv": b'u,i,t\n"a",p,5\nb,"q,1",6\nc,"say ""r""",7.5\n',
    "tsv": b"x\tt\tu\ti\n\t2012-01-01\ta\tp\n1\t2012-01-02T03:04:05Z\tb\tq\n",
    "snap": b"0\t2010-10-19T18:55:27Z\t30.2\t-97.7\t22847\n0\t2010-10-18T00:00:01Z\t30.2\t-97.7\t420315\n",
    "triples": b"1 a 1\n1\tb   1\n2 c 4\n",
}
DELIMITERS = {"csv": ",", "tsv": "\t", "snap": "\t", "triples": None}
SEPARATOR = {"csv": "comma", "tsv": "tab", "snap": "tab", "triples": "space"}
NEEDED = {"snap": [0, 4, 1], "triples": [0, 1]}
FIELDS = {"snap": 5, "triples": 3}
# Where no header comes first, a byte-order mark that is part of an id cannot be told from one that is none.
ID = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\ufeff"), min_size=1, max_size=8)
BARE_ID = {
    "snap": ID.filter(lambda name: "\t" not in name),
    "triples": ID.filter(lambda name: not set(name) & set(" \t\f")),
}
LAYOUTS = ["csv", "tsv", "movielens", "foursquare", "recbole", "jsonl", "item_lists", "snap", "triples"]
TIME = st.integers(-(2**63), 2**63 - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("in")


def read(path, format="auto", skip_bad_rows=False, **reading):
    return read_check_ins([str(path)], format, COLUMNS, skip_bad_rows, Reading(**reading))


def rows(check_ins: CheckIns):
    users = [check_ins.user_ids[code] for code in check_ins.users]
    items = [check_ins.item_ids[code] for code in check_ins.items]
    return list(zip(users, items, check_ins.timestamps.tolist(), strict=True))


@settings(max_examples=60)
@given(data=st.data(), ending=st.sampled_from(["csv", "tsv"]))
def test_tables_come_back_as_they_were_written(folder, data, ending):
    written = data.draw(st.lists(st.tuples(ID, ID, TIME), max_size=8))
    line_end = data.draw(st.sampled_from(["\n", "\r\n"]))
    quoting = data.draw(st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
    text = io.StringIO()
    writer = csv.writer(text, delimiter=DELIMITERS[ending], lineterminator=line_end, quoting=quoting)
    writer.writerow(["note", "t", "u", "i"])
    writer.writerows([data.draw(st.sampled_from(["", "é", "two\nlines"])), t, u, i] for u, i, t in written)
    content = data.draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + text.getvalue().encode()
    zipped = data.draw(st.booleans())
    path = folder / f"round.{ending}{'.gz' if zipped else ''}"
    path.write_bytes(gzip.compress(content) if zipped else content)
    check_ins = read(path, quote="double", multiline_fields=True)
    assert rows(check_ins) == written
    assert (check_ins.rows_read, check_ins.skipped) == (len(written), {})


@settings(max_examples=60)
@given(data=st.data(), format=st.sampled_from(["snap", "triples"]))
def test_layouts_without_a_header_come_back_as_they_were_written(folder, data, format):
    name = BARE_ID[format]
    pairs = data.draw(st.lists(st.tuples(name, name), min_size=1, max_size=8))
    line = "{}\t1970-01-01T00:00:01Z\t1\t2\t{}\n" if format == "snap" else "{} {}\t1\n"
    path = folder / "round.txt"
    path.write_bytes("".join(line.format(*pair) for pair in pairs).encode())
    times = [1_000_000] * len(pairs) if format == "snap" else range(len(pairs))
    assert rows(read(path, format)) == [(*pair, time) for pair, time in zip(pairs, times, strict=True)]


def test_a_vertical_tab_is_part_of_an_id(folder):
    path = folder / "words.txt"
    path.write_bytes(b"1\x0bb a 1\n1\x0bb 1\n1 b 1\n")
    check_ins = read(path, "triples", skip_bad_rows=True)
    assert rows(check_ins) == [("1\x0bb", "a", 0), ("1", "b", 1)]
    assert list(check_ins.skipped.values()) == [1]


def test_a_byte_order_mark_behind_the_header_is_part_of_an_id(folder):
    path = folder / "mark.csv"
    path.write_bytes(b'u,i,t\n\xef\xbb\xbf"a",p,5\nb,p,6\n')
    assert rows(read(path)) == [('\ufeff"a"', "p", 5), ("b", "p", 6)]


@pytest.mark.parametrize("end", ["", "\n", "\r\n\n"])
def test_a_quotation_mark_that_is_open_at_the_end_of_a_file_is_no_row(folder, end):
    path = folder / "open.csv"
    path.write_text(f'u,i,t\n1,a,5\n1,b,"6{end}', newline="")
    check_ins = read(path, skip_bad_rows=True)
    assert rows(check_ins) == [("1", "a", 5)]
    assert sum(check_ins.skipped.values()) == 1


def slow_columns(content, format):
    """The needed columns and the number of misfits, line by line by Python's csv module; None for no table."""
    lines = content.removeprefix(b"\xef\xbb\xbf").splitlines()
    records = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        delimiter, text = DELIMITERS[format], line.decode("latin-1")
        if delimiter is None:
            fields = re.findall(rb"[^ \t\f]+", line)
        else:
            quoted = format == "csv" or (format == "tsv" and all(is_quoted(name) for name in lines[0].split(b"\t")))
            quoting = csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE
            # A line that leaves a quotation mark open takes the next one, too.
            first, *rest = csv.reader([text + "\n", "end"], delimiter=delimiter, quoting=quoting)
            fields = [field.encode("latin-1") for field in first] if rest else [b"open"]
        records.append((number, fields))
    needed, width = NEEDED.get(format), FIELDS.get(format)
    if needed is None:
        if not records or records[0][0] != 1:
            return None
        (_, header), *records = records
        if any(header.count(name.encode()) != 1 for name in COLUMNS.values()):
            header = [name.strip(b" ") for name in header]
        if any(header.count(name.encode()) != 1 for name in COLUMNS.values()) or not is_utf_8([lines[0]]):
            return None
        needed, width = [header.index(name.encode()) for name in COLUMNS.values()], len(header)
    fitting = [fields for _, fields in records if len(fields) >= width and not any(fields[width:])]
    columns = [[fields[place] for fields in fitting] for place in needed]
    return columns, len(records) - len(fitting)


def is_quoted(name):
    return len(name) > 1 and name[:1] == name[-1:] == b'"' and b'"' not in name[1:-1]


def is_utf_8(fields):
    with contextlib.suppress(UnicodeDecodeError):
        return bool([field.decode() for field in fields])
    return False


@settings(max_examples=300)
@given(data=st.data(), format=st.sampled_from(list(VALID)))
def test_damaged_files_are_read_as_a_slow_reader_reads_them_and_refused_where_it_cannot(folder, data, format):
    path = folder / "damaged"
    content = data.draw(damaged(VALID[format], TEXT_SCRAPS))
    path.write_bytes(content)
    expected, found = slow_columns(content, format) if content.strip(b"\xef\xbb\xbf") else None, None
    with refusing(path):
        # Which separator a damaged header has is another question.
        layout = find_layout(str(path), format, COLUMNS, Reading(separator=SEPARATOR[format]))
        table = read_text_table(str(path), layout)
        columns = [column for column in (table.users, table.items, table.times) if column is not None]
        found = [column.cast("binary").to_pylist() for column in columns], sum(table.misfits.values())
    assert found == expected


@settings(max_examples=200)
@given(data=st.data(), name=st.sampled_from(["in.csv", "in.tsv.gz", "in.txt", "in.csv.gz"]))
def test_rows_of_damaged_files_are_used_or_counted_as_skipped(folder, data, name):
    path = folder / name
    layout = {"in.txt": data.draw(st.sampled_from(["snap", "triples"])), "in.tsv.gz": "tsv"}.get(name, "csv")
    content = data.draw(damaged(VALID[layout], TEXT_SCRAPS))
    if name.endswith(".gz"):
        content = gzip.compress(content, mtime=0)
        content = data.draw(st.one_of(st.just(content), damaged(content)))
    path.write_bytes(content)
    with refusing(path) as not_all:
        strict = read(path)
        assert strict.skipped == {}
    with refusing(path) as refused:
        lenient = read(path, skip_bad_rows=True)
    if refused:
        assert not_all
        return
    assert lenient.rows_read == len(lenient.users) + sum(lenient.skipped.values())
    assert bool(lenient.skipped) == bool(lenient.first_skipped) == bool(not_all)
    if not_all:
        assert not_all.message == f"{lenient.first_skipped}; mend it or pass --skip_bad_rows"
    else:
        assert rows(strict) == rows(lenient)


@settings(max_examples=150)
@given(
    content=st.one_of(st.binary(max_size=60), st.lists(st.sampled_from(TEXT_SCRAPS), max_size=12).map(b"".join)),
    name=st.sampled_from(["in.csv", "in.tsv", "in.txt", "in.csv.gz", "in.parquet"]),
    format=st.sampled_from(["auto", "parquet", *LAYOUTS]),
)
def test_anything_at_all_is_rows_or_one_sentence(folder, content, name, format):
    path = folder / name
    path.write_bytes(content)
    for skip_bad_rows in (False, True):
        with refusing(path):
            check_ins = read(path, format, skip_bad_rows)
            assert check_ins.rows_read == len(check_ins.users) + sum(check_ins.skipped.values())


# A word in quotation marks, an escaped one, a stray mark, separators and line ends inside of fields, other alphabets.
FIELDS_AS_THEY_COME = (
    *("a", "b7", "12", "4.5", "", " ", "x y", "Café", "日本", "1588687728", "2020-05-05 10:00:00", "1.3e9", "NULL"),
    *('"q"', '"open', 'close"', '"', '""', '"a""b"', '"a,b"', '"two\nlines"', '\\"', "back\\", '12" mix', "'"),
    *("#", "\u2028", "\x85", "\x0c", "\x01", "\0", "::", "{", '{"u": 1, "i": 2, "t": 3}', "[1]", "u", "i", "t"),
)
HEADS = {
    "csv": "u{0}i{0}t{0}title",
    "tsv": "u{0}i{0}t{0}title",
    "recbole": "u:token{0}i:token{0}t:float{0}title:token_seq",
}


@st.composite
def text_files(draw):
    """Content, the format or "auto", and flags of reading."""
    format = draw(st.sampled_from(LAYOUTS))
    usual = {"tsv": "\t", "recbole": "\t", "snap": "\t", "foursquare": "\t", "movielens": "::", "csv": ","}.get(
        format, " "
    )
    separator = draw(st.sampled_from([usual] * 3 + [",", ";", "\t", "|", " ", "::"]))
    width = draw(st.sampled_from({"snap": [5], "foursquare": [8, 4]}.get(format, [4])))
    lines = []
    for _ in range(draw(st.integers(0, 8))):
        if format == "jsonl" and draw(st.booleans()):
            values = draw(st.lists(st.sampled_from(FIELDS_AS_THEY_COME), min_size=3, max_size=3))
            lines.append(json.dumps(dict(zip("uit", values, strict=True)), ensure_ascii=draw(st.booleans())))
            continue
        count = draw(st.sampled_from([width] * 5 + [0, 1, width + 1, width - 1]))
        fields = [draw(st.sampled_from(FIELDS_AS_THEY_COME)) for _ in range(count)]
        good = draw(st.booleans()) and count == width
        times = {"snap": 1, "foursquare": 2 if width == 4 else 7}.get(format, 3 if format == "movielens" else 2)
        if good:
            fields[times] = str(draw(st.integers(0, 9)))
        lines.append(separator.join(fields))
    if format in HEADS and draw(st.integers(0, 9)):
        lines.insert(0, HEADS[format].format(separator))
    for _ in range(draw(st.integers(0, 2))):
        lines.insert(draw(st.integers(0, len(lines))), "")
    ends = draw(st.sampled_from([["\n"], ["\r\n"], ["\r"], ["\n", "\r\n", "\r"]]))
    text = "".join(line + draw(st.sampled_from(ends)) for line in lines)
    text = text.rstrip("\r\n") if draw(st.integers(0, 3)) == 0 else text
    encoding = draw(st.sampled_from(["", "", "", "latin-1", "utf-16", "utf-8-sig"]))
    content = text.encode(encoding or "utf-8", "replace")
    if draw(st.integers(0, 5)) == 0:
        content = draw(damaged(content, TEXT_SCRAPS))
    reading = {
        "separator": draw(st.sampled_from(["", "", separator if separator != "\t" else "tab"])),
        "skip_lines": draw(st.sampled_from([0, 0, 0, 1, 3])),
        "quote": draw(st.sampled_from(["auto", "auto", "none", "double"])),
        "escape": draw(st.sampled_from(["none", "none", "backslash"])),
        "multiline_fields": draw(st.sampled_from([False, False, True])),
        "encoding": encoding,
    }
    return content, draw(st.sampled_from([format, format, "auto"])), reading


def count_lines(content, encoding):
    """Lines by their ends, as no reader here counts them; None where the content is not of the encoding."""
    if encoding == "utf-16" or (not encoding and content[:2] in (b"\xff\xfe", b"\xfe\xff")):
        try:
            content = content.decode("utf-16", "surrogateescape").encode("utf-8", "surrogateescape")
        except UnicodeError:
            return None
    # In Latin-1 these bytes are three letters.
    content = content if encoding == "latin-1" else content.removeprefix(b"\xef\xbb\xbf")
    *whole, last = re.split(rb"\r\n|\n|\r", content)
    return len(whole) + bool(last), sum(not line for line in whole)


# The release runs it over 20,000 files: RD_TF_TEXT_FILES=20000 pytest tests/hardening/test_text_files.py -k vanishes
FILES = int(os.environ.get("RD_TF_TEXT_FILES", "300"))


@settings(max_examples=FILES, deadline=None, suppress_health_check=list(HealthCheck))
@given(file=text_files())
def test_no_line_vanishes(folder, file):
    content, format, reading = file
    path = folder / "in.txt"
    path.write_bytes(content)
    with refusing(path, "--columns") as refused:
        found = read(path, format, skip_bad_rows=True, **reading)
    if refused:
        return
    counted = count_lines(content, reading["encoding"])
    assert counted, "bytes that are not of the encoding were passed over"
    lines, (total, blank) = found.report.lines, counted
    assert found.rows_read == len(found.users) + sum(found.skipped.values())
    assert lines.total == total
    assert total == lines.head + lines.blank + lines.continued + lines.records
    if "item lists" not in found.report.inputs[0]:
        assert lines.records == found.rows_read
    if not reading["multiline_fields"] and not reading["skip_lines"]:
        assert (lines.blank, lines.continued) == (blank, 0)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(file=text_files(), rating=st.sampled_from(["", "4"]), core=st.integers(1, 2))
def test_the_printed_sums_are_those_of_the_dataset(folder, file, rating, core):
    content, format, reading = file
    path, dataset, printed = folder / "in.txt", folder / "dataset", io.StringIO()
    path.write_bytes(content)
    flags = {"input": [str(path)], "dataset": str(dataset), "format": format, "skip_bad_rows": True, "force": True}
    flags |= COLUMNS | reading | {"min_rating": rating, "value_column": "title", "min_user_items": core}
    refusals = (path, "nothing remains: ", "--input: no row can be used", "--columns")
    with refusing(*refusals) as refused, contextlib.redirect_stdout(printed):
        prepare(**default_flags(prepare) | flags)
    if refused:
        return
    sums = {}
    for name in ("lines", "sum"):
        said = re.search(rf"^{name} +(.*)$", printed.getvalue(), re.MULTILINE)[1]
        whole, *parts = (int(each.replace(",", "")) for each in re.findall(r"[\d,]+", said))
        assert whole == sum(parts)
        sums[name] = whole, parts[-1]
    manifest = load_manifest(dataset)
    assert sums["sum"] == (manifest["source"]["rows_read"], manifest["interactions"])
    assert sums["lines"][0] == count_lines(content, reading["encoding"])[0]


@pytest.mark.parametrize(("format", "line"), [("csv", b"b,\xe9,2,3\n"), ("snap", b"\xe9\t1970-01-01\n")])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_line_of_too_many_fields_that_is_no_utf_8_is_named_and_skipped(folder, format, line, mark):
    head = b"u,i,t\n\xc3\xa9,p,1\n" if format == "csv" else b"\xc3\xa9\t1970-01-01T00:00:01Z\t1\t2\tp\n"
    path = folder / "latin"
    path.write_bytes(mark + head + line)
    with pytest.raises(InputError, match=r"latin, line \d: [24] fields instead of [35] \(b'.*\\xe9.*'\); mend it"):
        read(path, format)
    check_ins = read(path, format, skip_bad_rows=True)
    assert [row[:2] for row in rows(check_ins)] == [("é", "p")]
    assert check_ins.skipped == {"wrong number of fields": 1}

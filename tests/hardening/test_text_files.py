"""Text files of check-ins: read back as written, and damaged ones read as they stand or refused, never half."""

import contextlib
import csv
import gzip
import io

import pytest
from damage import TEXT_SCRAPS, damaged, refusing
from hypothesis import given, settings
from hypothesis import strategies as st

from rd_tf.data.readers.check_ins import CheckIns, read_check_ins
from rd_tf.data.readers.text import read_text_table, records
from rd_tf.storage import InputError

COLUMNS = {"user_column": "u", "item_column": "i", "time_column": "t"}
VALID = {
    "csv": b'u,i,t\n"a",p,5\nb,"q,1",6\nc,"say ""r""",7.5\n',
    "tsv": b"x\tt\tu\ti\n\t2012-01-01\ta\tp\n1\t2012-01-02T03:04:05Z\tb\tq\n",
    "snap": b"0\t2010-10-19T18:55:27Z\t30.2\t-97.7\t22847\n0\t2010-10-18T00:00:01Z\t30.2\t-97.7\t420315\n",
    "triples": b"1 a 1\n1\tb   1\n2 c 4\n",
}
DELIMITERS = {"csv": ",", "tsv": "\t", "snap": "\t", "triples": None}
NEEDED = {"snap": [0, 4, 1], "triples": [0, 1]}
FIELDS = {"snap": 5, "triples": 3}
# Where no header comes first, a byte-order mark that is part of an id cannot be told from one that is none.
ID = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\ufeff"), min_size=1, max_size=8)
BARE_ID = {
    "snap": ID.filter(lambda name: "\t" not in name),
    "triples": ID.filter(lambda name: not set(name) & set(" \t\f\x01")),
}
TIME = st.integers(-(2**63), 2**63 - 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("in")


def read(path, format="auto", skip_bad_rows=False):
    return read_check_ins([str(path)], format, COLUMNS, skip_bad_rows)


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
    check_ins = read(path)
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


def slow_columns(path, format):
    """The needed columns and the number of misfits as Python's csv module reads them; None for no table."""
    try:
        lines = list(records(str(path), DELIMITERS[format], quoted=format in ("csv", "tsv")))
    except InputError:
        return None
    needed, width = NEEDED.get(format), FIELDS.get(format)
    if needed is None:
        if not lines or lines[0][0] != 1:
            return None
        (_, header), *lines = lines
        if any(header.count(name) != 1 for name in COLUMNS.values()) or not is_utf_8(header):
            return None
        needed, width = [header.index(name) for name in COLUMNS.values()], len(header)
    fitting = [fields for _, fields in lines if len(fields) == width]
    columns = [[fields[place].encode("latin-1") for fields in fitting] for place in needed]
    return columns, len(lines) - len(fitting)


def is_utf_8(fields):
    with contextlib.suppress(UnicodeDecodeError):
        return bool([field.encode("latin-1").decode() for field in fields])
    return False


@settings(max_examples=300)
@given(data=st.data(), format=st.sampled_from(list(VALID)))
def test_damaged_files_are_read_as_a_slow_reader_reads_them_and_refused_where_it_cannot(folder, data, format):
    path = folder / "damaged"
    path.write_bytes(data.draw(damaged(VALID[format], TEXT_SCRAPS)))
    found = None
    with refusing(path):
        table = read_text_table(str(path), format, COLUMNS)
        columns = [column for column in (table.users, table.items, table.times) if column is not None]
        found = [column.cast("binary").to_pylist() for column in columns], table.misfits
    assert found == slow_columns(path, format)


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
    format=st.sampled_from(["auto", "csv", "tsv", "snap", "triples", "parquet"]),
)
def test_anything_at_all_is_rows_or_one_sentence(folder, content, name, format):
    path = folder / name
    path.write_bytes(content)
    for skip_bad_rows in (False, True):
        with refusing(path):
            check_ins = read(path, format, skip_bad_rows)
            assert check_ins.rows_read == len(check_ins.users) + sum(check_ins.skipped.values())


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

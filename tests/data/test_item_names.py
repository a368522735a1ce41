"""--item_names: titles of the items, kept beside the dataset."""

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rd_tf.command_line import default_flags
from rd_tf.data.dataset import load_dataset, read_item_names
from rd_tf.prepare import prepare, read_titles
from rd_tf.storage import InputError

CHECK_INS = "user_id,item_id,timestamp\nu,1,1\nu,29,2\nv,1193,3\nv,1,4\n"
LAYOUTS = {
    "comma": 'movieId,title,genres\n1,"Toy Story, the film",Comedy\n29,"A ""City""",Drama\n1193,,x\n',
    "two columns": '1,"Toy Story, the film"\n29,"A ""City"""\n',
    "semicolon": '1;Toy Story, the film;x\n29;"A ""City""";y\n',
    "tab": 'id\ttitle\n1\tToy Story, the film\n29\tA "City"\n',
    "bar": '1|Toy Story, the film|01-Jan-1995||0|1\n\n29|A "City"|01-Jan-1995||0|0\n',
    "colons": '1::Toy Story, the film::Comedy\r\n29::A "City"::Drama\r\n',
    "byte order mark": '\ufeff1,"Toy Story, the film"\n29,"A ""City"""\n1,a second title\n',
}


def run(tmp_path, **flags):
    (tmp_path / "a.csv").write_text(CHECK_INS)
    given = {"input": [str(tmp_path / "a.csv")], "dataset": str(tmp_path / "d")}
    return prepare(**default_flags(prepare) | given | flags)


def files(directory):
    return {path.name: path.read_bytes() for path in Path(directory).iterdir()}


@pytest.fixture
def titles(tmp_path):
    def write(text, name="names.csv"):
        content = text if isinstance(text, bytes) else text.encode()
        (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        return str(tmp_path / name)

    return write


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["names.csv", "names.csv.gz"])
def test_titles_are_kept_in_the_order_of_the_items(tmp_path, titles, layout, name, capsys):
    run(tmp_path, item_names=titles(LAYOUTS[layout], name))
    names = dict(zip(load_dataset(tmp_path / "d").item_ids, read_item_names(tmp_path / "d"), strict=True))
    assert names == {"1": "Toy Story, the film", "29": 'A "City"', "1193": ""}
    assert "item names          2 of 3 items have one" in capsys.readouterr().out


def test_the_rest_of_a_dataset_is_the_same_without_them(tmp_path, titles):
    run(tmp_path, dataset=str(tmp_path / "bare"))
    assert read_item_names(tmp_path / "bare") is None
    run(tmp_path, item_names=titles(LAYOUTS["comma"]))
    named = files(tmp_path / "d")
    assert named.pop("item_names.txt")
    assert named == files(tmp_path / "bare")


def test_a_dataset_that_is_there_gets_them_and_gets_others(tmp_path, titles):
    run(tmp_path)
    before = files(tmp_path / "d")
    # By the same command with one flag more, and without the input.
    run(tmp_path, item_names=titles("1,one\n"))
    assert sorted(read_item_names(tmp_path / "d")) == ["", "", "one"]
    prepare(**default_flags(prepare) | {"dataset": str(tmp_path / "d"), "item_names": titles("29,other\n")})
    assert sorted(read_item_names(tmp_path / "d")) == ["", "", "other"]
    assert files(tmp_path / "d").items() >= before.items()
    # Not given again, they stay.
    run(tmp_path)
    assert sorted(read_item_names(tmp_path / "d")) == ["", "", "other"]


BAD = {
    "none of its 2 ids, such as 'b', is an item of the dataset, such as '": "a,x\nb,y\n",
    "line 3: it has 3 fields, not 2 as in the first line; quote what holds a comma": "1,x\n29,y\n1193,a, b\n",
    "line 1: it has 1 fields, not an id and a title": "1\n",
    "line 3: a title goes on over the line's end; close its quotes": '1,"one\n29,two\n1193,three"\n',
    "line 2: unexpected end of data; mend its quotes": '1,one\n29,"two',
    "is empty; write a line 'id,title' for every item": "\n\n",
    r"is not UTF-8 \(byte 3\); convert it, with iconv for example": b"1,Am\xe9lie\n"[:2] + b"m\xe9\n",
}


@pytest.mark.parametrize("message", BAD)
def test_a_file_that_cannot_be_used_is_one_sentence_and_nothing_is_written(tmp_path, titles, message):
    with pytest.raises(InputError, match=rf"^--item_names={tmp_path}/names\.csv.*{message}"):
        run(tmp_path, item_names=titles(BAD[message]))
    assert not (tmp_path / "d").exists()


def test_a_file_that_is_not_there_or_cut_is_named(tmp_path, titles):
    with pytest.raises(InputError, match=r"--item_names=/nowhere cannot be read \(No such file or directory\)"):
        run(tmp_path, item_names="/nowhere")
    cut = Path(titles("1,one\n" * 1000, "cut.gz"))
    cut.write_bytes(cut.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"--item_names=.*cut\.gz cannot be read"):
        run(tmp_path, item_names=str(cut))


def test_a_damaged_file_of_names_is_told(tmp_path, titles):
    run(tmp_path, item_names=titles("1,one\n"))
    (tmp_path / "d" / "item_names.txt").write_text("one\n")
    with pytest.raises(InputError, match=r"item_names\.txt holds 1 names for 3 items; give them again with"):
        read_item_names(tmp_path / "d")


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_are_titles_or_one_sentence(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("any") / "names.csv"
    path.write_bytes(content)
    try:
        shown = [*read_titles(str(path)).values()]
    except InputError as error:
        shown = [str(error)]
    # A sentence may show a path, and is on one line.
    assert all(text.isprintable() for text in shown)

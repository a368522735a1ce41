"""Flagfiles that are damaged: a usage error, or one sentence of the command, and nothing written."""

import contextlib
import io
import os
from pathlib import Path

import pytest
from damage import damaged
from hypothesis import given, settings
from hypothesis import strategies as st

from rd_tf.command_line import default_flags, flag_lines, parse, run
from rd_tf.evaluate import evaluate
from rd_tf.export import export
from rd_tf.prepare import prepare
from rd_tf.teach import teach
from rd_tf.train import train

COMMANDS = {command.__name__: command for command in (prepare, train, teach, evaluate, export)}
# None of these is there, so that a flagfile that is still one ends in the command's own sentence.
PATHS = {"dataset": "d", "run_dir": "r", "teacher": "t", "input": ["in.csv"], "cache": "c", "export_dir": "e"}
SCRAPS = (
    *(b"\n", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf", b"--", b"-", b"=", b"#", b"//", b'"', b",", b"--no", b"x" * 300),
    *(b"\n--flagfile=", b"\n--flagfile\n", b"\n--flagfile=flags.cfg\n", b"\n--flagfile=.\n", b"\n--flagfile=a\0b\n"),
    *(b"\n--undefok=dim\n", b"\n--help\n", b"nan", b"1e400", b"9" * 5000, b"0x10", b"true", b"--dim=", b"\n--dim\n"),
)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    before, path = Path.cwd(), tmp_path_factory.mktemp("here")
    os.chdir(path)
    yield path
    os.chdir(before)


def ended(command, path):
    """The exit code and the lines of standard error."""
    with contextlib.redirect_stderr(io.StringIO()) as errors, pytest.raises(SystemExit) as end:
        run(command, [f"--flagfile={path}"])
    return end.value.code, errors.getvalue().splitlines()


@settings(max_examples=200)
@given(data=st.data(), name=st.sampled_from(list(COMMANDS)))
def test_a_damaged_flagfile(here, data, name):
    command = COMMANDS[name]
    flags = default_flags(command)
    content = flag_lines({**flags, **{flag: value for flag, value in PATHS.items() if flag in flags}}).encode()
    (here / "flags.cfg").write_bytes(data.draw(damaged(content, SCRAPS)))
    code, lines = ended(command, here / "flags.cfg")
    assert code in (1, 2)
    assert lines[-1].startswith("error: ")
    assert len(lines) == 1
    assert [path.name for path in here.iterdir()] == ["flags.cfg"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"--dim=3\n--dataset=\xff\n", "flags.cfg, line 2: a flagfile cannot be read ('utf-8' codec can't decode byte"),
        (b"\n--flagfile=a\0b\n", r"flags.cfg, line 2: Unable to open flagfile 'a\x00b' (embedded null byte)"),
        (b"--flagfile=.\n", "flags.cfg, line 1: Unable to open flagfile '.' (Is a directory)"),
        (b"--flagfile\n", "flags.cfg, line 1: --flagfile names no file"),
        (b"# d\n\n--dim=0\n", "flags.cfg, line 3: flag --dim=0: 0 is not an integer in the range"),
        (b"--dim=8\r\n--dmi=3\r\n", "flags.cfg, line 2: Unknown flag 'dmi'"),
        (b"--dim=8\nrun\n", "flags.cfg, line 2: unexpected word 'run'"),
        (b"--dim\n", "flags.cfg, line 1: Missing value for flag --dim"),
        (b"--dataset=a\0b\n", r"error: flag --dataset='a\x00b' holds a NUL or is not UTF-8"),
        (b"--run_dir=r\n--dataset=" + b"x" * 300, "x: file name too long; name another path or mend this one"),
        (b"#" * 2**20 + b"\n", "flags.cfg is larger than 1 MiB"),
    ],
)
def test_flagfiles_that_are_no_text_or_hold_no_flags(here, content, message):
    (here / "flags.cfg").write_bytes(content)
    code, lines = ended(train, here / "flags.cfg")
    assert code == (1 if b"run_dir" in content else 2)
    assert message in lines[-1]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"flags.cfg": "--flagfile=flags.cfg\n"}, "flags.cfg, line 1: flagfile flags.cfg leads back to itself"),
        ({"flags.cfg": "--flagfile=b\n", "b": "\n--flagfile=./flags.cfg"}, "b, line 2: flagfile flags.cfg leads back"),
        ({"flags.cfg": "--flagfile=b\n" * 1000, "b": ""}, "flagfile b is one of more than 1,000; use fewer"),
    ],
)
def test_flagfiles_in_a_circle_and_without_end_are_refused(tmp_path, monkeypatch, files, message):
    monkeypatch.chdir(tmp_path)
    for name, content in files.items():
        Path(name).write_text(content)
    code, lines = ended(train, tmp_path / "flags.cfg")
    assert (code, len(lines)) == (2, 1)
    assert message in lines[0]


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/urandom"])
def test_a_flagfile_without_an_end_is_refused_at_once(path):
    code, lines = ended(train, path)
    assert (code, lines) == (2, [lines[0]])
    assert f"flagfile {path} is larger than 1 MiB; name a file of flags" in lines[0]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_a_flagfile_as_editors_write_it(tmp_path, encoding, line_end):
    lines = [
        "--dim=7",
        "  # a comment",
        "\t// another",
        "--epochs=3  # few",
        "  --dataset=http://a#b/é",
        "",
        "--split=all",
    ]
    (tmp_path / "flags.cfg").write_bytes(line_end.join(lines).encode(encoding))
    values = parse(train, [f"--flagfile={tmp_path / 'flags.cfg'}", "--split=validation"])
    assert (values["dim"], values["epochs"], values["dataset"]) == (7, 3, "http://a#b/é")
    assert values["split"] == "validation"


@pytest.mark.parametrize("directory", ["a #1/r", r"a \#1", r"a \\# b", "#1", "a#"])
def test_flags_with_a_number_sign_are_written_and_read_as_they_are(tmp_path, directory):
    values = parse(train, [f"--run_dir={directory}"])
    (tmp_path / "flags.cfg").write_text(flag_lines(values))
    assert parse(train, [f"--flagfile={tmp_path / 'flags.cfg'}"]) == values


def test_a_flagfile_may_be_a_pipe_and_be_named_twice(tmp_path):
    (tmp_path / "flags.cfg").write_text("--dim=7\n")
    reading, writing = os.pipe()
    os.write(writing, b"--epochs=3\n")
    os.close(writing)
    file = f"--flagfile={tmp_path / 'flags.cfg'}"
    values = parse(train, [file, "--dim=8", f"--flagfile=/dev/fd/{reading}", file])
    os.close(reading)
    assert (values["dim"], values["epochs"]) == (7, 3)


def test_an_argument_that_is_not_utf_8_is_a_usage_error():
    with contextlib.redirect_stderr(io.StringIO()) as errors, pytest.raises(SystemExit) as end:
        run(train, [os.fsdecode(b"--dataset=\xff")])
    assert (end.value.code, "is not UTF-8" in errors.getvalue()) == (2, True)

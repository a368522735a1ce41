"""Flagfiles that are damaged: a usage error, or one sentence of the command, and nothing written."""

import contextlib
import io
import os
from pathlib import Path

import pytest
from damage import damaged
from hypothesis import given, settings
from hypothesis import strategies as st

from rd_tf.command_line import default_flags, flag_lines, run
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
    assert all(line.startswith(("error: ", "Warning: Hit circular")) for line in lines)
    assert [path.name for path in here.iterdir()] == ["flags.cfg"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"--dataset=\xff\n", "error: a flagfile cannot be read ('utf-8' codec can't decode byte 0xff"),
        (b"--flagfile=a\0b\n", "error: a flagfile cannot be read (embedded null byte)"),
        (b"--dataset=a\0b\n", r"error: flag --dataset='a\x00b' holds a NUL or is not UTF-8"),
        (b"--run_dir=r\n--dataset=" + b"x" * 300, "x: file name too long; name another path or mend this one"),
    ],
)
def test_flagfiles_that_are_no_text_or_name_no_path(here, content, message):
    (here / "flags.cfg").write_bytes(content)
    code, lines = ended(train, here / "flags.cfg")
    assert code == (1 if b"run_dir" in content else 2)
    assert message in lines[-1]


def test_an_argument_that_is_not_utf_8_is_a_usage_error():
    with contextlib.redirect_stderr(io.StringIO()) as errors, pytest.raises(SystemExit) as end:
        run(train, [os.fsdecode(b"--dataset=\xff")])
    assert (end.value.code, "is not UTF-8" in errors.getvalue()) == (2, True)

"""Commands as a user meets them: help, usage errors, one sentence for trouble."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from pipelines.distill import distill
from rd_tf import command_line
from rd_tf.storage import InputError
from rd_tf.train import train

ROOT = Path(__file__).parents[1]
COMMANDS = [
    "rd_tf.prepare",
    "rd_tf.train",
    "rd_tf.teach",
    "rd_tf.evaluate",
    "rd_tf.export",
    "pipelines.distill",
    "pipelines.tune",
    "pipelines.beam.prepare",
    "pipelines.beam.teach",
    "pipelines.tfrs_teacher",
]


def call(module, *arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, **options
    )


@pytest.mark.parametrize("module", COMMANDS)
def test_help_lists_every_flag_with_its_default_and_imports_no_tensorflow(module):
    ended = call(module, "--help", env={**os.environ, "PYTHONPROFILEIMPORTTIME": "1"})
    assert ended.returncode == 0
    assert f"Usage: python -m {module}" in ended.stdout
    assert "--dataset  (default: empty)" in ended.stdout
    assert "tensorflow" not in ended.stderr


def test_help_is_in_groups_and_fits_a_terminal(capsys):
    with pytest.raises(SystemExit):
        command_line.run(distill, ["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    titles = [line for line in lines if line.endswith(":") and not line.startswith(" ")]
    assert titles == [
        "Where and what:",
        "Data:",
        "Windows:",
        "Model:",
        "Training:",
        "Distillation:",
        "Evaluation and export:",
        "Publishing:",
        "Pipelines:",
        "Lists of other systems:",
        "Flags from files:",
    ]
    named = [line.split()[0].removeprefix("--").removeprefix("[no]") for line in lines if line.startswith("  --")]
    assert sorted(named) == sorted([*command_line.parameter_names(distill), "flagfile"])


def test_the_home_directory_is_expanded_in_paths_only(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    paths = {"dataset", "run_dir", "teacher", "tfds_data_dir", "tfds_manual_dir", "cache", "export_dir", "gate_against"}
    paths |= {"results", "choice", "input", "windows", "output", "lists", "saved_model", "users"}
    names = {"user_column", "item_column", "runner", "export_name", "optimizer", "host", "signature", "seeds"}
    for name in paths | names:
        values = command_line._define([name])
        values(["", f"--{name}=~/here"])
        expected = "/home/someone/here" if name in paths else "~/here"
        assert values[name].value == ([expected] if isinstance(values[name].default, list) else expected)


def test_the_home_directory_in_lists_flagfiles_and_of_nobody(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "some.cfg").write_text("--run_dir=~/r\n--input=~/a.csv,b.csv,~/c/\n--teacher=~/t,ease\n")
    values = command_line.parse(distill, ["--flagfile=~/some.cfg"])
    assert values["run_dir"] == f"{tmp_path}/r"
    assert values["input"] == [f"{tmp_path}/a.csv", "b.csv", f"{tmp_path}/c/"]
    assert values["teacher"] == f"{tmp_path}/t,ease"
    assert command_line.parse(distill, ["--run_dir=./~/r"])["run_dir"] == "./~/r"
    with pytest.raises(SystemExit):
        command_line.run(train, ["--run_dir=~nobody_here/r"])
    assert "--run_dir=~nobody_here/r: ~nobody_here is nobody's home directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--batch_size=9223372036854775808", "is not an integer in the range [1, 2147483647]"),
        ("--dmi=3", "Unknown flag 'dmi'"),
        ("--dim=0", "flag --dim=0: 0 is not an integer in the range [1, 65536]"),
        ("--dim=wide", "flag --dim=wide"),
        ("--split=dev", "flag --split=dev: value should be one of <validation|test|all|rehearsal>"),
        ("--dropout=1.5", "flag --dropout=1.5: 1.5 is not a number in the range [0.0, 0.999]"),
        ("--position_temperature=inf", "flag --position_temperature=inf: inf is not a finite number"),
        ("--dropout=nan", "flag --dropout=nan: nan is not a finite number"),
        ("--seed=100000000000000000000", "is not an integer in the range [0, 1000000]"),
        ("run", "unexpected word 'run'; every setting is a flag"),
        ("--flagfile=/nowhere.cfg", "Unable to open flagfile"),
    ],
)
def test_a_usage_error_is_one_sentence_and_exit_code_2(argument, message, capsys):
    with pytest.raises(SystemExit) as ended:
        command_line.run(train, [argument])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("error: ")
    assert said.count("\n") == 1


def test_a_flagfile_is_read_and_a_later_flag_wins(tmp_path):
    (tmp_path / "some.cfg").write_text("# a comment\n--dim=7\n--split=validation\n")
    values = command_line.parse(train, [f"--flagfile={tmp_path / 'some.cfg'}", "--dim=9"])
    assert (values["dim"], values["split"], values["epochs"]) == (9, "validation", 15)


def test_flags_of_plug_ins_stand_once_where_a_command_took_them_from_another(monkeypatch):
    monkeypatch.setattr(command_line.plugins, "flag_names", lambda: ["decay", "softness"])

    def command(**flags):
        return flags

    command.flag_names = ["model", "import_module", "decay"]
    assert command_line.parameter_names(command) == ["model", "import_module", "decay", "softness"]


def test_flag_lines_read_back_as_the_same_flags():
    values = command_line.parse(train, ["--dim=3", "--l2=0.5", "--exact_rank", "--cutoffs=1,2"])
    assert command_line.parse(train, command_line.flag_lines(values).splitlines()) == values


def test_a_missing_dataset_is_one_sentence_and_exit_code_1(tmp_path):
    ended = call("rd_tf.train", "--dataset=/nowhere", f"--run_dir={tmp_path / 'run'}")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr == "error: --dataset=/nowhere is not a directory; make one with python -m rd_tf.prepare\n"
    assert not (tmp_path / "run").exists()


def test_a_run_directory_in_use_is_refused_with_the_process_named(tiny_dataset, tmp_path):
    held = (
        "import sys, time; from rd_tf import storage\n"
        "with storage.directory_lock(sys.argv[1]): print(1, flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", held, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        holder.stdout.readline()
        ended = call("rd_tf.train", f"--dataset={tiny_dataset}", f"--run_dir={tmp_path}")
        assert ended.returncode == 1
        assert f"{tmp_path} is in use by process {holder.pid}" in ended.stderr
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.parametrize(
    ("trouble", "sentence"),
    [
        (InputError("the file is\n  wrong"), "error: the file is wrong\n"),
        (OSError(28, "No space left on device", "/d/x"), "error: no space left on the disk for /d/x; free some and"),
        (RuntimeError("h5: errno = 28, 'No space left on device'"), "error: no space left on the disk; free some"),
        (PermissionError(13, "Permission denied", "/d/x"), "error: /d/x: permission denied; name another path"),
        (OSError(36, "File name too long", "/d/x"), "error: /d/x: file name too long; name another path"),
        (OSError("48 requested and 13 written"), "error: no space left on the disk; free some and"),
        (
            MemoryError("Unable to allocate 4.00 TiB for an array"),
            "error: out of memory (Unable to allocate 4.00 TiB for",
        ),
        (MemoryError(), "error: out of memory; lower --dim, --batch_size, --negatives or --block_size"),
        (
            RuntimeError("OOM when allocating tensor with shape[9,9]"),
            "error: out of memory (OOM when allocating tensor",
        ),
        (OSError(12, "Cannot allocate memory"), "error: out of memory ([Errno 12] Cannot allocate memory); lower"),
        (ImportError("x.so: failed to map segment from shared object"), "error: out of memory (x.so: failed to map"),
    ],
)
def test_trouble_is_one_sentence_and_exit_code_1(trouble, sentence, capsys):
    def command(*, dataset: str) -> None:
        raise trouble

    with pytest.raises(SystemExit) as ended:
        command_line.run(command, [])
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(sentence)


def test_a_bug_keeps_its_traceback():
    def command(*, dataset: str) -> None:
        raise KeyError("bug")

    with pytest.raises(KeyError):
        command_line.run(command, [])


PROGRAM = """
import ctypes, mmap, os, signal, sys, threading, time
from rd_tf import command_line

{definitions}

def command(*, dataset):
    print("begun", flush=True)
{body}

command_line.run(command, [])
"""


def start(tmp_path, body, definitions=""):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(body=textwrap.indent(textwrap.dedent(body), "    "), definitions=definitions))
    process = subprocess.Popen(
        [sys.executable, program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize(
    "body",
    [
        "time.sleep(60)",
        # In a destructor an exception is printed and lost.
        """
        class Slow:
            def __del__(self):
                time.sleep(60)
        Slow()
        time.sleep(60)
        """,
        # In a callback of C code, too.
        """
        ctypes.CFUNCTYPE(None)(lambda: time.sleep(60))()
        time.sleep(60)
        """,
        # Python does not run at all in the main thread.
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})\nctypes.CDLL(None).sleep(60)",
    ],
    ids=["plain", "destructor", "callback", "C code"],
)
def test_sigterm_ends_a_command_within_ten_seconds(body, tmp_path):
    process = start(tmp_path, body)
    # It is within what it does then.
    time.sleep(1)
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    try:
        process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 143
    assert time.monotonic() - begin < 20


def test_what_sigterm_interrupts_may_clean_up(tmp_path):
    body = """
    try:
        time.sleep(60)
    finally:
        time.sleep(2.5)
        open("cleaned", "w").close()
    """
    process = start(tmp_path, body)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (143, "")
    assert (tmp_path / "cleaned").exists()


def test_a_file_that_is_cut_while_it_is_mapped_is_one_sentence(tmp_path):
    body = """
    with open("mapped", "wb+") as file:
        file.write(b"x" * 2**20)
        file.flush()
        mapped = mmap.mmap(file.fileno(), 0)
        file.truncate(0)
        threading.Thread(target=lambda: mapped[2**19]).start()
        time.sleep(60)
    """
    _, errors = (process := start(tmp_path, body)).communicate(timeout=30)
    assert process.returncode == 1
    assert errors.startswith("error: a file that this command was reading was cut")
    assert errors.count("\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half_written(tiny_dataset, tmp_path):
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("this machine does not let us mount a small disk")
    try:
        small = ("--epochs=1", "--dim=16", "--cutoffs=3")
        ended = call("rd_tf.train", f"--dataset={tiny_dataset}", f"--run_dir={tmp_path}/run", *small)
        assert ended.returncode == 1, ended.stderr
        assert ended.stderr.splitlines()[-1].startswith("error: no space left on the disk")
        assert "Traceback" not in ended.stderr
        left = {path.name for path in (tmp_path / "run").iterdir()}
        assert "manifest.json" not in left
        assert not [name for name in left if name.startswith(".tmp-")]
    finally:
        time.sleep(0.1)
        subprocess.run(["umount", "-l", tmp_path], check=True)


@pytest.mark.parametrize("ending", ["", "print('more')", "sys.stdout.flush()"])
def test_output_that_nobody_reads_ends_the_command_without_a_word(ending, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\nfrom rd_tf import command_line\n"
        "def command(*, dataset):\n    print('one', flush=True)\n    sys.stdin.read()\n"
        f"    print('two')\n    {ending}\n"
        "command_line.run(command, [])\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, program], env=environment, text=True, **pipes) as process:
        assert process.stdout.readline() == "one\n"
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.parametrize("argument", ["--help", "--dim=0"])
def test_help_and_errors_into_a_pipe_that_nobody_reads_are_no_traceback(argument):
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "rd_tf.train", argument], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr.count("\n")) == ((141, 0) if argument == "--help" else (2, 1))


def test_a_broken_pipe_to_somebody_else_keeps_its_traceback():
    def command(*, dataset: str) -> None:
        raise BrokenPipeError("a child of ours has ended")

    with pytest.raises(BrokenPipeError):
        command_line.run(command, [])


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["evaluate", "--help"], 0, "Usage: python -m rd_tf.evaluate"),
        (["--help"], 0, "  prepare\n  train\n  teach\n  evaluate\n  recommend\n  show\n  export\n  serve\n  distill\n"),
        (["tarin"], 2, "error: 'tarin' is no command; give one of prepare, train"),
        (["train", "--dim=0"], 2, "flag --dim=0"),
        (["train", "--dataset=/nowhere"], 1, "error: --run_dir is empty"),
    ],
)
def test_the_console_command_runs_the_modules(words, code, said):
    command = [sys.executable, "-c", "from rd_tf.command_line import main; main()", *words]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode == code
    assert said in ended.stdout + ended.stderr

"""README and docs: links lead somewhere, every module and flag that they name exists, and their programs run."""

import importlib
import importlib.util
import re
import shlex
import sys
from pathlib import Path

import pytest

from benchmarks.report import BENCHMARK_FLAGS
from rd_tf import command_line
from rd_tf.command_line import choose, default_flags, parameter_names
from rd_tf.evaluate import evaluate
from rd_tf.flag_definitions import FLAGS
from rd_tf.plugins import DISTILLATION_LOSSES, RANKERS
from rd_tf.storage import InputError
from rd_tf.train import train

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").glob("*.md"))]
# Flags of other programs, which our pages name.
OTHERS_FLAGS = {
    *("help", "flagfile"),
    *("allow_version_labels_for_unavailable_models", "load_retry_interval_micros", "max_num_load_retries"),
    *("model_config_file_poll_wait_seconds", "monitoring_config_file"),
    *("detach", "file", "follow", "force-recreate", "wait"),
    *("manual_dir", "register_checksums"),
    *("logdir", "net", "no-cache-dir", "spark-master-url", "tag"),
}
# Where a command is, unless it has its module's name.
COMMANDS = {
    "pipelines.paper": ("pipelines.paper.__main__", "paper"),
    "pipelines.leaderboard": ("pipelines.leaderboard", "leaderboard"),
    "pipelines.paper.output": ("pipelines.paper.output", "write_pages"),
    "pipelines.beam.prepare": ("pipelines.beam.prepare", "beam_prepare"),
    "pipelines.beam.teach": ("pipelines.beam.teach", "beam_teach"),
}
# What ends a command in a line of a shell.
SHELL = {"&", "|", "&&", ";", "done"}


def names(page):
    return page.relative_to(ROOT).as_posix()


pages = pytest.mark.parametrize("page", PAGES, ids=names)


def code_blocks(page, language=""):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [block for of, block in found if of == language]


def commands(page):
    """Module and arguments of every `python -m` of ours, in blocks and within the text."""
    blocks = [line for block in code_blocks(page) for line in block.replace("\\\n", " ").splitlines()]
    within = re.findall(r"(?<!`)`(python -m [^`]*)`", page.read_text(encoding="utf-8"))
    for line in [*blocks, *(text.replace("\n", " ") for text in within)]:
        # <name> stands for something that a reader has to put there.
        if not re.search(r"python -m (rd_tf|pipelines|benchmarks)\b", line) or re.search(r"<\w+>", line):
            continue
        words = shlex.split(line, comments=True)
        begin = words.index("-m")
        rest = [word for word in words[begin + 2 :] if not word.startswith("$") and word != "..."]
        ends = [place for place, word in enumerate(rest) if word in SHELL]
        yield words[begin + 1], rest[: ends[0]] if ends else rest


def command_of(module):
    """The function that `python -m module` runs."""
    place, name = COMMANDS.get(module, (module, module.rpartition(".")[2]))
    return getattr(importlib.import_module(place), name)


@pytest.fixture
def own_models(tmp_path, monkeypatch):
    """docs/keras.md's module of a ranker and a loss, where it can be imported."""
    (module,) = (block for block in code_blocks(ROOT / "docs" / "keras.md", "python") if "register_ranker" in block)
    (tmp_path / "my_models.py").write_text(module)
    monkeypatch.syspath_prepend(tmp_path)
    before = [(table, dict(table)) for table in (RANKERS, DISTILLATION_LOSSES)]
    yield
    # Forgotten after the test.
    sys.modules.pop("my_models", None)
    for table, plugins in before:
        table.clear()
        table.update(plugins)


def test_the_readme_is_a_front_page():
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


def heading_links(page):
    """The part behind "#" of the links to a page's headings, as GitHub makes it."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_links_lead_somewhere(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"https?:", link):
            continue
        path, _, heading = link.partition("#")
        target = (page.parent / path) if path else page
        if not target.exists() or (heading and heading not in heading_links(target)):
            broken.append(link)
    assert not broken


@pages
def test_modules_names_and_files_exist(page):
    text = page.read_text(encoding="utf-8")
    modules = re.findall(r"python -m ([\w.]+)", text)
    modules += re.findall(r"(?<![\w/.-])(?:rd_tf|pipelines|benchmarks)(?:\.[A-Za-z_]\w*)+", text)
    assert [name for name in sorted(set(modules)) if not exists(name)] == []
    folders = r"(?:rd_tf|pipelines|benchmarks|tests|examples|docs|configs|results/benchmarks)"
    files = re.findall(rf"(?<![\w/.-]){folders}/[\w./-]+", text)
    assert [file for file in sorted(set(files)) if not (ROOT / file.rstrip(".")).exists()] == []


def exists(dotted):
    """Whether a name is a module, or something in one."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        try:
            if importlib.util.find_spec(".".join(parts[:length])) is None:
                continue
        except ModuleNotFoundError:
            continue
        if length == len(parts):
            return True
        found = importlib.import_module(".".join(parts[:length]))
        for name in parts[length:]:
            if not hasattr(found, name):
                return False
            found = getattr(found, name)
        return True
    return False


@pages
def test_flags_exist(page, own_models):
    command_line.import_plugins(["my_models"])
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w-])--([A-Za-z_][\w-]*)", text))
    known = {*FLAGS, *BENCHMARK_FLAGS, *OTHERS_FLAGS}
    assert [name for name in sorted(named) if name not in known and name.removeprefix("no") not in known] == []


@pages
def test_commands_take_the_flags_that_they_are_given(page, own_models, monkeypatch):
    monkeypatch.chdir(ROOT)
    for module, arguments in commands(page):
        command = command_of(module)
        # What a command of the page before writes is not there yet.
        arguments = [argument for argument in arguments if not argument.startswith("--flagfile=results/")]
        if module.startswith("benchmarks."):
            # Their flags are defined where a benchmark is the whole process.
            assert {argument[2:].partition("=")[0] for argument in arguments} <= set(parameter_names(command))
        else:
            command_line.parse(command, arguments)


def test_a_command_with_a_wrong_flag_would_be_noticed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```\nX=1 python -m rd_tf.train --dim=8 \\\n    --dmi=3 &\n```\n")
    ((module, arguments),) = commands(page)
    assert (module, arguments) == ("rd_tf.train", ["--dim=8", "--dmi=3"])
    with pytest.raises(Exception, match="Unknown flag 'dmi'"):
        command_line.parse(command_of(module), arguments)
    assert not exists("rd_tf.models.make_model")
    assert not exists("rd_tf.nowhere.to_be_found")


def test_the_readmes_program_runs(tiny_dataset, tmp_path, monkeypatch):
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "mine").symlink_to(tiny_dataset)
    monkeypatch.chdir(tmp_path)
    (program,) = code_blocks(README, "python")
    assert "epochs=50" in program
    exec(compile(program.replace("epochs=50", "epochs=2"), "README.md", "exec"), {})
    assert (tmp_path / "saved_models" / "mine" / "1" / "saved_model.pb").is_file()
    assert list(tmp_path.glob("logs/train/*tfevents*"))


def test_the_ranker_and_the_loss_of_the_docs_train_by_their_commands(
    own_models, tiny_dataset, tiny_teacher, train_flags, tmp_path
):
    (training, evaluation, _) = (words for _, words in commands(ROOT / "docs" / "keras.md"))
    here = {"dataset": tiny_dataset, "run_dir": str(tmp_path / "run")}
    given = command_line.parse(train, training)
    small = {name: train_flags()[name] for name in ("epochs", "batch_size", "k", "discrepancy_start_epoch")}
    made = train(**{**given, **here, **small, "teacher": tiny_teacher})
    assert made["model"]["class"] == "recency"
    assert made["model"]["config"]["decay"] == 0.7
    assert (made["flags"]["distillation_loss"], made["flags"]["softness"]) == ("my_softmax", 2.0)
    found = evaluate(**{**command_line.parse(evaluate, evaluation), **here})
    assert 0 < found["metrics"]["map"] < 1
    # Of another ranker these flags are none.
    with pytest.raises(InputError, match="--model=gru is not known"):
        train(**choose(train, default_flags(train), **{**here, "run_dir": str(tmp_path / "other"), "model": "gru"}))

"""python -m pipelines.leaderboard: a table of rows, from training to the page."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from pipelines import leaderboard as command
from pipelines.leaderboard import leaderboard
from pipelines.leaderboard_page import _alone, read_row, summarise
from pipelines.leaderboard_row import _lists, job, open_board, read_rows
from pipelines.records import COLUMNS, PER_USER_METRICS, read_per_user
from rd_tf import command_line
from rd_tf.data.windows import open_dataset
from rd_tf.evaluation.evaluator import Evaluator
from rd_tf.evaluation.metrics import compare_paired, holm
from rd_tf.models.registry import load_model
from rd_tf.storage import InputError, read_json, remove

ROOT = Path(__file__).parents[2]
HEADER = "name,dataset,role,teacher,flags\n"
ROWS = f"""{HEADER}# A comment
small-mix,tiny,distilled,mix,--dim=4
small,tiny,alone,,--dim=4

big,tiny,teacher,,--dim=8
popularity,tiny,teacher,popularity,
mix,tiny,teacher,0.7*big + 0.3*popularity,
"""
CONFIG = """--epochs=1
--batch_size=64
--learning_rate=0.01
--ranking_loss=sampled_softmax
--shared_negatives=20
--distillation_loss=listwise
--k=5
--mask=seen
--cutoffs=3,5,10
"""
PAGE = "# Board\n<!-- leaderboard: begin -->\n<!-- leaderboard: end -->\nEnd\n"


def set_up(directory, dataset):
    """Flags of a leaderboard of the tiny dataset, with its files."""
    (directory / "configs").mkdir()
    (directory / "configs" / "tiny.cfg").write_text(CONFIG)
    (directory / "rows.csv").write_text(ROWS)
    (directory / "page.md").write_text(PAGE)
    places = {
        "rows_file": "rows.csv",
        "configs_dir": "configs",
        "run_dir": "runs",
        "results": "results",
        "page": "page.md",
    }
    return {
        **command_line.default_flags(leaderboard),
        **{name: str(directory / path) for name, path in places.items()},
        "datasets_dir": str(Path(dataset).parent),
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_dataset):
    """Flags of a leaderboard that has been run, in this process, and the titles of its chains."""
    flags = set_up(tmp_path_factory.mktemp("board"), tiny_dataset)
    titles = []

    def run_here(chains, *_):
        for chain in chains:
            assert chain.after <= set(titles)
            job(**command_line.parse(job, chain.arguments))
            titles.append(chain.title)
        return []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "run_chains", run_here)
        leaderboard(**flags)
    return flags, titles


@pytest.fixture
def started(monkeypatch):
    """Titles of chains that would have been started; none is."""
    chains = []
    monkeypatch.setattr(command, "run_chains", lambda missing, *_: chains.extend(missing) or [])
    return chains


@pytest.fixture
def flags(tmp_path, tiny_dataset):
    return set_up(tmp_path, tiny_dataset)


@pytest.fixture
def make_board(flags):
    def make(text=ROWS):
        Path(flags["rows_file"]).write_text(text)
        names = ("rows_file", "split", "configs_dir", "datasets_dir", "run_dir", "results")
        return open_board(*(flags[name] for name in names))

    return make


def board_files(flags):
    results = Path(flags["results"])
    return {path: path.read_bytes() for path in (Path(flags["page"]), results / "leaderboard.json")}


def test_rows_come_after_their_teachers_and_no_run_is_done_twice(finished):
    _, titles = finished
    assert titles == [
        *("tiny/big seed-0", "tiny/small-mix seed-0", "tiny/small seed-0"),
        *("tiny/popularity once", "tiny/mix seed-0"),
    ]


def test_the_page_has_a_row_for_every_row_by_falling_map(finished):
    flags, _ = finished
    page = Path(flags["page"]).read_text()
    assert page.startswith("# Board\n")
    assert page.endswith("<!-- leaderboard: end -->\nEnd\n")
    rows = [[cell.strip() for cell in line.split("|")][1:-1] for line in page.splitlines() if line.startswith("| ")]
    table = [cells for cells in rows if cells[1] in ("teacher", "alone", "distilled")]
    assert {cells[0] for cells in table} == {"big", "popularity", "mix", "small", "small-mix"}
    maps = [float(cells[12].strip("*")) for cells in table]
    assert maps == sorted(maps, reverse=True)
    (mix,) = (cells for cells in table if cells[0] == "mix")
    assert mix[2] == "0.7 big + 0.3 popularity"
    against = [cells[:2] for cells in rows if cells[0] == "small-mix" and cells[1] != "distilled"]
    assert [other for _, other in against] == ["small (alone)", "big", "popularity", "mix"]
    assert "](results/frontier.png)" in page
    assert (Path(flags["results"]) / "frontier.png").read_bytes()[1:4] == b"PNG"


def test_the_same_command_trains_nothing_and_writes_the_same(finished, started):
    flags, _ = finished
    before = board_files(flags)
    leaderboard(**flags)
    assert not started
    assert board_files(flags) == before


def test_notrain_writes_the_page_from_the_evidence_alone(finished, tmp_path):
    flags, _ = finished
    before = board_files(flags)
    Path(flags["page"]).write_text(PAGE)
    (Path(flags["results"]) / "leaderboard.json").unlink()
    nowhere = dict.fromkeys(("rows_file", "configs_dir", "datasets_dir", "run_dir"), str(tmp_path / "nowhere"))
    leaderboard(**{**flags, **nowhere, "train": False})
    assert board_files(flags) == before


def test_numbers_of_a_row(finished, tiny_dataset):
    flags, _ = finished
    results = Path(flags["results"])
    rows = summarise(results)["datasets"]["tiny"]["rows"]
    big = rows["big"]
    evidence = read_json(results / "tiny" / "big" / "seed-0" / "metrics.json")["metrics"]
    assert {name: big["metrics"][name]["mean"] for name in COLUMNS} == {name: evidence[name] for name in COLUMNS}
    assert big["metrics"]["map"]["std"] is None
    model, data = (
        load_model(Path(flags["run_dir"]) / "tiny" / "big" / "seed-0"),
        open_dataset(tiny_dataset).split("test"),
    )
    assert (big["parameters"], big["bytes"]) == (model.count_params(), 4 * model.count_params())
    assert rows["popularity"]["parameters"] == int(data.is_candidate.sum())
    assert rows["mix"]["parameters"] == rows["big"]["parameters"] + rows["popularity"]["parameters"]
    assert rows["popularity"]["seeds"] == ["once"]
    assert rows["small"]["speed"] > 0
    assert rows["small"]["speed"] == rows["small-mix"]["speed"]
    assert rows["mix"]["speed"] is None
    # The teacher has another seed than the students, and the same model.
    assert model.seed == 1000
    evaluation = Evaluator(data, 5, [10]).evaluate(model)
    counts = np.bincount(data.items, minlength=data.num_items + 1)
    candidates = sorted(np.flatnonzero(data.is_candidate), key=lambda item: (counts[item], item))
    tail = set(candidates[: int(len(candidates) * 0.8)])
    held_out, found = Evaluator(data, 5, [10]).held_out, []
    for begin, end in zip(held_out.target_offsets[:-1], held_out.target_offsets[1:], strict=True):
        ranks = [evaluation.ranks[i] for i in range(begin, end) if held_out.targets[i] in tail]
        found += [np.mean([rank <= 10 for rank in ranks])] if ranks else []
    assert big["tail"]["mean"] == pytest.approx(np.mean(found))


def test_tests_of_a_distilled_row(finished):
    flags, _ = finished
    results = Path(flags["results"])
    row = summarise(results)["datasets"]["tiny"]["rows"]["small-mix"]
    assert (row["alone"], row["teacher"], row["distillation_loss"]) == ("small", "mix", "listwise")
    ours, small, popular = (
        read_per_user(results / "tiny" / place) for place in ("small-mix/seed-0", "small/seed-0", "popularity/once")
    )
    for name, other in (("small", small), ("popularity", popular)):
        tests = row["against"][name]
        pairs = [compare_paired(ours[metric], other[metric]) for metric in PER_USER_METRICS]
        corrected = holm(np.array([pair.t_p for pair in pairs]))
        assert tests["metrics"]["map"]["percent"] == pytest.approx(pairs[-1].percent)
        assert [tests["metrics"][column]["t_holm"] for column in COLUMNS] == pytest.approx(corrected)
        above = sum(pair.difference > 0 and p < 0.01 for pair, p in zip(pairs, corrected, strict=True))
        assert tests["above"] == above


def test_the_partner_is_the_best_row_alone_of_the_same_model_size_length_and_loss(finished):
    found = read_row(Path(finished[0]["results"]) / "tiny" / "small")

    def make(role, value, **changed):
        flags = {**found.flags, **changed}
        return dataclasses.replace(
            found,
            manifests={"seed-0": {**found.manifest, "flags": flags}},
            records={"seed-0": {**found.record, "role": role}},
            metrics={"seed-0": {"map": value}},
        )

    rows = {
        "worse": make("alone", 0.1, epochs=9),
        "right": make("alone", 0.2),
        "size": make("alone", 0.9, dim=5),
        "loss": make("alone", 0.9, ranking_loss="pointwise"),
        "model": make("alone", 0.9, model="fossil"),
        "length": make("alone", 0.9, sequence_length=6),
        "role": make("teacher", 0.9),
    }
    assert _alone(make("distilled", 0.3), rows) == "right"
    assert _alone(make("distilled", 0.3, dim=7), rows) is None


def test_only_distilled_rows_are_held_against_others(finished):
    rows = summarise(Path(finished[0]["results"]))["datasets"]["tiny"]["rows"]
    assert rows["small"]["against"] == rows["mix"]["against"] == {}


def test_the_lists_of_a_teacher_are_made_once(finished):
    flags, _ = finished
    board = open_board(
        *(flags[name] for name in ("rows_file", "split", "configs_dir", "datasets_dir", "run_dir", "results"))
    )
    rows = {row.name: row for row in board.chosen([])}
    taught, data = board.taught(rows["small-mix"]), open_dataset(board.dataset(rows["small"])).split("test")
    before = {path: path.stat().st_mtime_ns for path in (board.run_dir / "tiny" / "lists").rglob("*.npy")}
    assert len(before) == 2
    _lists(board, rows["small-mix"], 0, taught, data)
    assert {path: path.stat().st_mtime_ns for path in (board.run_dir / "tiny" / "lists").rglob("*.npy")} == before


def test_a_lost_file_brings_a_row_back_and_a_lost_run_its_teacher(finished, started, tmp_path):
    flags = {**finished[0], "efficiency": False}
    copies = {name: shutil.copytree(flags[name], tmp_path / name) for name in ("results", "run_dir")}
    flags |= {name: str(path) for name, path in copies.items()} | {"page": ""}
    (copies["results"] / "tiny" / "small-mix" / "seed-0" / "history.csv").unlink()
    leaderboard(**flags)
    assert [chain.title for chain in started] == ["tiny/small-mix seed-0"]
    assert started[0].after == {"tiny/big seed-0"}
    started.clear()
    remove(copies["run_dir"] / "tiny" / "big")
    leaderboard(**flags)
    assert [chain.title for chain in started] == ["tiny/big seed-0", "tiny/small-mix seed-0"]


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("alone,,--dim=4", "alone,,--dim=5", r"small/seed-0 was trained with --dim=4, but --dim=5 is wanted now"),
        ("0.7*big", "0.6*big", r"small-mix/seed-0 has another teacher than .*rows.csv, line 3 names now; delete"),
        ("distilled,mix", "distilled,big", r"small-mix/seed-0 has another teacher than .*line 3 names now"),
    ],
)
def test_evidence_of_other_settings_is_refused_before_anything_is_started(
    finished, started, tmp_path, before, after, message
):
    flags = finished[0]
    rows = tmp_path / "rows.csv"
    rows.write_text(ROWS.replace(before, after))
    with pytest.raises(InputError, match=message):
        leaderboard(**{**flags, "rows_file": str(rows)})
    assert not started


def test_evidence_of_a_teacher_that_was_trained_again_is_refused(finished, started, tmp_path):
    flags = finished[0]
    results = shutil.copytree(flags["results"], tmp_path / "results")
    big = results / "tiny" / "big" / "seed-0"
    remove(big)
    shutil.copytree(results / "tiny" / "small" / "seed-0", big)
    with pytest.raises(InputError, match=r"tiny/mix/seed-0 learned from another big than the one in .*tiny/big"):
        summarise(results)


def test_evidence_of_another_split_is_refused(finished, started):
    with pytest.raises(InputError, match="is of the split test, not validation; name another --results"):
        leaderboard(**{**finished[0], "split": "validation"})
    assert not started


def test_chosen_rows_bring_the_teachers_that_they_lack(flags, started):
    leaderboard(**{**flags, "rows": ["*-mix"], "seeds": ["0", "2"]})
    titles = [f"tiny/{name} seed-{seed}" for seed in (0, 2) for name in ("big", "small-mix")]
    assert [chain.title for chain in started] == titles
    assert "No row has been run yet." in Path(flags["page"]).read_text()
    with pytest.raises(InputError, match=r"--rows: caser names no row of .*rows.csv"):
        leaderboard(**{**flags, "rows": ["caser"]})


def test_a_failed_training_is_named_after_the_page_is_written(flags, monkeypatch):
    monkeypatch.setattr(command, "run_chains", lambda *_: ["tiny/big seed-0 ended with 1 (see x.log)"])
    with pytest.raises(InputError, match=r"^tiny/big seed-0 ended with 1 \(see x\.log\); mend it and run the same"):
        leaderboard(**flags)
    assert "No row has been run yet." in Path(flags["page"]).read_text()


def test_whom_rows_learn_from(make_board):
    lines = "one,tiny,distilled,mix,\ntwo,tiny,distilled,ease,\nthree,tiny,distilled,2*big+popularity,--fusion=rrf\n"
    board = make_board(f"{ROWS}{lines}ease,tiny,teacher,ease,--ease_l2=7\n")
    taught = {row.name: board.taught(row) for row in board.chosen([])}
    assert taught["big"] is None
    assert (taught["one"].name, taught["one"].parts) == ("mix", {"big": 0.7, "popularity": 0.3})
    assert (taught["one"].fusion, taught["one"].ease_l2) == ("zscore", 0.0)
    assert (taught["two"].name, taught["two"].parts, taught["two"].fusion) == ("ease", {"ease": 1.0}, "")
    assert taught["two"].ease_l2 == 7.0
    assert (taught["three"].parts, taught["three"].fusion) == ({"big": 2.0, "popularity": 1.0}, "rrf")
    folders = {row.name: board.folder(row, 3) for row in board.chosen([])}
    assert {name for name, folder in folders.items() if folder == "once"} == {"popularity", "ease"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no row"),
        (HEADER, "has no row"),
        ("name,role\na,alone\n", "line 1: the first line must be name,dataset,role,teacher,flags; received name,role"),
        (f"{HEADER}\n# c\na,d,alone\n", "line 4: it has 3 columns, not the 5"),
        (f"{HEADER}a b,d,alone,,\n", "line 2: the name 'a b' must be of letters"),
        (f"{HEADER}a,../d,alone,,\n", "line 2: the dataset '../d' must be of letters"),
        (f"{HEADER}a,d,student,,\n", "line 2: the role 'student' is none of teacher, alone, distilled"),
        (f"{HEADER}a,d,alone,ease,\n", "line 2: a row alone has no teacher; received 'ease'"),
        (f"{HEADER}a,d,distilled,,\n", "line 2: a row distilled needs a teacher"),
        (f"{HEADER}a,d,alone,,\na,d,alone,,\n", "line 3: d/a stands in line 2 already"),
        (f"{HEADER}a,d,distilled,0*ease,\n", "line 2: the teacher '0*ease' cannot be read"),
        (f"{HEADER}a,d,distilled,ease+ease,\n", "line 2: the teacher 'ease+ease' cannot be read"),
        (
            f"{HEADER}a,d,distilled,b,\n",
            "line 2: the teacher b is neither a row of d with the role teacher nor one of ease",
        ),
        (
            f"{HEADER}b,d,alone,,\na,d,distilled,b,\n",
            "line 3: the teacher b is neither a row of d with the role teacher",
        ),
        (f"{HEADER}f,d,teacher,ease+popularity,\na,d,distilled,f+ease,\n", "line 3: the teacher f is made of others"),
        (f"{HEADER}ease,d,alone,,\n", "line 2: ease is the name of a teacher that is solved"),
        (f"{HEADER}a,d,alone,,--dim='4\n", "line 2: the flags cannot be read"),
        (f'{HEADER}a,d,alone,,"--dim=4\n', "line 2: it is no line of a table"),
    ],
)
def test_a_wrong_table_is_refused_in_a_sentence_with_its_line(tmp_path, text, message):
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_rows(str(path))
    assert message in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--dmi=4", "rows.csv, line 2: Unknown flag 'dmi'"),
        ("--dim=x", "rows.csv, line 2: "),
        ("--seed=3", "rows.csv, line 2: leave out --seed, which the leaderboard sets itself"),
        ("--cutoffs=3", "rows.csv, line 2: --cutoffs must hold 3,5,10; leave it out"),
        ("--model=gru", "rows.csv, line 2: --model=gru is not known"),
        ("--distillation_loss=mine", "rows.csv, line 2: --distillation_loss=mine is not known"),
    ],
)
def test_wrong_flags_of_a_row_are_refused_before_anything_is_started(flags, started, given, message):
    Path(flags["rows_file"]).write_text(f"{HEADER}a,tiny,alone,,{given}\n")
    with pytest.raises(InputError) as error:
        leaderboard(**flags)
    assert message in str(error.value)
    assert not started


def test_lists_that_the_mask_leaves_too_few_items_for_are_refused_before_the_teacher_is_trained(flags, started):
    Path(flags["rows_file"]).write_text(f"{HEADER}t,tiny,teacher,,\na,tiny,distilled,t,--k=60 --mask=seen\n")
    with pytest.raises(InputError, match=r"rows.csv, line 3: --k=60 is larger than the catalogue .* \(split test\)"):
        leaderboard(**flags)
    assert not started


def test_a_dataset_without_its_file_of_flags_is_refused(flags, started):
    Path(flags["rows_file"]).write_text(f"{HEADER}a,other,alone,,\n")
    with pytest.raises(InputError, match=r"rows.csv, line 2: there is no .*configs/other.cfg"):
        leaderboard(**flags)


def test_a_missing_table_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"--rows_file=.*rows.csv is missing; name a .csv file with the columns"):
        read_rows(str(tmp_path / "rows.csv"))


def test_a_job_takes_one_row_and_one_seed(flags):
    names = command_line.parameter_names(job)
    with pytest.raises(InputError, match="--rows and --seeds name 5 rows and 1 seeds; name one of each"):
        job(**{name: flags[name] for name in names})


def test_the_rows_of_the_repository_can_be_read(monkeypatch):
    monkeypatch.chdir(ROOT)
    values = command_line.parse(leaderboard, ["--flagfile=configs/leaderboard.cfg"])
    names = ("rows_file", "split", "configs_dir", "datasets_dir", "run_dir", "results")
    board = open_board(*(values[name] for name in names))
    datasets = {row.dataset for row in board.chosen([])}
    assert datasets == {"gowalla", "foursquare"}
    for row in board.chosen([]):
        assert board.values(row)["epochs"] > 0
        board.taught(row)
    paper = board.values(board.rows["gowalla/paper-RD"])
    assert (paper["k"], paper["mask"], paper["distillation_loss"], paper["epochs"]) == (
        *(10, "target"),
        *("weighted_pointwise", 50),
    )

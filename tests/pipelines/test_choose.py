"""--teacher=auto: what is tried on the validation split, what is taken, and what the table says of it."""

import dataclasses
import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from pipelines import choose
from pipelines.choose import Choice
from pipelines.distill import distill
from pipelines.report import _show_choice
from rd_tf import command_line
from rd_tf.data.teacher_lists import is_teacher_cache, load_cache_manifest
from rd_tf.data.windows import open_dataset
from rd_tf.run_directory import load_run_manifest
from rd_tf.storage import InputError
from rd_tf.teacher import named
from rd_tf.teacher.named import PopularityTeacher


def arguments(root, dataset, *more):
    return command_line.parse(
        distill,
        [
            f"--dataset={dataset}",
            f"--run_dir={root / 'runs'}",
            f"--export_dir={root / 'exports'}",
            "--teacher=auto",
            "--candidates=large,ease,popularity",
            "--ranking_loss=sampled_softmax",
            "--distillation_loss=listwise",
            "--shared_negatives=40",
            "--mask=seen",
            "--max_k=5",
            "--cutoffs=3,5",
            "--epochs=2",
            "--teacher_dim=8",
            "--student_dim=4",
            "--k=5",
            "--batch_size=64",
            "--learning_rate=0.01",
            *more,
        ],
    )


@pytest.fixture(scope="module")
def flags(tmp_path_factory, tiny_dataset):
    return arguments(tmp_path_factory.mktemp("auto"), tiny_dataset)


@pytest.fixture(scope="module")
def report(flags):
    # Half of the weights that a user's data are tried with.
    with mock.patch.object(choose, "_ALPHAS", (1.0, 10.0)):
        return distill(**flags)


def test_what_was_chosen_is_what_is_trained(report, flags):
    root, choice = Path(flags["run_dir"]), report["choice"]
    assert list(choice["candidates"]) == ["large", "ease", "popularity"]
    best = max(found["map"] for found in choice["candidates"].values())
    assert choice["quality"] >= best
    assert sum(choice["weights"].values()) == pytest.approx(1, abs=1e-3)
    tried = [trial["map"] for trial in choice["trials"]]
    assert len(tried) >= 3
    distilled = load_run_manifest(root / "seed-0" / "distilled")["flags"]
    student = load_run_manifest(root / "seed-0" / "student")["flags"]
    assert (distilled["split"], distilled["epochs"]) == ("test", choice["epochs"]["distilled"])
    assert (student["split"], student["epochs"], student["teacher"]) == ("test", choice["epochs"]["student"], "")
    assert distilled["alpha"] == choice["alpha"]
    if max(tried) > choice["alone"]:
        taken = choice["trials"][int(np.argmax(tried))]
        assert (choice["alpha"], choice["score_temperature"]) == (taken["alpha"], taken["score_temperature"])
    else:
        assert choice["alpha"] == 0
    # Nothing that was tried looked at the test split.
    for run in (root / "auto").glob("*/manifest.json"):
        assert json.loads(run.read_text())["split"] == "rehearsal"
    lists = root / "seed-0" / "teacher"
    assert is_teacher_cache(lists)
    assert load_cache_manifest(lists)["split"] == "test"
    weights = choice["weights"]
    assert report["roles"]["teacher"]["model"] == (next(iter(weights)) if len(weights) == 1 else "fusion")
    assert 0 < report["roles"]["teacher"]["metrics"]["map"] < 1
    assert list(report["teachers"]) == list(choice["weights"])
    for name, against in report["teachers"].items():
        theirs = json.loads((root / "seed-0" / f"teacher-{name}" / "metrics.json").read_text())["metrics"]
        ours = report["roles"]["distilled"]["metrics"]
        assert against["metrics"] == pytest.approx(theirs)
        assert against["gains"]["ap"] == pytest.approx(100 * (ours["map"] / theirs["map"] - 1))
        assert 0 <= against["above"] <= len(against["gains"]) == 5


def test_a_second_call_tries_nothing_again(report, flags, monkeypatch, capsys):
    monkeypatch.setattr(choose._Search, "run", None)
    again = distill(**flags)
    assert again["choice"] == report["choice"]
    assert again["roles"]["distilled"]["metrics"] == report["roles"]["distilled"]["metrics"]
    shown = capsys.readouterr().out
    assert f"choice kept: {flags['run_dir']}/auto/choice.json" in shown
    assert f"teacher kept: {flags['run_dir']}/seed-0/teacher" in shown
    with pytest.raises(TypeError):
        # Other flags are another choice.
        distill(**{**flags, "candidates": ["ease"]})


def test_an_earlier_choice_may_be_given_and_a_teacher_shared(report, flags, tmp_path, monkeypatch):
    monkeypatch.setattr(choose._Search, "run", None)
    made = choose.make_chosen
    monkeypatch.setattr(
        choose, "make_chosen", lambda directory, *more: asked.append(directory.name) or made(directory, *more)
    )
    asked = []
    given = {**flags, "choice": f"{flags['run_dir']}/auto/choice.json", "seeds": ["0", "1"], "one_teacher": True}
    again = distill(**given)
    assert again["choice"] == report["choice"]
    assert asked == ["seed-0"]
    manifests = [load_run_manifest(Path(flags["run_dir"]) / f"seed-{seed}" / "distilled") for seed in (0, 1)]
    assert manifests[0]["teacher"]["teacher"] == manifests[1]["teacher"]["teacher"]
    (tmp_path / "choice.json").write_text('{"choice": {"alpha": 1}}')
    with pytest.raises(InputError, match="does not tell split, candidates, weights, "):
        distill(**{**given, "choice": str(tmp_path / "choice.json")})


def test_the_chosen_lists_teach_another_student_and_tell_how_their_teacher_ranks(report, flags, tmp_path):
    lists = str(Path(flags["run_dir"]) / "seed-0" / "teacher")
    given = {"teacher": lists, "model": "fossil", "run_dir": str(tmp_path / "runs"), "export_dir": str(tmp_path / "e")}
    other = distill(**{**flags, **given, "epochs": 1})
    assert other["roles"]["teacher"] == report["roles"]["teacher"]
    assert other["roles"]["distilled"]["model"] == "fossil"
    # Of another split it says nothing.
    Path(lists, "metrics.json").write_text(Path(lists, "metrics.json").read_text().replace('"test"', '"validation"'))
    assert "teacher" not in distill(**{**flags, **given, "epochs": 1})["roles"]


def search(flags, monkeypatch, qualities):
    """A search whose teachers and trainings have given qualities: (alone, of every trial in turn)."""
    alone, *trials = qualities
    asked = []

    def train(self, name, changed):
        asked.append((name, changed.get("alpha"), changed.get("score_temperature")))
        self._epochs[name] = 7
        return alone if name == "student" else trials[int(name.split("-")[1])]

    monkeypatch.setattr(choose._Search, "_train", train)
    monkeypatch.setattr(choose, "make_lists", lambda *arguments: mock.Mock(score_spread=0.5))
    found = choose._Search(Path(flags["run_dir"]), 0, {**flags, "candidates": ["popularity"]}).run()
    return found, asked


def test_lists_that_do_not_help_get_no_weight(flags, monkeypatch):
    found, asked = search(flags, monkeypatch, [0.3, 0.1, 0.2, 0.25, 0.24, 0.28])
    assert (found.alpha, found.alone, found.epochs) == (0.0, 0.3, {"student": 7, "distilled": 7})
    # Of two temperatures the better one is tried with more weight for as long as that helps, and then not with less.
    assert asked == [
        ("student", None, None),
        ("trial-0", 1.0, 1.0),
        ("trial-1", 1.0, 2.0),
        ("trial-2", 3.0, 2.0),
        ("trial-3", 10.0, 2.0),
    ]
    found, asked = search(flags, monkeypatch, [0.3, 0.2, 0.1, 0.15, 0.31])
    assert [alpha for _, alpha, _ in asked[1:]] == [1.0, 1.0, 3.0, 0.3]
    assert (found.alpha, found.score_temperature) == (0.3, 1.0)


def test_nothing_is_begun_after_the_time_is_up(flags, monkeypatch):
    monkeypatch.setattr(choose._Search, "_train", lambda self, name, changed: self._epochs.setdefault(name, 1) * 0.1)
    monkeypatch.setattr(choose, "make_lists", lambda *arguments: mock.Mock(score_spread=1.0))
    found = choose._Search(Path(flags["run_dir"]), 0, {**flags, "auto_minutes": 1e-9}).run()
    assert list(found.candidates) == ["popularity"]
    assert list(found.skipped) == ["large", "ease", "further trials"]
    assert "--auto_minutes are over" in found.skipped["large"]
    assert len(found.trials) == 1


def test_a_catalogue_too_large_for_ease_is_left_out(flags, monkeypatch):
    monkeypatch.setattr(named, "free_bytes", lambda: 1000)
    monkeypatch.setattr(choose._Search, "_train", lambda self, name, changed: self._epochs.setdefault(name, 1) * 0.1)
    monkeypatch.setattr(choose, "make_lists", lambda *arguments: mock.Mock(score_spread=1.0))
    found = choose._Search(Path(flags["run_dir"]), 0, {**flags, "candidates": ["ease", "popularity"]}).run()
    assert "GB are free" in found.skipped["ease"]


CHOICE = Choice(
    split="rehearsal",
    candidates={"large": {"map": 0.2, "seconds": 1.0}, "ease": {"map": 0.25, "seconds": 1.0}},
    weights={"large": 0.7, "ease": 0.3},
    quality=0.27,
    ease_l2=200.0,
    epochs={"student": 3, "distilled": 4},
    alone=0.21,
    trials=[{"score_temperature": 0.5, "alpha": 1.0, "map": 0.23, "epoch": 4}],
    alpha=1.0,
    score_temperature=0.5,
    seconds=9.0,
    skipped={},
)


def shown(choice, capsys):
    from rich.console import Console

    _show_choice(Console(width=80), dataclasses.asdict(choice))
    return " ".join(capsys.readouterr().out.split())


def test_the_table_says_what_was_taken_and_why(capsys):
    text = shown(CHOICE, capsys)
    assert "teacher large .2000 0.70 teacher ease .2500 0.30 teachers fused .2700 yes" in text
    assert "student alone .2100 distilled, alpha 1, tau 0.5 .2300 yes" in text
    assert "ranks better than each alone (MAP .2700 against .2500). Its lists help: MAP .2300 against .2100" in text
    single = dataclasses.replace(CHOICE, weights={"ease": 1.0}, alpha=0.0, alone=0.24, skipped={"large": "no time"})
    text = shown(single, capsys)
    assert "teacher ease .2500 yes student alone .2400 yes distilled, alpha 1, tau 0.5 .2300 The" in text
    assert "The teacher is ease, which no fusion was better than (MAP .2500). Its lists do not help" in text
    assert "Left out: large, no time." in text


def test_what_cannot_be_tried_is_refused(flags, tmp_path):
    for candidates in ([], ["ease", "ease"], ["bert"]):
        with pytest.raises(InputError, match="--candidates="):
            distill(**{**flags, "candidates": candidates})
    with pytest.raises(InputError, match="use --mask=seen"):
        distill(**{**flags, "mask": "target"})


@pytest.mark.parametrize(("model", "short"), [("caser", False), ("sasrec", True)])
def test_lists_are_made_for_the_windows_of_the_student(tiny_dataset, tmp_path, model, short):
    data = open_dataset(tiny_dataset).split("validation")
    flags = {"sequence_length": 3, "target_length": 1, "k": 4, "mask": "seen", "force": False, "block_size": 64}
    lists = choose.make_lists(
        tmp_path / "lists", PopularityTeacher(data), {**flags, "model": model, "short_windows": "auto"}
    )
    assert lists.key.windows == data.windows(3, 1, short).fingerprint()

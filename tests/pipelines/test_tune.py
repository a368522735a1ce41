"""A search: what --search takes, which trials are stopped, what is kept, and that an interrupted one goes on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest

import pipelines.tune
from pipelines.tune import (
    Choices,
    Range,
    Search,
    Watched,
    best_trial,
    count_ended,
    importance,
    make_pruner,
    open_study,
    parse_search,
    suggest,
    trials_table,
    tune,
)
from rd_tf import command_line, flag_definitions, plugins
from rd_tf.command_line import choose, default_flags, flag_lines
from rd_tf.storage import InputError
from rd_tf.train import train

ROOT = Path(__file__).parents[2]
FIXED = default_flags(train)
# A training in place of rd_tf.train: the MAP rises by .01 an epoch to 1 - dropout. It goes on from the history that is
# there; with dropout above .7 it fails, with dropout of .7 it waits for SIGTERM after its second epoch.
FAKE = """
import pathlib, signal, sys, time

flags = dict(word[2:].split("=", 1) for word in sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
run, dropout, epochs = pathlib.Path(flags["run_dir"]), float(flags["dropout"]), int(flags["epochs"])
if dropout > .7:
    sys.exit(1)
(run / "checkpoint").mkdir(parents=True, exist_ok=True)
(run / "model.weights.h5").write_text("w")
history = run / "history.csv"
rows = history.read_text().splitlines()[1:] if history.is_file() else []
(run / "began_at.txt").write_text(str(len(rows)))
for epoch in range(len(rows) + 1, epochs + 1):
    rows.append(f"{epoch},{1 - dropout - .01 * (epochs - epoch)}")
    new = run / "new.csv"
    new.write_text("epoch,validation/map\\n" + "\\n".join(rows) + "\\n")
    new.rename(history)
    if dropout == .7 and epoch == 2:
        time.sleep(1000)
"""


@pytest.fixture
def fake_trainer(tmp_path, monkeypatch):
    """Has trials trained by `FAKE`."""
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "fake_train.py").write_text(FAKE)
    (tmp_path / "fake" / "fast_train.py").write_text(FAKE.replace("time.sleep", "float"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "fake"), str(ROOT), *sys.path]))
    monkeypatch.setattr(pipelines.tune, "TRAINER", "fake_train")
    monkeypatch.setattr("pipelines.paper.chains._SECONDS_BETWEEN_LOOKS", 0.02)


@pytest.fixture
def flags(tmp_path, tiny_dataset):
    arguments = ["--search=dropout=0.1..0.6,dim=4|8", "--trials=6", "--epochs=3", f"--dataset={tiny_dataset}"]
    places = [f"--run_dir={tmp_path / 'runs'}", f"--results={tmp_path / 'results'}"]
    return command_line.parse(tune, [*arguments, *places])


def study_of(flags):
    return optuna.load_study(study_name="tune", storage=f"sqlite:///{flags['results']}/study.db")


def weights(flags):
    return [path.parent.name for path in sorted(Path(flags["run_dir"]).glob("*/model.weights.h5"))]


def test_a_search_keeps_every_trials_flags_and_history_and_the_best_ones_weights(flags, fake_trainer):
    best = tune(**{**flags, "jobs": 2})
    results = Path(flags["results"])
    trials = [json.loads((results / f"trial-{number:04d}" / "trial.json").read_text()) for number in range(6)]
    assert {trial["state"] for trial in trials} == {"complete"}
    # The first one has the flags' own values: --dim=100 is not among those of the search, --dropout is.
    assert trials[0]["settings"]["dropout"] == FIXED["dropout"]
    lowest = min(trials, key=lambda trial: trial["settings"]["dropout"])
    assert best == lowest
    assert best["map"] == pytest.approx(1 - best["settings"]["dropout"])
    assert best["epoch"] == 3
    for trial in trials:
        directory = results / f"trial-{trial['trial']:04d}"
        trained = command_line.parse(train, [f"--flagfile={directory / 'flags.cfg'}"])
        assert {name: trained[name] for name in ("dropout", "dim")} == trial["settings"]
        assert (trained["split"], trained["epochs"]) == ("validation", 3)
        assert (directory / "history.csv").read_text().count("\n") == 4
    assert weights(flags) == [f"trial-{best['trial']:04d}"]
    found = command_line.parse(train, [f"--flagfile={results / 'best.cfg'}"])
    assert {name: found[name] for name in ("dropout", "dim")} == best["settings"]
    assert (found["run_dir"], found["epochs"], found["dataset"]) == ("", 3, flags["dataset"])
    table = (results / "trials.md").read_text().splitlines()
    assert "6 trials to the end, 0 stopped early, 0 failed; importance " in table[0]
    assert table[4].startswith(f"| {best['trial']} | {best['map']:.4f} | 3 | ".replace("0.", "."))
    assert (results / "importance.png").stat().st_size > 3_000


def test_the_same_command_goes_on_and_draws_what_a_whole_search_draws(flags, fake_trainer, tmp_path):
    flags = {**flags, "trials": 4}
    tune(**{**flags, "trials": 2})
    tune(**flags)
    whole = {**flags, "run_dir": str(tmp_path / "whole runs"), "results": str(tmp_path / "whole")}
    tune(**whole)
    drawn = [[trial.params for trial in study_of(each).trials] for each in (flags, whole)]
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 4
    other = {
        **whole,
        "run_dir": str(tmp_path / "other runs"),
        "results": str(tmp_path / "other"),
        "seed": 1,
        "trials": 2,
    }
    tune(**other)
    assert study_of(other).trials[1].params != drawn[0][1]


def test_a_killed_searchs_trials_are_repeated_from_where_they_were(flags, fake_trainer, monkeypatch, capsys):
    code = "import sys, pipelines.tune as t; t.TRAINER = 'fake_train'; t.command_line.run(t.tune, sys.argv[1:])"
    # .7 is the first trial's value, and its training waits.
    flags = {**flags, "search": ["dropout=0.1..0.7"], "dropout": 0.7, "trials": 3}
    process = subprocess.Popen([sys.executable, "-c", code, *flag_lines(flags).splitlines()], cwd=ROOT)
    history = Path(flags["run_dir"]) / "trial-0000" / "history.csv"
    deadline = time.monotonic() + 300
    while not history.is_file() or history.read_text().count("\n") < 3:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(120) == 143
    tune(**flags)
    assert "trial 0: was interrupted, is repeated" in capsys.readouterr().out
    study = study_of(flags)
    assert [trial.state.name for trial in study.trials] == ["FAIL", "COMPLETE", "COMPLETE", "COMPLETE"]
    assert study.trials[1].params == {"dropout": 0.7}
    assert study.trials[1].value == pytest.approx(0.3)
    runs = Path(flags["run_dir"])
    assert not (runs / "trial-0000").exists()
    assert (runs / "trial-0001" / "began_at.txt").read_text() == "2"
    assert not (Path(flags["results"]) / "trial-0000").exists()
    assert count_ended(study) == 3
    undisturbed = {**flags, **{name: f"{flags[name]} whole" for name in ("run_dir", "results")}}
    monkeypatch.setattr(pipelines.tune, "TRAINER", "fast_train")
    tune(**undisturbed)
    assert [trial.params for trial in study_of(undisturbed).trials] == [trial.params for trial in study.trials[1:]]


def test_a_bad_trial_is_stopped_and_its_checkpoint_removed(flags, fake_trainer):
    flags = {**flags, "search": ["dropout=0.1|0.2|0.3|0.4|0.5|0.7"], "prune_from_epoch": 2}
    tune(**{**flags, "trials": 1})
    study = study_of(flags)
    for dropout in (0.1, 0.2, 0.3, 0.4, 0.7):
        study.enqueue_trial({"dropout": dropout})
    tune(**flags)
    last = study_of(flags).trials[-1]
    assert (last.state.name, last.last_step) == ("PRUNED", 2)
    run, kept = Path(flags["run_dir"]) / "trial-0005", Path(flags["results"]) / "trial-0005"
    assert not (run / "checkpoint").exists()
    assert json.loads((kept / "trial.json").read_text())["state"] == "pruned"
    assert (kept / "history.csv").read_text().count("\n") == 3
    assert weights(flags) == ["trial-0001"]
    assert "5 trials to the end, 1 stopped early, 0 failed" in (Path(flags["results"]) / "trials.md").read_text()


def test_values_that_were_tried_are_not_trained_again(flags, fake_trainer):
    flags = {**flags, "search": ["dropout=0.5|0.2"]}
    tune(**flags)
    trials = study_of(flags).trials
    assert len(trials) == 6
    trained = [trial for trial in trials if "same_as" not in trial.user_attrs]
    assert sorted(trial.params["dropout"] for trial in trained) == [0.2, 0.5]
    assert len(list(Path(flags["run_dir"]).glob("trial-*.log"))) == 2
    copied = next(trial for trial in trials if "same_as" in trial.user_attrs)
    assert copied.value == trials[copied.user_attrs["same_as"]].value
    assert (Path(flags["results"]) / "trials.md").read_text().count("\n| ") == 3


def test_a_failed_training_stops_nothing_but_three_in_a_row_do(flags, fake_trainer):
    flags = {**flags, "search": ["dropout=0.75..0.9"], "dropout": 0.8}
    with pytest.raises(
        InputError, match=r"^3 trainings in a row failed, the last one with 1 \(see .*trial-0002\.log\)"
    ):
        tune(**flags)
    assert not (Path(flags["results"]) / "best.cfg").exists()
    mixed = {**flags, "search": ["dropout=0.9|0.2|0.3"], "dropout": 0.9}
    mixed |= {name: f"{flags[name]} mixed" for name in ("run_dir", "results")}
    assert tune(**mixed)["settings"] == {"dropout": 0.2}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"search": ["dropout=0.1..0.5", "dim=4|8"]},
            "--search=dropout=0.1..0.6,dim=4|8, not dropout=0.1..0.5,dim=4|8",
        ),
        ({"epochs": 4}, "--epochs=3, not 4"),
        ({"seed": 5}, "--seed=0, not 5"),
        ({"teacher": "tiny_teacher"}, "--teacher=(none), not "),
    ],
)
def test_another_search_in_the_same_place_is_refused(flags, fake_trainer, tiny_teacher, changed, message):
    tune(**{**flags, "trials": 1})
    changed = {name: tiny_teacher if value == "tiny_teacher" else value for name, value in changed.items()}
    with pytest.raises(InputError) as error:
        tune(**{**flags, **changed})
    assert f"holds a search with {message}" in str(error.value)


def test_runs_without_their_study_and_a_damaged_study_are_refused(flags, fake_trainer):
    tune(**{**flags, "trials": 1})
    study = Path(flags["results"]) / "study.db"
    study.unlink()
    with pytest.raises(InputError, match=r"runs holds trials, but .*study\.db is not there"):
        tune(**flags)
    study.write_text("no database, " * 100)
    with pytest.raises(InputError, match=r"study\.db cannot be used .*; restore it"):
        tune(**flags)


@pytest.mark.parametrize("split", ["test", "all"])
def test_another_split_than_validation_is_refused(flags, split):
    with pytest.raises(InputError, match=f"^--split={split}: a search reads the validation part only"):
        tune(**{**flags, "split": split})
    assert not Path(flags["results"]).exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"run_dir": ""}, "--run_dir is empty"),
        ({"results": ""}, "--results is empty"),
        ({"dataset": ""}, "--dataset is empty"),
        ({"dataset": "nowhere"}, "nowhere"),
        ({"teacher": "nowhere"}, "--teacher=nowhere is not a directory"),
        ({"model": "no_model"}, "--model=no_model is not known"),
        ({"search": []}, "--search is empty; name flags and values"),
    ],
)
def test_a_mistake_is_said_before_anything_is_trained(flags, changed, message):
    with pytest.raises(InputError, match=message):
        tune(**{**flags, **changed})
    assert not list(Path(flags["run_dir"]).glob("trial-*"))


def test_one_directory_cannot_be_results_and_runs(flags):
    with pytest.raises(InputError, match="is the --run_dir too; name two directories"):
        tune(**{**flags, "results": flags["run_dir"]})


def test_without_optuna_it_says_what_to_install(flags, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"^Optuna is not installed; pip install -r requirements-tune\.txt$"):
        tune(**flags)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dropout=0.2..0.6", Range(0.2, 0.6, False)),
        ("position_temperature=.5..20:log", Range(0.5, 20.0, True)),
        ("l2=1e-7..1e-4:log", Range(1e-7, 1e-4, True)),
        ("alpha=1..4", Range(1.0, 4.0, False)),
        ("dim=5..50", Range(5, 50, False)),
        ("dim = 5..50:log", Range(5, 50, True)),
        ("dim=5|10", Choices((5, 10))),
        ("alpha=1|2.5", Choices((1.0, 2.5))),
        ("user_dropout=0.1 | 0", Choices((0.1, 0.0))),
        ("model=caser|fossil", Choices(("caser", "fossil"))),
        ("exact_rank=true|false", Choices((True, False))),
        # Paths, not a range.
        ("teacher=../a|../b", Choices(("../a", "../b"))),
        ("teacher=|runs/a", Choices(("", "runs/a"))),
    ],
)
def test_a_search_says_ranges_and_choices(text, expected):
    fixed = {**FIXED, "teacher": "runs/t", "distillation_loss": "weighted_pointwise"}
    (found,) = parse_search([text], fixed).values()
    assert found == expected
    numbers = (found.low, found.high) if isinstance(found, Range) else found.values
    assert [type(number) for number in numbers] == [
        type(number) for number in ((expected.low, expected.high) if isinstance(found, Range) else expected.values)
    ]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["dropout"], "--search: 'dropout' has no values; write dropout=low..high or dropout=value|value"),
        (["dropuot=0..1"], "--search: 'dropuot' is no flag of rd_tf.train; python -m rd_tf.train --help lists them"),
        (["split=validation|test"], "--search: split is not a setting to search over; give it as --split=..."),
        (["seed=1|2"], "--search: seed is not a setting to search over; give it as --seed=..."),
        (["dim=4|8", "dim=4|8"], "--search names dim twice; name each flag once"),
        (["dim=4"], "--search: dim=4 is nothing to choose from; write dim=low..high or value|value, or give --dim"),
        (["mask=a..b"], "--search: mask=a..b is nothing to choose from; write mask=value|value, or give --mask"),
        (["dim=8..4"], "--search: dim=8..4 has no room between its ends; write the lower end first"),
        (["l2=0..1:log"], "--search: l2=0..1:log: a logarithmic scale begins above 0; use a higher low end"),
        (["dim=4|8|4"], "--search: dim=4|8|4 has a value twice; name each once"),
        (["alpha=0.5..2"], "--search: alpha changes nothing with the other flags"),
        (["history_exponent=0..1"], "--search: history_exponent changes nothing with the other flags"),
        (["model=caser|no_model"], "--model=no_model is not known; it is one of caser, fossil"),
    ],
)
def test_what_a_search_cannot_say_is_one_sentence(texts, message):
    with pytest.raises(InputError) as error:
        parse_search(texts, FIXED)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text", ["dim=1.5..4", "dim=0..4", "dropout=0.5..2", "dropout=0..nan", "exact_rank=yess|false"]
)
def test_every_value_passes_its_flags_own_parser(text):
    with pytest.raises(InputError, match=f"^--search: flag --{text.partition('=')[0]}="):
        parse_search([text], {**FIXED, "teacher": "runs/t"})


@pytest.mark.parametrize("file", sorted((ROOT / "configs" / "tuning").glob("*.cfg")), ids=lambda file: file.stem)
def test_the_flagfiles_of_searches_are_searches(file):
    flags = command_line.parse(tune, [f"--flagfile={file}", "--teacher=runs/t"])
    assert flags["split"] == "validation"
    searched = parse_search(flags["search"], choose(train, flags, force=False))
    assert len(searched) == (1 if file.stem == "losses" else 9)


def test_a_flag_is_drawn_only_where_it_has_a_part_in_the_trial():
    fixed = {**FIXED, "teacher": "runs/t"}
    texts = ["score_temperature=0.1..1", "distillation_loss=weighted_pointwise|listwise", "k=5|10", "teacher=|runs/t"]
    space = parse_search(texts, fixed)

    def drawn(**values):
        trial = optuna.trial.FixedTrial({"score_temperature": 0.5, "k": 5, **values})
        return suggest(trial, space, fixed), set(trial.params)

    values, names = drawn(teacher="runs/t", distillation_loss="listwise")
    assert (values["score_temperature"], values["k"]) == (0.5, 5)
    assert names == set(space)
    values, names = drawn(teacher="runs/t", distillation_loss="weighted_pointwise")
    assert values["score_temperature"] == FIXED["score_temperature"]
    assert names == set(space) - {"score_temperature"}
    values, names = drawn(teacher="", distillation_loss="listwise")
    assert (names, values["k"]) == ({"teacher"}, FIXED["k"])


def test_flags_of_plug_ins_can_be_searched(monkeypatch):
    monkeypatch.setitem(plugins.RANKERS, "mine", plugins.Plugin("a:A", {"depth": "depth"}))
    monkeypatch.setitem(command_line.FLAGS, "depth", flag_definitions._whole("depth", 2, 1, "")[1])
    assert parse_search(["depth=1..3"], {**FIXED, "depth": 2, "model": "mine"}) == {"depth": Range(1, 3, False)}
    with pytest.raises(InputError, match="depth changes nothing"):
        parse_search(["depth=1..3"], {**FIXED, "depth": 2})


@pytest.fixture
def watch(tmp_path):
    """A watched trial of five epochs, beside five that have ended with MAP .1, ..., .5 in every epoch."""

    def make(pruner="median", from_epoch=2):
        study = optuna.create_study(direction="maximize", pruner=make_pruner(pruner, from_epoch))
        for map_ in (0.1, 0.2, 0.3, 0.4, 0.5):
            trial = study.ask()
            for epoch in range(1, 6):
                trial.report(map_, epoch)
                trial.should_prune()
            study.tell(trial, map_)
        (tmp_path / "run").mkdir(exist_ok=True)
        return Watched(study.ask(), {"epochs": 5}, tmp_path / "run" / "history.csv")

    def write(watched, *maps):
        rows = "".join(f"{epoch},{'' if map_ is None else map_}\n" for epoch, map_ in enumerate(maps, 1))
        watched.history.write_text(f"epoch,validation/map\n{rows}")
        os.utime(watched.history, ns=(len(maps), len(maps)))

    return SimpleNamespace(make=make, write=write)


def test_a_trial_below_the_median_is_stopped_once_and_not_before_its_time(watch):
    watched = watch.make()
    assert not watched.look()
    watch.write(watched, 0.05)
    assert not watched.look()
    watch.write(watched, 0.05, 0.29)
    assert watched.look()
    watch.write(watched, 0.05, 0.29, 0.29)
    assert not watched.look()
    assert watched.maps == {1: 0.05, 2: 0.29, 3: 0.29}
    assert watched.best_epoch == 2


def test_a_trial_above_the_median_or_without_a_validation_goes_on(watch):
    watched = watch.make()
    watch.write(watched, None, None)
    assert not watched.look()
    watch.write(watched, None, None, 0.31)
    assert not watched.look()
    assert watched.maps == {3: 0.31}
    # Its best so far counts.
    watch.write(watched, None, None, 0.31, 0.1)
    assert not watched.look()


def test_a_trial_is_not_stopped_after_its_last_epoch_or_by_no_pruner(watch):
    watched = watch.make()
    watch.write(watched, 0.01, 0.01, 0.01, 0.01, 0.01)
    assert not watched.look()
    watched = watch.make("none")
    watch.write(watched, 0.01, 0.01, 0.01)
    assert not watched.look()


def test_halving_stops_all_but_the_best_quarter(watch):
    watched = watch.make("halving")
    watch.write(watched, 0.3, 0.3)
    assert watched.look()
    watched = watch.make("halving")
    watch.write(watched, 0.6, 0.6)
    assert not watched.look()


def test_a_training_that_fails_after_a_bad_epoch_is_a_failed_trial(watch, tmp_path):
    watched = watch.make()
    watch.write(watched, 0.05, 0.05)
    study = watched.trial.study
    child = SimpleNamespace(process=SimpleNamespace(returncode=1), log=SimpleNamespace(name="x.log"), seconds=1.0)
    Search(study, {}, FIXED, tmp_path / "runs", tmp_path / "results")._end(watched, child)
    assert study.trials[-1].state.name == "FAIL"


def test_importance_needs_some_trials_and_finds_what_decides():
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
    space = parse_search(["dropout=0.1..0.6", "l2=0.1..0.6"], FIXED)
    assert importance(study, space) == {}
    assert best_trial(study) is None
    for _ in range(40):
        trial = study.ask()
        values = suggest(trial, space, FIXED)
        study.tell(trial, 1 - values["dropout"])
    shares = importance(study, space)
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["dropout"] > 0.7


def test_the_table_names_what_was_searched_and_fixed(tmp_path):
    fixed = {**FIXED, "teacher": "runs/t", "epochs": 7, "split": "validation"}
    space = parse_search(["k=5|10", "alpha=0.5..2"], fixed)
    identity = {"search": ["k=5|10", "alpha=0.5..2"], "dataset": "d", "teacher": ["t"], "flags": {}}
    study = open_study(tmp_path / "study.db", identity, tmp_path)
    for k, alpha, map_ in ((5, 0.75, 0.0712), (10, 1.23456, 0.0801)):
        study.enqueue_trial({"k": k, "alpha": alpha})
        trial = study.ask()
        suggest(trial, space, fixed)
        trial.set_user_attr("epoch", 6)
        study.tell(trial, map_)
    assert trials_table(study, space, fixed).splitlines() == [
        "Search over `k=5|10 alpha=0.5..2`; other flags `--epochs=7`; 2 trials to the end, 0 stopped early, 0 failed.",
        "",
        "| trial | validation MAP | epoch | k | alpha |",
        "|---|---|---|---|---|",
        "| 1 | .0801 | 6 | 10 | 1.235 |",
        "| 0 | .0712 | 6 | 5 | 0.75 |",
    ]


def test_a_real_training_is_a_trial(tiny_dataset, tmp_path, train_flags):
    small = train_flags(dataset=tiny_dataset, split="validation", validate_every=1, run_dir=str(tmp_path / "runs"))
    small.pop("force")
    found = tune(**small, search=["dropout=0.1..0.6"], trials=1, results=str(tmp_path / "results"))
    assert (found["state"], found["settings"]) == ("complete", {"dropout": 0.5})
    metrics = json.loads((tmp_path / "runs" / "trial-0000" / "metrics.json").read_text())
    assert found["map"] == pytest.approx(metrics["metrics"]["map"], rel=1e-5)
    assert metrics["split"] == "validation"

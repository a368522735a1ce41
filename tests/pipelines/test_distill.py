"""The whole job on a tiny world: what it prints and leaves, and that a second call reuses it."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pipelines.distill
from pipelines.distill import _export_once, _prepare_if_asked, distill
from rd_tf import command_line
from rd_tf.command_line import choose, default_flags
from rd_tf.recommend import recommend
from rd_tf.serving.publishing import ExportOptions, are_equal_versions
from rd_tf.storage import InputError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def flags(tmp_path_factory):
    root = tmp_path_factory.mktemp("pipeline")
    arguments = [
        "--format=synthetic",
        "--synthetic_users=60",
        "--synthetic_items=80",
        "--synthetic_visits=30",
        f"--dataset={root / 'data'}",
        f"--run_dir={root / 'runs'}",
        f"--export_dir={root / 'exports'}",
        f"--results={root / 'results'}",
        "--max_k=5",
        "--seeds=0,1",
        "--epochs=2",
        "--teacher_dim=8",
        "--student_dim=4",
        "--k=5",
        "--batch_size=64",
        "--discrepancy_start_epoch=1",
        "--teacher=large",
        "--ranking_loss=pointwise",
        "--distillation_loss=weighted_pointwise",
        "--mask=target",
    ]
    return command_line.parse(distill, arguments)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"k": 80, "mask": "target"}, r"--k=80 is larger than the catalogue of \d+ items .* --mask=target keeps out"),
        ({"k": 60, "mask": "seen"}, r"--k=60 is larger than the catalogue of \d+ items .* --mask=seen keeps out"),
        ({"k": 60, "mask": "seen", "teacher": "auto"}, r"--mask=seen keeps out; use --k=\d+ or less"),
        ({"export_dir": "a[1]"}, r"--export_dir=a\[1\] lies at .*/a\[1\], which holds \[ \]; TensorFlow takes that"),
    ],
)
def test_what_a_later_stage_would_refuse_is_refused_before_the_first(flags, changed, message, tmp_path):
    with pytest.raises(InputError, match=message):
        distill(**{**flags, "run_dir": str(tmp_path / "runs"), **changed})
    assert not list(tmp_path.glob("runs/*/"))


def test_the_gate_is_asked_again_with_other_flags_of_the_gate(flags, tmp_path, monkeypatch):
    asked = []

    def export(**given):
        asked.append(given)
        (tmp_path / "exports/student/1").mkdir(parents=True, exist_ok=True)
        return str(tmp_path / "exports/student/1")

    export.flag_names = pipelines.distill.export.flag_names
    monkeypatch.setattr(pipelines.distill, "export", export)
    monkeypatch.setattr(
        pipelines.distill.run_directory, "load_run_manifest", lambda *_: {"model": {"fingerprint": "f" * 64}}
    )
    given = {**flags, "export_dir": str(tmp_path / "exports"), "export_name": "student"}
    gate = [
        {},
        {},
        {"min_metric_ratio": ["map:0.9"]},
        {"gate_against": "r"},
        {"keep_versions": 2},
        {"keep_versions": 2},
    ]
    calls = []
    for changed in gate:
        _export_once(tmp_path, tmp_path / "run", {**given, **changed})
        calls.append(len(asked))
    assert calls == [1, 1, 2, 3, 4, 4]


@pytest.fixture(scope="module")
def first(flags):
    return distill(**flags)


def test_three_models_of_every_seed_are_trained_and_reported(first, flags):
    root = Path(flags["run_dir"])
    for seed in (0, 1):
        for role in ("teacher", "student", "distilled"):
            assert (root / f"seed-{seed}" / role / "manifest.json").is_file()
    roles = first["roles"]
    assert (roles["teacher"]["dim"], roles["student"]["dim"], roles["distilled"]["dim"]) == (8, 4, 4)
    assert roles["student"]["parameters"] == roles["distilled"]["parameters"] < roles["teacher"]["parameters"]
    by_seed = [roles["distilled"]["by_seed"][seed]["map"] for seed in ("0", "1")]
    assert roles["distilled"]["metrics"]["map"] == pytest.approx(sum(by_seed) / 2)
    assert json.loads((root / "report.json").read_text()) == first


def test_those_who_learn_nothing_are_evaluated_once_on_the_same_items(first, flags, monkeypatch):
    metrics = first["baselines"]
    assert list(metrics) == ["popularity", "successors"]
    assert list(metrics["popularity"]) == list(first["roles"]["teacher"]["metrics"])
    assert all(0 < found["map"] < 1 for found in metrics.values())
    monkeypatch.setattr("rd_tf.evaluation.evaluator.evaluate_baselines", None)
    assert pipelines.distill._baselines(Path(flags["run_dir"]), flags) == metrics
    with pytest.raises(TypeError):
        pipelines.distill._baselines(Path(flags["run_dir"]), {**flags, "split": "validation"})


def test_the_evidence_is_copied_without_the_weights(first, flags):
    results = Path(flags["results"])
    names = {path.name for path in (results / "seed-1" / "distilled").iterdir()}
    assert names == {"flags.cfg", "metrics.json", "history.csv", "log.txt", "manifest.json"}
    assert (results / "curves.png").stat().st_size > 10_000


def test_an_export_of_other_weights_is_not_kept(tmp_path, monkeypatch):
    """The fingerprint of the weights and the option --weights are two things."""
    made = []
    monkeypatch.setattr(pipelines.distill, "export", lambda **flags: made.append(1) or str(tmp_path / str(len(made))))
    monkeypatch.setattr(pipelines.distill, "choose", lambda *_, **__: {})
    monkeypatch.setattr(
        pipelines.distill.run_directory, "load_run_manifest", lambda path: {"model": {"fingerprint": path.name}}
    )
    options = {field.name: "float32" for field in dataclasses.fields(ExportOptions)}
    flags = {**options, "export_dir": str(tmp_path), "export_name": "student", "force": False}
    flags |= {"keep_versions": 0, "min_metric_ratio": [], "gate_against": ""}
    for number in (1, 2):
        (tmp_path / "student" / str(number)).mkdir(parents=True)
    once = [pipelines.distill._export_once(tmp_path, Path(weights), flags) for weights in ("a", "a", "b")]
    assert [Path(path).name for path in once] == ["1", "1", "2"]


def test_the_student_is_exported(first):
    assert (Path(first["export"]) / "saved_model.pb").is_file()


def test_a_second_call_keeps_every_stage(first, flags, capsys):
    again = distill(**flags)
    said = capsys.readouterr().out
    assert said.count("run kept") == 6
    assert "dataset kept" in said
    assert "export kept" in said
    assert again == first


# Goes on and stops before the report.
GO_ON = """
import os
import pipelines.report
from pipelines import distill as pipeline

pipelines.report.make_report = lambda *_, **__: os._exit(0)
pipeline.distill(**{flags!r})
"""


@pytest.fixture(scope="module")
def resumed(first, flags, tmp_path_factory):
    """Where a pipeline that had ended after its teacher went on in a new process, and what that said on stderr."""
    root = tmp_path_factory.mktemp("resumed")
    shutil.copytree(Path(flags["run_dir"]) / "seed-0" / "teacher", root / "seed-0" / "teacher")
    changed = {"run_dir": str(root), "export_dir": str(root / "exports"), "results": "", "seeds": ["0"]}
    command = [sys.executable, "-c", GO_ON.format(flags={**flags, **changed})]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return root, ended.stderr


def test_nothing_is_said_on_stderr(resumed):
    """TensorFlow would warn there of graphs that are traced again and again."""
    assert resumed[1] == ""


@pytest.mark.parametrize("stage", ["student", "distilled"])
def test_weights_have_the_same_bytes_where_a_new_process_goes_on(stage, resumed, flags):
    path = Path("seed-0") / stage / "model.weights.h5"
    assert (resumed[0] / path).read_bytes() == (Path(flags["run_dir"]) / path).read_bytes()


def test_the_export_has_the_same_bytes_where_a_new_process_goes_on(resumed, first):
    assert are_equal_versions(resumed[0] / "exports" / "student" / "1", first["export"])


def test_a_dataset_made_with_other_flags_is_refused(first, flags):
    with pytest.raises(InputError, match="was made with --synthetic_users=60, not 70; name another directory"):
        distill(**{**flags, "synthetic_users": 70})


def test_a_split_that_holds_nothing_out_is_refused_before_anything_is_done(flags, tmp_path):
    with pytest.raises(InputError, match="--split=all holds nothing out for the table"):
        distill(**{**flags, "run_dir": str(tmp_path / "runs"), "split": "all"})
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def unchecked(monkeypatch):
    """Exports are not asked by the C++ loader, as the first one was."""
    monkeypatch.setattr("rd_tf.serving.export.check_agreement", lambda *_: {})


@pytest.mark.usefixtures("unchecked")
def test_lists_of_another_system_are_the_teacher(first, flags, tmp_path, capsys):
    made = {
        "run_dir": str(Path(flags["run_dir"]) / "seed-0" / "teacher"),
        "output": str(tmp_path / "lists.csv"),
        "k": 60,
    }
    recommend(**choose(recommend, {**default_flags(recommend), "dataset": flags["dataset"]}, **made))
    given = {"teacher": made["output"], "seeds": ["0"], "results": "", "incomplete": "pad", "unknown": "skip"}
    given["epochs"] = 1
    report = distill(**{**flags, **given, "run_dir": str(tmp_path / "runs")})
    assert list(report["roles"]) == ["student", "distilled"]
    assert "student distilled" in capsys.readouterr().out
    manifest = json.loads((tmp_path / "runs/seed-0/distilled/manifest.json").read_text())
    assert manifest["teacher"]["lists"]["source"] == made["output"]
    # A cache goes as well, and what is there is kept.
    cache = str(tmp_path / "runs/teacher_lists")
    again = distill(**{**flags, **given, "teacher": cache, "run_dir": str(tmp_path / "runs")})
    assert again["roles"] == report["roles"]


def test_a_teacher_that_is_no_run_is_refused_before_anything_is_done(flags, tmp_path):
    with pytest.raises(InputError, match=r"--teacher=.* holds no finished run"):
        distill(**{**flags, "run_dir": str(tmp_path / "runs"), "teacher": str(tmp_path)})
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"export_name": "my model"}, "--export_name=my model cannot be a served model's name"),
        ({"index": "clusters", "clusters": 1000}, "--clusters=1000 is more than the"),
        ({"teacher": "FIRST", "split": "validation"}, "was trained with --split=test, but this pipeline has"),
    ],
)
def test_what_a_late_stage_would_refuse_is_refused_before_training(first, flags, changed, message, tmp_path):
    if "teacher" in changed:
        changed = {**changed, "teacher": str(Path(flags["run_dir"]) / "seed-0" / "teacher")}
    with pytest.raises(InputError, match=message):
        distill(**{**flags, "run_dir": str(tmp_path / "runs"), **changed})
    assert not (tmp_path / "runs" / "seed-0").exists()


@pytest.mark.usefixtures("unchecked")
def test_a_given_teacher_is_used_and_shown_with_the_metrics_in_common(first, flags, tmp_path):
    teacher = str(Path(flags["run_dir"]) / "seed-0" / "teacher")
    changed = {"run_dir": str(tmp_path), "teacher": teacher, "seeds": ["0"], "results": "", "cutoffs": ["4", "5"]}
    report = distill(**{**flags, **changed})
    assert not (tmp_path / "seed-0" / "teacher").exists()
    own, wanted = (found["roles"]["distilled"]["by_seed"]["0"] for found in (report, first))
    common = ("map", "precision@5", "ndcg@5")
    assert [own[name] for name in common] == [wanted[name] for name in common]
    assert "precision@5" in report["roles"]["teacher"]["metrics"]
    assert "precision@4" not in report["roles"]["distilled"]["metrics"]


def test_a_dataset_whose_input_has_changed_is_refused(flags, tmp_path):
    rows = "user_id,item_id,timestamp\n" + "".join(f"{u},{(u * 7 + t) % 19},{t}\n" for u in range(6) for t in range(9))
    (tmp_path / "in.csv").write_text(rows)
    changed = {"format": "csv", "input": [str(tmp_path / "in.csv")], "dataset": str(tmp_path / "d")}
    _prepare_if_asked({**flags, **changed})
    _prepare_if_asked({**flags, **changed})
    (tmp_path / "in.csv").write_text(rows + "1,1,99\n")
    with pytest.raises(InputError, match=r"was made when the files of --input=.* held something else"):
        _prepare_if_asked({**flags, **changed})


def test_several_workers_are_refused(flags, tmp_path, monkeypatch):
    two = '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 1}}'
    monkeypatch.setenv("TF_CONFIG", two)
    with pytest.raises(InputError, match="names several workers, but this pipeline runs in one process"):
        distill(**{**flags, "run_dir": str(tmp_path / "runs")})
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("seeds", [["x"], ["1", "1"], []])
def test_bad_seeds_are_refused(flags, seeds):
    with pytest.raises(InputError, match="seeds are different whole numbers from 0"):
        distill(**{**flags, "seeds": seeds})

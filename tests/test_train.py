"""A training run: what it leaves, that it repeats, that it distils, what it refuses."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from rd_tf import command_line, run_directory
from rd_tf.evaluate import evaluate
from rd_tf.models.registry import ModelConfig, load_model, make_model
from rd_tf.prepare import prepare
from rd_tf.serving.weights import with_unknown_user
from rd_tf.storage import InputError
from rd_tf.teach import teach
from rd_tf.train import train
from rd_tf.training.config import RunConfig


def manifest(run):
    return json.loads((Path(run) / "manifest.json").read_text())


def history(run):
    with open(Path(run) / "history.csv") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_what_the_contract_says(tiny_teacher, tiny_dataset):
    run = Path(tiny_teacher)
    names = {"flags.cfg", "metrics.json", "history.csv", "model.weights.h5", "manifest.json", "log.txt"}
    assert names <= {path.name for path in run.iterdir()}
    found = manifest(run)
    assert found["dataset"]["fingerprint"] == manifest(tiny_dataset)["fingerprint"]
    assert found["model"]["parameters"] == load_model(run).count_params()
    assert found["peak_memory_bytes"] > 0
    metrics = json.loads((run / "metrics.json").read_text())["metrics"]
    assert {"map", "precision@3", "recall@5", "ndcg@3", "ndcg_tang@5", "hit_rate@3", "mrr@5"} <= metrics.keys()
    assert [row["epoch"] for row in history(run)] == ["1", "2"]


def test_the_flagfile_of_a_run_repeats_it_bit_for_bit(tiny_student, tmp_path):
    flagfile = Path(tiny_student) / "flags.cfg"
    again = command_line.parse(train, [f"--flagfile={flagfile}", f"--run_dir={tmp_path / 'again'}"])
    train(**again)
    assert manifest(tmp_path / "again")["model"]["fingerprint"] == manifest(tiny_student)["model"]["fingerprint"]


@pytest.fixture(scope="module")
def other_teacher(tmp_path_factory, tiny_dataset, train_flags):
    """The teacher with another seed."""
    path = str(tmp_path_factory.mktemp("runs") / "other")
    train(**train_flags(dataset=tiny_dataset, run_dir=path, seed=1))
    return path


def test_another_seed_gives_other_weights(tiny_teacher, other_teacher):
    assert manifest(other_teacher)["model"]["fingerprint"] != manifest(tiny_teacher)["model"]["fingerprint"]


def test_a_distilled_run_reports_distillation_and_overlap(tiny_student, tiny_teacher):
    rows = history(tiny_student)
    assert all(float(row["train/distillation_loss"]) > 0 for row in rows)
    # The first epoch has w^a alone, which sums to 1 over K = 5; in the second w^b makes some weights zero.
    assert float(rows[0]["train/mean_weight"]) == pytest.approx(0.2)
    assert float(rows[0]["train/zero_weight_share"]) == 0
    assert float(rows[1]["train/zero_weight_share"]) > 0
    assert 0 < float(rows[1]["distillation/overlap@5"]) <= 1
    assert manifest(tiny_student)["teacher"]["teacher"] == manifest(tiny_teacher)["model"]["fingerprint"]


def test_tensorboard_holds_scalars_histograms_and_flags(tiny_student):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(tiny_student, size_guidance={"tensors": 0})
    events.Reload()
    tags = set(events.Tags()["tensors"])
    assert {"train/loss", "train/distillation_loss", "train/mean_weight", "distillation/overlap@5", "test/map"} <= tags
    assert {"flags", "weights/item_table"} <= tags


def test_validation_keeps_the_best_epoch(tiny_dataset, train_flags, tmp_path):
    train(**train_flags(dataset=tiny_dataset, run_dir=str(tmp_path), split="validation", epochs=6, validate_every=1))
    maps = [float(row["validation/map"]) for row in history(tmp_path)]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["epoch"] == manifest(tmp_path)["epoch"] == int(np.argmax(maps)) + 1
    assert metrics["metrics"]["map"] == pytest.approx(max(maps), rel=1e-4)


def test_the_test_split_is_not_read_between_epochs(tiny_teacher):
    assert not [name for name in history(tiny_teacher)[0] if "map" in name or "precision" in name]


def test_a_finished_run_is_kept_and_other_flags_are_refused(tiny_teacher, tiny_dataset, train_flags, capsys):
    weights = Path(tiny_teacher) / "model.weights.h5"
    before = weights.stat().st_mtime_ns
    train(**train_flags(dataset=tiny_dataset, run_dir=tiny_teacher))
    assert "run kept" in capsys.readouterr().out
    # Nothing is distilled, so no flag of distillation had a part in it.
    train(**train_flags(dataset=tiny_dataset, run_dir=tiny_teacher, alpha=7.0, k=3))
    assert "run kept" in capsys.readouterr().out
    with pytest.raises(InputError, match="holds a finished run with --dim=8, not 9; name another directory"):
        train(**train_flags(dataset=tiny_dataset, run_dir=tiny_teacher, dim=9))
    assert weights.stat().st_mtime_ns == before


def test_a_finished_run_says_why_it_cannot_go_on(tiny_teacher, tiny_dataset, train_flags):
    message = (
        "holds a finished run with --epochs=2, and cannot go on to 3: a finished run keeps its weights, not the opt"
    )
    with pytest.raises(InputError, match=message):
        train(**train_flags(dataset=tiny_dataset, run_dir=tiny_teacher, epochs=3))


def test_a_log_says_who_is_left_out_and_its_lines_are_short(tiny_dataset, train_flags, tmp_path):
    cutoffs = ["3", "5", "10", "20"]
    flags = {"split": "validation", "validate_every": 1, "cutoffs": cutoffs, "sequence_length": 1}
    train(**train_flags(dataset=tiny_dataset, run_dir=str(tmp_path), **flags))
    lines = (tmp_path / "log.txt").read_text().splitlines()
    counts = json.loads((tmp_path / "metrics.json").read_text())["counts"]
    users = f"{counts['users']} of {counts['users'] + counts['users_without_targets']} users"
    assert f"validation split: ranked for {users} " in lines[1]
    assert all(map_and_more in lines[2] for map_and_more in ("  validation map 0.", "  precision@3 0."))
    assert f" over {users}  precision@3" in lines[-1]
    assert max(len(line) for line in lines if line.startswith(("epoch", "validation split, "))) <= 100


def test_a_user_who_has_seen_everything_does_not_stop_a_training(train_flags, tmp_path, capsys):
    rows = [(f"u{user}", f"i{item}") for user in range(12) for item in range(8) if user == 0 or (user + item) % 3]
    lines = [f"{user},{item},{number}" for number, (user, item) in enumerate(rows)]
    (tmp_path / "in.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]))
    prepare(
        **command_line.choose(
            prepare,
            command_line.default_flags(prepare),
            input=[str(tmp_path / "in.csv")],
            dataset=str(tmp_path / "data"),
        )
    )
    for loss in ("pointwise", "bpr", "sampled_softmax", "gbce", "softmax"):
        flags = {
            "split": "all",
            "epochs": 2,
            "sequence_length": 2,
            "ranking_loss": loss,
            "run_dir": str(tmp_path / loss),
        }
        train(**train_flags(dataset=str(tmp_path / "data"), **flags))
        assert "1 of 12 users have seen all items in training; no negatives are drawn" in capsys.readouterr().out
        assert all(np.isfinite(weight).all() for weight in load_model(tmp_path / loss).get_weights())


@pytest.mark.parametrize(
    ("free", "error", "message"),
    [
        (10_000, MemoryError, "the weight user_table of 0.0 GB is larger than"),
        (
            60_000,
            InputError,
            "a training step needs more than 0.0 GB of memory, and 0.0 GB are free; lower --dim, --batch_",
        ),
    ],
)
def test_too_little_memory_is_said_before_the_first_step(
    free, error, message, tiny_dataset, train_flags, tmp_path, monkeypatch
):
    monkeypatch.setattr("rd_tf.models.ranker.free_bytes", lambda: free if error is MemoryError else 10**12)
    monkeypatch.setattr("rd_tf.training.run.free_bytes", lambda: free)
    flags = {"negatives": 100, "dim": 64 if error is MemoryError else 8}
    with pytest.raises(error, match=message):
        train(**train_flags(dataset=tiny_dataset, run_dir=str(tmp_path / "run"), **flags))


def test_a_run_of_before_there_was_a_warmup_is_kept_without_one(tiny_teacher, tiny_dataset, train_flags, tmp_path):
    older = shutil.copytree(tiny_teacher, tmp_path / "older")
    found = manifest(older)
    del found["flags"]["warmup_steps"]
    # Nor did runs then have a checksum of their manifest.
    del found["manifest_sha256"]
    (older / "manifest.json").write_text(json.dumps(found))
    kept = train(**train_flags(dataset=tiny_dataset, run_dir=str(older)))
    assert kept["model"] == found["model"]
    with pytest.raises(InputError, match="holds a finished run with --warmup_steps=0, not 5; name another directory"):
        train(**train_flags(dataset=tiny_dataset, run_dir=str(older), warmup_steps=5))


def test_a_finished_run_with_another_teacher_is_refused(
    tiny_teacher, tiny_student, other_teacher, tiny_dataset, train_flags
):
    with pytest.raises(InputError, match=r"with --teacher=\(none\), not [0-9a-f]{16}; name another directory"):
        train(**train_flags(dataset=tiny_dataset, run_dir=tiny_teacher, teacher=tiny_student))
    with pytest.raises(InputError, match=r"with --teacher=[0-9a-f]{16}, not [0-9a-f]{16}"):
        train(**train_flags(dataset=tiny_dataset, run_dir=tiny_student, teacher=other_teacher, dim=4))


@pytest.mark.parametrize("name", ["dataset", "teacher"])
def test_a_run_cannot_replace_its_dataset_or_its_teacher(name, tiny_teacher, tiny_dataset, train_flags):
    flags = {"dataset": tiny_dataset, "teacher": tiny_teacher, "force": True}
    before = manifest(flags[name])
    with pytest.raises(InputError, match=f"is the --{name} too, which it would replace"):
        train(**train_flags(**flags, run_dir=f"{flags[name]}/../{Path(flags[name]).name}"))
    assert manifest(flags[name]) == before


def test_force_replaces_a_run_and_a_failure_keeps_the_old_one(tiny_dataset, tiny_teacher, train_flags, tmp_path):
    run = str(shutil.copytree(tiny_teacher, tmp_path / "run"))
    before = {path.name: path.stat().st_ino for path in Path(run).iterdir()}
    for bad in ({"cutoffs": ["9999"]}, {"learning_rate": 1e38, "epochs": 5}):
        with pytest.raises(InputError):
            train(**train_flags(dataset=tiny_dataset, run_dir=run, force=True, **bad))
    assert {path.name: path.stat().st_ino for path in Path(run).iterdir()} == before
    train(**train_flags(dataset=tiny_dataset, run_dir=run, force=True, dim=3))
    assert manifest(run)["model"]["config"]["dim"] == 3
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_stale_cache_of_a_retrained_teacher_is_made_again(tiny_dataset, other_teacher, tmp_path):
    teacher = str(shutil.copytree(other_teacher, tmp_path / "t"))
    cache = tmp_path / "t" / "top_k" / "test-k5-target"
    ask = {"teacher": teacher, "dataset": tiny_dataset, "cache": "", "k": 5, "mask": "target", "block_size": 64}
    teach(**ask, force=False)
    stale = json.loads((cache / "manifest.json").read_text())
    (cache / "manifest.json").write_text(json.dumps({**stale, "teacher": "0" * 64}))
    teach(**ask, force=False)
    assert json.loads((cache / "manifest.json").read_text()) == stale


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"class": "sasrec"}}, "no usable 'model.config'"),
        ({"split": None}, "no usable 'split'"),
        ({"dataset": "x"}, "no usable 'dataset.fingerprint'"),
    ],
)
def test_a_damaged_manifest_is_named(change, message, tiny_teacher, tmp_path):
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest(tiny_teacher), **change}))
    with pytest.raises(InputError, match=message):
        load_model(tmp_path)


def test_a_model_of_another_version_is_refused(tiny_teacher, tmp_path):
    found = manifest(tiny_teacher)
    run_directory.write_run_manifest(tmp_path, {**found, "model": {**found["model"], "class": "gru4rec"}})
    with pytest.raises(InputError, match="holds a model 'gru4rec'; known are caser, fossil, sasrec, others with"):
        load_model(tmp_path)


def test_exact_rank_and_renormalized_weights_and_seen_mask_train(tiny_dataset, tiny_teacher, train_flags, tmp_path):
    chosen = {"exact_rank": True, "renormalize_weights": True, "mask": "seen", "discrepancy_start_epoch": 0}
    train(**train_flags(dataset=tiny_dataset, run_dir=str(tmp_path), teacher=tiny_teacher, **chosen))
    weight = float(history(tmp_path)[1]["train/mean_weight"])
    # Rows whose weights are all zero stay zero, so the mean is at most 1 / K.
    assert 0 < weight <= 0.2 + 1e-6


def test_a_cache_made_by_teach_serves_as_the_teacher(tiny_dataset, tiny_teacher, tiny_student, train_flags, tmp_path):
    cache = teach(
        teacher=tiny_teacher,
        dataset=tiny_dataset,
        cache=str(tmp_path / "c"),
        k=5,
        mask="target",
        block_size=7,
        force=False,
    )
    train(**train_flags(dataset=tiny_dataset, run_dir=str(tmp_path / "run"), teacher=cache, dim=4))
    assert manifest(tmp_path / "run")["model"]["fingerprint"] == manifest(tiny_student)["model"]["fingerprint"]


def test_mixed_precision_trains_and_evaluates(tiny_dataset, train_flags, tmp_path):
    train(**train_flags(dataset=tiny_dataset, run_dir=str(tmp_path), dtype_policy="mixed_bfloat16"))
    assert load_model(tmp_path).compute_dtype == "bfloat16"


def test_a_history_shows_the_learning_rate_and_the_loss_scale(tiny_dataset, tiny_teacher, train_flags, tmp_path):
    changed = {"dtype_policy": "mixed_float16", "warmup_steps": 1000, "epochs": 1}
    train(**train_flags(dataset=tiny_dataset, run_dir=str(tmp_path), **changed))
    (row,) = history(tmp_path)
    assert 0 < float(row["train/learning_rate"]) < 0.01
    assert float(row["train/loss_scale"]) == 2**15
    constant = history(tiny_teacher)[0]
    assert float(constant["train/learning_rate"]) == pytest.approx(0.01)
    assert "train/loss_scale" not in constant


def test_a_mirrored_run_on_one_device_is_the_plain_run(tiny_dataset, tiny_teacher, train_flags, tmp_path):
    train(**train_flags(dataset=tiny_dataset, run_dir=str(tmp_path), strategy="mirrored"))
    for ours, theirs in zip(load_model(tmp_path).weights, load_model(tiny_teacher).weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def other_dataset(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "other"
    flags = command_line.default_flags(prepare)
    prepare(**command_line.choose(prepare, flags, format="synthetic", dataset=str(path), synthetic_users=50, seed=9))
    return str(path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"dataset": ""}, "--dataset is empty; name a dataset directory"),
        ({"run_dir": ""}, "--run_dir is empty; name a directory for the run"),
        ({"dataset": "/nowhere"}, "--dataset=/nowhere is not a directory; make one with python -m rd_tf.prepare"),
        ({"teacher": "/nowhere"}, "--teacher=/nowhere is not a directory; name a teacher's run directory"),
        ({"teacher": "TEACHER", "split": "validation"}, "was trained with --split=test, but this run has --split=val"),
        ({"teacher": "TEACHER", "k": 1000}, "--k=1000 is larger than the catalogue of .* items"),
        ({"teacher": "TEACHER", "dataset": "OTHER"}, "was trained on the dataset [0-9a-f]{16}, but .* is [0-9a-f]{16}"),
        ({"vertical_filters": 0, "horizontal_filters": 0}, "Caser needs vertical or horizontal filters"),
        ({"cutoffs": ["3", "x"]}, "--cutoffs=3,x: 'x' is not a whole number"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(
    changed, message, tiny_dataset, tiny_teacher, other_dataset, train_flags, tmp_path
):
    places = {"TEACHER": tiny_teacher, "OTHER": other_dataset}
    changed = {name: places.get(value, value) if isinstance(value, str) else value for name, value in changed.items()}
    with pytest.raises(InputError, match=message) as caught:
        train(**train_flags(**{"dataset": tiny_dataset, "run_dir": str(tmp_path / "run"), **changed}))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_learning_rate_that_diverges_stops_and_says_when(tiny_dataset, train_flags, tmp_path):
    with pytest.raises(InputError, match=r"the loss is not finite in epoch \d+, step \d+ of \d+"):
        train(**train_flags(dataset=tiny_dataset, run_dir=str(tmp_path), learning_rate=1e38, epochs=5))
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.parametrize(
    ("model", "choice", "expected"),
    [("caser", "auto", False), ("caser", "on", True), ("sasrec", "auto", True), ("sasrec", "off", False)],
)
def test_a_run_has_the_short_windows_that_its_ranker_or_the_flag_asks_for(model, choice, expected, train_flags):
    assert RunConfig.of(train_flags(model=model, short_windows=choice)).short_windows == expected


def test_user_dropout_trains_a_row_for_unknown_users_which_the_export_uses(tmp_path, tiny_dataset, train_flags):
    run_dir = str(tmp_path / "run")
    made = train(**train_flags(dataset=tiny_dataset, run_dir=run_dir, user_dropout=0.5, dim=4))
    model = load_model(run_dir)
    assert model.unknown_user
    untrained = make_model(ModelConfig.of(made["flags"]), model.num_users, model.num_items)
    assert untrained.count_params() == made["model"]["parameters"]
    row = np.array(model.user_table)[model.num_users]
    assert not np.allclose(row, np.array(untrained.user_table)[model.num_users])
    np.testing.assert_array_equal(np.array(with_unknown_user(model).user_table)[model.num_users], row)


def test_early_stopping_ends_a_run_and_keeps_the_best_epoch(tmp_path, tiny_dataset, train_flags, capsys):
    flags = train_flags(dataset=tiny_dataset, run_dir=str(tmp_path / "run"), split="validation", dim=4)
    # At such a rate the MAP has its best value early.
    made = train(**{**flags, "epochs": 40, "validate_every": 1, "early_stopping": 3, "learning_rate": 0.3})
    rows = (tmp_path / "run/history.csv").read_text().splitlines()[1:]
    assert len(rows) == made["epoch"] + 3 < 40
    assert f"stopped early: no better MAP since epoch {made['epoch']}" in capsys.readouterr().out


def test_split_all_trains_on_every_row_and_is_not_evaluated(tmp_path, tiny_dataset, train_flags):
    flags = train_flags(dataset=tiny_dataset, run_dir=str(tmp_path / "run"), split="all", epochs=1)
    made = train(**flags)
    assert made["split"] == "all"
    assert not (tmp_path / "run/metrics.json").exists()
    assert train(**flags)["epoch"] == 1
    with pytest.raises(InputError, match=r"was trained on all rows \(--split=all\), the test items among them"):
        evaluate(
            run_dir=str(tmp_path / "run"), dataset=tiny_dataset, split="test", cutoffs=["3"], block_size=9, output=""
        )

"""The command rd_tf.evaluate on a tiny run."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rd_tf import run_directory
from rd_tf.data.dataset import save_dataset
from rd_tf.data.interactions import Interactions
from rd_tf.data.windows import SplitData, split_interactions
from rd_tf.evaluate import evaluate
from rd_tf.evaluation.evaluator import evaluate_on
from rd_tf.models.caser import Caser
from rd_tf.models.registry import save_model
from rd_tf.storage import InputError, write_json

FLAGS = {"split": "test", "cutoffs": ["3", "10"], "block_size": 4, "output": ""}


def tiny_interactions(seed=0):
    generator = np.random.default_rng(seed)
    items = np.concatenate([generator.permutation(30)[:20] + 1 for _ in range(9)]).astype(np.int32)
    users = np.repeat(np.arange(9, dtype=np.int32), 20)
    ids = [[f"{kind}{number}" for number in range(count)] for kind, count in (("u", 9), ("i", 30))]
    return Interactions(users, items, np.tile(np.arange(20, dtype=np.int64), 9), *ids)


def write_run(directory, interactions, split="test", spoil=False):
    model = Caser(interactions.num_users, interactions.num_items, sequence_length=3, dim=4)
    if spoil:
        model.item_bias.assign(np.full(interactions.num_items + 1, np.nan))
    described = save_model(model, directory)
    fingerprint = interactions.fingerprint()
    manifest = {"model": described, "dataset": {"fingerprint": fingerprint}, "split": split}
    write_json(directory / run_directory.MANIFEST, manifest)
    return model


@pytest.fixture
def paths(tmp_path):
    save_dataset(tiny_interactions(), tmp_path / "data", source={})
    return {"run_dir": str(tmp_path / "run"), "dataset": str(tmp_path / "data")}


def test_metrics_and_per_user_values_are_written_to_the_run(paths, capsys):
    interactions, run = tiny_interactions(), Path(paths["run_dir"])
    model = write_run(run, interactions)
    result = evaluate(**paths, **FLAGS)
    expected = evaluate_on(model, SplitData(interactions, split_interactions(interactions, "test")), [3, 10])
    assert json.loads((run / "evaluate-test" / "metrics.json").read_text()) == result
    assert result["metrics"] == pytest.approx(expected.metrics)
    assert result["counts"] == expected.counts
    assert result["split"] == "test"
    assert result["model"]["class"] == "caser"
    assert result["dataset"]["fingerprint"] == interactions.fingerprint()
    pd.testing.assert_frame_equal(pd.read_parquet(run / "evaluate-test" / "per_user.parquet"), expected.per_user)
    printed = capsys.readouterr().out
    assert "ndcg_tang" in printed
    assert f"{result['metrics']['map']:.4f}" in printed


def test_output_onto_a_run_is_refused(paths):
    run = Path(paths["run_dir"])
    write_run(run, tiny_interactions())
    with pytest.raises(InputError, match="holds a run or a dataset, whose files it would replace"):
        evaluate(**paths, **FLAGS | {"output": str(run)})


def test_output_goes_where_it_is_told(paths, tmp_path):
    write_run(Path(paths["run_dir"]), tiny_interactions())
    evaluate(**paths, **FLAGS | {"output": str(tmp_path / "elsewhere")})
    assert sorted(file.name for file in (tmp_path / "elsewhere").iterdir()) == ["metrics.json", "per_user.parquet"]
    assert not (Path(paths["run_dir"]) / "metrics.json").exists()


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_run_for_validation_may_be_evaluated_on_both_splits(paths, split):
    write_run(Path(paths["run_dir"]), tiny_interactions(), split="validation")
    held_out = {"validation": 2, "test": 4}[split]
    assert evaluate(**paths, **FLAGS | {"split": split})["counts"]["targets"] == held_out * 9


def refusal(**arguments):
    with pytest.raises(InputError) as error:
        evaluate(**arguments)
    return str(error.value)


def test_a_run_for_test_is_refused_on_validation(paths):
    write_run(Path(paths["run_dir"]), tiny_interactions(), split="test")
    assert refusal(**paths, **FLAGS | {"split": "validation"}) == (
        f"--run_dir={paths['run_dir']} was trained for the split 'test', whose training rows hold validation "
        "items; evaluate with --split=test or train with --split=validation"
    )


def test_another_dataset_is_refused_with_both_fingerprints(paths):
    other = tiny_interactions(seed=1)
    write_run(Path(paths["run_dir"]), other)
    message = refusal(**paths, **FLAGS)
    assert other.fingerprint()[:16] in message
    assert tiny_interactions().fingerprint()[:16] in message


def test_scores_that_are_not_finite_are_refused_and_nothing_is_written(paths):
    write_run(Path(paths["run_dir"]), tiny_interactions(), spoil=True)
    assert "weights are not finite" in refusal(**paths, **FLAGS)
    assert not (Path(paths["run_dir"]) / "metrics.json").exists()


def test_cutoffs_are_checked_against_the_catalogue(paths):
    write_run(Path(paths["run_dir"]), tiny_interactions())
    assert "31 is not between 1 and the 30 items" in refusal(**paths, **FLAGS | {"cutoffs": ["31"]})


def test_missing_runs_and_datasets_are_named(paths, tmp_path):
    assert "is not a directory; train a model" in refusal(**paths, **FLAGS)
    write_run(Path(paths["run_dir"]), tiny_interactions())
    missing = str(tmp_path / "missing")
    assert f"--dataset={missing} is not a directory" in refusal(run_dir=paths["run_dir"], dataset=missing, **FLAGS)


def test_the_command_line_ends_with_a_sentence_and_without_a_traceback(paths):
    command = [sys.executable, "-m", "rd_tf.evaluate", f"--run_dir={paths['run_dir']}", "--dataset=nowhere"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: --run_dir=")
    assert ended.stderr.count("\n") == 1

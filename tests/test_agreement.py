"""Training, evaluation, the teacher cache and the export give the same scores for the same query, for every ranker."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

from rd_tf.command_line import choose, default_flags
from rd_tf.data.dataset import load_dataset
from rd_tf.data.teacher_lists import CacheKey, load_teacher_cache
from rd_tf.data.windows import Dataset, UserItems, last_sequences, make_windows, split_interactions
from rd_tf.evaluation.evaluator import Evaluator
from rd_tf.export import export
from rd_tf.models.ranker import Histories
from rd_tf.models.registry import load_model
from rd_tf.serving.savedmodel_check import run_saved_model
from rd_tf.teach import teach

ROWS = np.array([0, 7, 100, 31])


@pytest.fixture(params=["caser", "fossil", "sasrec"])
def tiny_run(request):
    """A finished run of each ranker."""
    names = {"caser": "tiny_student", "fossil": "tiny_fossil", "sasrec": "tiny_sasrec"}
    return request.getfixturevalue(names[request.param])


def trained(tiny_run, tiny_dataset):
    model, interactions = load_model(tiny_run), load_dataset(tiny_dataset)
    train = split_interactions(interactions, "test").train
    items = UserItems(interactions.users[train], interactions.items[train], interactions.num_users)
    return model, interactions, train, make_windows(interactions, train, 5, short=model.short_windows), items


def training_scores(model, users, sequences, history):
    """Scores as the training step computes them: the query times gathered rows."""
    looked_back = Histories(*history) if model.has_history else None
    query = model.encode(tf.constant(users), tf.constant(sequences), history=looked_back)
    items = np.tile(np.arange(1, model.num_items + 1), (len(users), 1))
    return np.asarray(model.score(query, tf.constant(items)))


def test_training_and_evaluation_agree(tiny_run, tiny_dataset):
    model, interactions, train, _, items = trained(tiny_run, tiny_dataset)
    evaluator = Evaluator(Dataset(interactions).split("test"), 5, [3])
    users = np.arange(interactions.num_users, dtype=np.int32)
    scores = np.zeros((len(users), model.num_items + 1), np.float32)
    sequences = last_sequences(interactions, train, 5)
    scores[:, 1:] = training_scores(model, users, sequences, items.histories(users))
    by_training = evaluator.evaluate_scores(lambda users, _: scores[users])
    pd.testing.assert_frame_equal(evaluator.evaluate(model).per_user, by_training.per_user)


def test_training_and_the_cache_agree(tiny_run, tiny_dataset, tmp_path):
    model, interactions, _, windows, items = trained(tiny_run, tiny_dataset)
    path = teach(
        teacher=tiny_run,
        dataset=tiny_dataset,
        cache=str(tmp_path / "c"),
        k=6,
        mask="none",
        block_size=9,
        force=False,
    )
    key = CacheKey(interactions.fingerprint(), "test", 5, 1, windows.fingerprint())
    cache = load_teacher_cache(path, key, 6)
    every = np.arange(len(windows))
    history = items.window_histories(windows, every, model.looks_back) if model.has_history else None
    scores = training_scores(model, windows.users, windows.sequences, history)
    # By score, since items that are equal to rounding may change places.
    best = -np.sort(-scores, 1)[:, :6]
    listed = np.take_along_axis(scores, cache.items.astype(np.int64) - 1, axis=1)
    np.testing.assert_allclose(listed, best, rtol=1e-5, atol=1e-6)
    # The cache keeps half precision.
    np.testing.assert_allclose(cache.scores, best, rtol=1e-3, atol=1e-3)


def test_training_and_the_export_agree(tiny_run, tiny_dataset, tmp_path):
    model, interactions, train, _, items = trained(tiny_run, tiny_dataset)
    changed = {"run_dir": tiny_run, "dataset": tiny_dataset, "export_dir": str(tmp_path), "exclude_recent": False}
    path = export(**choose(export, default_flags(export), export_name="agreement", max_k=6, **changed))
    users = np.array([0, 3, 11], "int32")
    # The whole history of each user, and here and there an item that nobody knows.
    raw = [[interactions.item_ids[item - 1] for item in row if item] for row in items.padded(users).tolist()]
    raw = [["?", *row[:2], "", *row[2:]] for row in raw]
    width = max(len(row) for row in raw)
    request = {
        "user_id": np.array([interactions.user_ids[user] for user in users], object),
        "recent_items": np.array([row + [""] * (width - len(row)) for row in raw], object),
    }
    request |= {"exclude_items": np.zeros((3, 0), object), "k": np.array([6, 6, 6])}
    (served,) = run_saved_model(path, [request])
    sequences = last_sequences(interactions, train, 5)[users]
    scores = training_scores(model, users, sequences, items.histories(users))
    best = np.argsort(-scores, 1, kind="stable")[:, :6]
    np.testing.assert_allclose(served["scores"], np.take_along_axis(scores, best, 1), rtol=1e-5, atol=1e-6)
    quality = json.loads((Path(path) / "assets.extra" / "report.json").read_text())["quality"]
    measured = json.loads((Path(tiny_run) / "metrics.json").read_text())["metrics"]
    assert quality["exported"]["map"] == quality["float32"]["map"] == pytest.approx(measured["map"], rel=1e-6)
    assert served["items"].tolist() == [[interactions.item_ids[i] for i in row] for row in best]

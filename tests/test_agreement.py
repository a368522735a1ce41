"""Training, evaluation, the teacher cache and the export give the same scores for the same user and sequence."""

import numpy as np
import tensorflow as tf

from rd_tf.command_line import choose, default_flags
from rd_tf.data.dataset_directory import load_dataset
from rd_tf.data.split import split_interactions
from rd_tf.data.teacher_cache import CacheKey, load_teacher_cache
from rd_tf.data.windows import last_sequences, make_windows
from rd_tf.export import export
from rd_tf.models.frozen_scores import FrozenScores
from rd_tf.models.storage import load_model
from rd_tf.serving.savedmodel_check import run_saved_model
from rd_tf.teach import teach

ROWS = np.array([0, 7, 100, 31])


def trained(tiny_student, tiny_dataset):
    model, interactions = load_model(tiny_student), load_dataset(tiny_dataset)
    train = split_interactions(interactions, "test").train
    return model, interactions, train, make_windows(interactions, train, 5)


def training_scores(model, users, sequences):
    """Scores as the training step computes them: the query times gathered rows."""
    query = model.encode(tf.constant(users), tf.constant(sequences))
    items = np.tile(np.arange(1, model.num_items + 1), (len(users), 1))
    return np.asarray(model.score(query, tf.constant(items)))


def test_training_and_evaluation_agree(tiny_student, tiny_dataset):
    model, _, _, windows = trained(tiny_student, tiny_dataset)
    users, sequences = windows.users[ROWS], windows.sequences[ROWS]
    evaluated = np.asarray(FrozenScores(model).freeze()(users, sequences))[:, 1:]
    np.testing.assert_allclose(evaluated, training_scores(model, users, sequences), rtol=1e-5, atol=1e-6)


def test_training_and_the_cache_agree(tiny_student, tiny_dataset, tmp_path):
    model, interactions, _, windows = trained(tiny_student, tiny_dataset)
    path = teach(
        teacher=tiny_student,
        dataset=tiny_dataset,
        cache=str(tmp_path / "c"),
        k=6,
        mask="none",
        block_size=9,
        force=False,
    )
    key = CacheKey(interactions.fingerprint(), "test", 5, 1, windows.fingerprint())
    cache = load_teacher_cache(path, key, 6)
    scores = training_scores(model, windows.users, windows.sequences)
    np.testing.assert_array_equal(cache.items, np.argsort(-scores, 1, kind="stable")[:, :6] + 1)
    # The cache keeps half precision.
    np.testing.assert_allclose(cache.scores, -np.sort(-scores, 1)[:, :6], rtol=1e-3, atol=1e-3)


def test_training_and_the_export_agree(tiny_student, tiny_dataset, tmp_path):
    model, interactions, train, _ = trained(tiny_student, tiny_dataset)
    changed = {"run_dir": tiny_student, "dataset": tiny_dataset, "export_dir": str(tmp_path), "exclude_recent": False}
    path = export(**choose(export, default_flags(export), export_name="agreement", export_k=6, **changed))
    users = np.array([0, 3, 11], "int32")
    sequences = last_sequences(interactions, train, 5)[users]
    raw = [[interactions.item_ids[i - 1] if i else "" for i in row] for row in sequences]
    request = {
        "user_id": np.array([interactions.user_ids[user] for user in users], object),
        "recent_items": np.array(raw, object),
    }
    (served,) = run_saved_model(path, [request])
    scores = training_scores(model, users, sequences)
    best = np.argsort(-scores, 1, kind="stable")[:, :6]
    np.testing.assert_allclose(served["scores"], np.take_along_axis(scores, best, 1), rtol=1e-5, atol=1e-6)
    assert served["items"].tolist() == [[interactions.item_ids[i] for i in row] for row in best]

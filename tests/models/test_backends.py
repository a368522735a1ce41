"""Models and losses speak keras.ops: the same scores and losses on every backend that is installed."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = """
import numpy as np
from rd_tf.losses.weights import discrepancy_weight
from rd_tf.losses.weights import hybrid_weight
from rd_tf.losses.ranking import PointwiseLogLoss
from rd_tf.losses.weights import position_weight
from rd_tf.losses.weights import estimate_student_rank, exact_student_rank
from rd_tf.losses.distillation import weighted_pointwise
from rd_tf.losses.distillation import DualCorrectionDistillation, RankDistil, UnbiasedDistillation
from rd_tf.losses.ranking import GeneralizedBinaryCrossEntropy
from rd_tf.models.caser import Caser
from rd_tf.models.fossil import Fossil
from rd_tf.models.ranker import Histories
from rd_tf.models.sasrec import SASRec
from rd_tf.models.ranker import partial_top_k
from keras import ops

model = Caser(num_users=4, num_items=9, sequence_length=3, dim=4, conv_activation="tanh")
random = np.random.default_rng(0)
model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])
user, sequence = np.array([1, 3], "int32"), np.array([[1, 2, 3], [0, 0, 9]], "int32")
query = model.encode(user, sequence)
items, scores = model.recommend(user, sequence, np.array([[1], [0]], "int32"), 4)
logits = model.score(query, np.array([[1, 2, 3, 4], [5, 6, 7, 8]], "int32"))
shared = model.score_shared(query, np.array([[5, 6, 7]], "int32"), 2)
rank = estimate_student_rank(logits[:, :2], logits[:, 2:], 9)
weight = hybrid_weight(position_weight(2, 1.0), discrepancy_weight(rank, 0.1))
ranking = PointwiseLogLoss()(np.array([[1, 0, 0, -1]] * 2, "float32"), logits)
distillation = ops.mean(weighted_pointwise(weight, logits[:, :2]))
everything = model.score_all(query)
told = {
    "labels": np.array([[1.0, 0.0, 0.0, -1.0]] * 2, "float32"),
    "teacher_scores": np.array([[0.4, 0.2, 0.1, 0.0]] * 2, "float32"),
    "shared_logits": np.array([[0.3, -np.inf, 2.0], [-np.inf, -np.inf, -np.inf]], "float32"),
    "student_rank": np.array([[3.0, 0.0, 7.0, 9.0]] * 2, "float32"),
    "list_noise": random.random((2, 4)).astype("float32"),
    "item_groups": np.array([[0, 1, 0, 1]] * 2, "int32"),
    "num_items": 9,
}
told = {name: value if name == "num_items" else ops.convert_to_tensor(value) for name, value in told.items()}
of_lists = [
    loss.call(told, logits)
    for loss in (
        GeneralizedBinaryCrossEntropy(),
        DualCorrectionDistillation(list_samples=3),
        UnbiasedDistillation(list_samples=3),
        RankDistil(list_samples=3),
    )
]
exact = exact_student_rank(ops.take_along_axis(everything, np.array([[1, 2], [5, 6]], "int32"), axis=1), everything)
scaled = hybrid_weight(position_weight(2, 1.0), discrepancy_weight(exact, 0.1), renormalize=True)
ties = ops.convert_to_tensor(random.integers(0, 99, (3, 1003)).astype("float32"))
best, columns = partial_top_k(ties, 7)
fossil = Fossil(4, 9, 3, 4)
fossil.set_weights([random.normal(size=w.shape) for w in fossil.get_weights()])
history = Histories(np.array([4, 5, 5], "int32"), np.array([0, 0, 0], "int32"))
best_of_fossil = fossil.recommend(user, sequence, np.array([[1], [0]], "int32"), 4, history)
sasrec = SASRec(4, 9, 3, 4, heads=2, dropout=0.5)
sasrec.set_weights([random.normal(size=w.shape) for w in sasrec.get_weights()])
noise = random.uniform(size=(2, sasrec.noise_width)).astype("float32")
best_of_sasrec = sasrec.encode(user, sequence), sasrec.encode(user, sequence, training=True, noise=noise)
top = (best, columns, *best_of_fossil, *best_of_sasrec)
values = (*top, *of_lists, exact, scaled, items, scores, logits, shared, rank, weight, ranking, distillation)
found = [np.asarray(ops.convert_to_numpy(value), "float64").ravel().tolist() for value in values]
"""


@pytest.fixture(scope="module")
def of_tensorflow():
    assert keras.backend.backend() == "tensorflow"
    names = {}
    exec(SCRIPT, names)
    return names["found"]


def outputs(backend):
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    command = [sys.executable, "-c", f"import json\n{SCRIPT}\nprint(json.dumps(found))"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(ended.stdout.splitlines()[-1])


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_a_backend_agrees_with_tensorflow(backend, of_tensorflow):
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    for ours, theirs in zip(of_tensorflow, outputs(backend), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)

"""A flatbuffer for devices lists what the ranker does."""

import itertools
import json

import numpy as np
import pytest

from rd_tf.models.caser import Caser
from rd_tf.models.fossil import Fossil
from rd_tf.models.ranker import Histories
from rd_tf.models.sasrec import SASRec
from rd_tf.serving.export import export_ranker
from rd_tf.serving.litert import make_interpreter
from rd_tf.serving.publishing import ExportOptions
from rd_tf.serving.weights import rounded_copy
from rd_tf.storage import InputError

USERS, ITEMS = [f"user {i}" for i in range(5)], [f"item {i}" for i in range(30)]
LITERT = ExportOptions(export_format="litert", max_k=6)


@pytest.mark.parametrize(
    ("kind", "weights"),
    [*itertools.product((Caser, Fossil), ("float32", "float16", "int8")), (SASRec, "float32"), (SASRec, "int8")],
)
def test_the_interpreter_lists_what_the_ranker_does(kind, weights, tmp_path):
    model = kind(5, 30, sequence_length=3, dim=4)
    model.item_bias.assign(np.random.default_rng(0).normal(size=31))
    options = ExportOptions(export_format="litert", max_k=6, weights=weights)
    version = export_ranker(model, USERS, ITEMS, tmp_path / "app", options)
    assert (version / "users.txt").read_text().splitlines() == USERS
    assert (version / "items.txt").read_text().splitlines() == ITEMS
    report = json.loads((version / "assets.extra" / "report.json").read_text())
    assert report["bytes"]["weights"] == (version / "model.tflite").stat().st_size
    ranker = rounded_copy(model, weights)
    recent = np.array([4, 9, 30, 2], np.int32)
    inputs = {"user": np.array([1], np.int32), "sequence": recent[None, -3:]}
    history = None
    if model.has_history:
        inputs["history"] = np.array([[4, 0, 9, 30, 2]], np.int32)
        history = Histories(recent, np.zeros(4, np.int32))
    found = make_interpreter(version / "model.tflite")(**inputs)
    excluded = recent if history else recent[-3:]
    items, scores = ranker.recommend(inputs["user"], inputs["sequence"], excluded[None], 6, history)
    tolerance = 2e-3 if weights == "float16" else 1e-5
    np.testing.assert_allclose(found["scores"], np.array(scores)[0], rtol=tolerance, atol=tolerance)
    assert found["items"].dtype == np.int32
    np.testing.assert_array_equal(found["items"], np.array(items)[0])


def test_a_list_that_runs_out_of_items_is_padded(tmp_path):
    options = ExportOptions(export_format="litert")
    version = export_ranker(Caser(5, 6, sequence_length=3, dim=4), USERS, ITEMS[:6], tmp_path / "app", options)
    found = make_interpreter(version / "model.tflite")(
        user=np.array([5], "int32"), sequence=np.array([[0, 1, 2]], "int32")
    )
    assert set(found["items"][:4]) == {3, 4, 5, 6}
    assert found["items"][4:].tolist() == [0, 0]
    assert (found["scores"][4:] == np.finfo(np.float32).min).all()


def test_a_directory_holds_one_format(tmp_path):
    model = Caser(5, 30, sequence_length=3, dim=4)
    export_ranker(model, USERS, ITEMS, tmp_path / "app", LITERT)
    another = Caser(5, 30, sequence_length=3, dim=4, seed=1)
    assert export_ranker(another, USERS, ITEMS, tmp_path / "app", LITERT).name == "2"
    with pytest.raises(InputError, match="has versions of --export_format=litert, and one directory holds one format"):
        export_ranker(model, USERS, ITEMS, tmp_path / "app")

"""An export appears whole, checked and small, or not at all."""

import json

import numpy as np
import pytest
import tensorflow as tf
from serving.small_world import ITEMS, NUM_ITEMS, NUM_USERS, USERS, L, small_caser

from rd_tf.errors import InputError
from rd_tf.models.caser import Caser
from rd_tf.models.fossil import Fossil
from rd_tf.serving import saved_model
from rd_tf.serving.agreement import Disagreement, check_agreement
from rd_tf.serving.export import export_ranker
from rd_tf.serving.export_options import ExportOptions
from rd_tf.serving.query_encoder import last_known
from rd_tf.serving.unknown_user import with_unknown_user


@pytest.fixture(scope="module")
def model():
    return small_caser()


@pytest.mark.parametrize(
    "options",
    [
        ExportOptions(weights="int8", item_table=True),
        ExportOptions(weights="float16", exclude_recent=False),
        ExportOptions(index="clusters", clusters=4, probes=2, weights="int8"),
    ],
    ids=["int8", "float16", "clusters"],
)
def test_every_kind_of_export_is_checked_and_reported(model, tmp_path, options):
    version = export_ranker(model, USERS, ITEMS, tmp_path / "student", options)
    report = json.loads((version / "assets.extra" / "report.json").read_text())
    assert report["weights"] == options.weights
    assert report["max_k"] == NUM_ITEMS
    assert report["unknown_user"] == "the mean of all users"
    assert report["quality"] is None
    assert report["agreement"]["requests"] == 18
    assert report["agreement"]["largest_difference"] < 1e-5
    assert set(report["seconds_per_request"]) == {"1", "32"}
    assert report["index"]["kind"] == options.index
    if options.index == "clusters":
        assert 0 < report["index"]["recall@20"] <= 1
    files = [file for file in version.rglob("*") if file.is_file()]
    names = {file.name for file in files}
    assert ("item_table.npy" in names) == options.item_table
    beside = ("report.json", "item_table.npy", "item_ids.txt")
    assert report["bytes"]["total"] == sum(file.stat().st_size for file in files if file.name not in beside)
    assert sorted(file.name for file in (version / "assets").iterdir()) == ["items.txt.gz", "users.txt.gz"]


def test_a_ranker_that_looks_back_is_exported_too(tmp_path):
    model = Fossil(NUM_USERS, NUM_ITEMS, sequence_length=L, dim=4)
    version = export_ranker(model, USERS, ITEMS, tmp_path / "fossil")
    report = json.loads((version / "assets.extra" / "report.json").read_text())
    assert report["unknown_user"] == "the weights of all users alone"


def test_the_item_table_has_a_row_an_item(model, tmp_path):
    version = export_ranker(model, USERS, ITEMS, tmp_path / "student", ExportOptions(item_table=True))
    table = np.load(version / "assets.extra" / "item_table.npy")
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table[:, :-1], np.array(model.item_table)[1:])
    np.testing.assert_array_equal(table[:, -1], np.array(model.item_bias)[1:])
    assert (version / "assets.extra" / "item_ids.txt").read_text().split("\n")[:-1] == ITEMS


def test_compact_exports_are_small(tmp_path):
    model = Caser(4000, 5000, sequence_length=5, dim=50)
    users, items = [str(i) for i in range(4000)], [str(7 * i) for i in range(1, 5001)]
    sizes = {}
    for weights in ("float32", "float16", "int8"):
        options = ExportOptions(weights=weights, max_k=10)
        version = export_ranker(model, users, items, tmp_path / weights, options)
        sizes[weights] = sum(file.stat().st_size for file in version.rglob("*") if file.is_file())
    # A third of the published student: graph and ids, which do not shrink, weigh three times as much.
    assert sizes["float16"] <= 0.53 * sizes["float32"]
    assert sizes["int8"] <= 0.31 * sizes["float32"]


def test_known_users_keep_their_scores_bit_for_bit(model):
    wider = with_unknown_user(model)
    users, sequences = np.arange(NUM_USERS), np.arange(NUM_USERS * L).reshape(NUM_USERS, L) % (NUM_ITEMS + 1)
    old, new = (np.array(m.score_all(m.encode(users, sequences))) for m in (model, wider))
    np.testing.assert_array_equal(old, new)
    np.testing.assert_allclose(wider.user_table[NUM_USERS], np.mean(model.user_table, axis=0), rtol=1e-5, atol=1e-7)


def test_a_trained_row_for_unknown_users_is_kept():
    model = small_caser(unknown_user=True)
    assert with_unknown_user(model).count_params() == model.count_params() == small_caser().count_params() + model.dim
    np.testing.assert_array_equal(with_unknown_user(model).user_table, model.user_table)


def test_last_known_items_equal_a_plain_loop():
    random = np.random.default_rng(1)
    for n in (0, 1, 2, 5, 9):
        items = np.where(random.random((40, n)) < 0.5, 0, random.integers(1, 9, (40, n))).astype(np.int32)
        wanted = [([0] * 4 + [item for item in row if item])[-4:] for row in items]
        np.testing.assert_array_equal(last_known(tf.constant(items), 4), wanted)


def test_an_export_of_another_model_is_refused(model, tmp_path):
    options = ExportOptions().for_catalogue(NUM_ITEMS)
    version = export_ranker(model, USERS, ITEMS, tmp_path / "student", options)
    other = with_unknown_user(small_caser(seed=1))
    with pytest.raises(Disagreement, match="since its signature serving_default does not answer as the model does"):
        check_agreement(version, other, USERS, ITEMS, options)
    for file in (version / "variables").iterdir():
        file.unlink()
    with pytest.raises(Disagreement, match="since TensorFlow cannot run it"):
        check_agreement(version, with_unknown_user(model), USERS, ITEMS, options)


def test_versions_count_up_and_a_failure_leaves_the_old_ones_alone(model, tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("refused")

    directory = tmp_path / "student"
    (directory / "9").mkdir(parents=True)
    monkeypatch.setattr(saved_model, "check_agreement", refuse)
    with pytest.raises(RuntimeError, match="refused"):
        export_ranker(model, USERS, ITEMS, directory)
    assert sorted(entry.name for entry in directory.iterdir()) == [".lock", "9"]
    monkeypatch.setattr(saved_model, "check_agreement", lambda *_: None)
    assert export_ranker(model, USERS, ITEMS, directory) == directory / "10"
    assert sorted(entry.name for entry in directory.iterdir()) == [".last_version", ".lock", "10", "9"]


INT64 = ExportOptions(id_type="int64")
NUMBERS = [str(i) for i in range(1, 21)]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"options": ExportOptions(max_k=0)}, "--max_k=0 is below 1"),
        ({"options": ExportOptions(weights="int4")}, "--weights=int4 is none of float32, float16, int8"),
        ({"options": ExportOptions(index="clusters", clusters=21)}, "--clusters=21 is more than the 20 items"),
        ({"options": ExportOptions(index="clusters", clusters=4, probes=5)}, "--probes=5 is more than --clusters=4"),
        ({"options": ExportOptions(index="clusters", probes=0)}, "--probes=0 is below 1"),
        (
            {"options": ExportOptions(index="clusters", export_format="litert")},
            "--index=clusters does not go with --export_format=litert",
        ),
        ({"name": ".."}, r"--export_name=\.\. cannot be a served model's name"),
        ({"name": "a b"}, "--export_name=a b cannot be a served model's name"),
        ({"users": USERS[1:]}, "6 ids of users do not fit a model of 7 users"),
        ({"items": [*ITEMS[1:], ""]}, "'' among the ids of items is empty"),
        ({"items": [*ITEMS[1:], "a\r"]}, "holds a line break"),
        ({"items": [*ITEMS[1:], ITEMS[1]]}, "an id stands twice among the ids of items"),
        ({"options": INT64}, "'ünï' among the ids of users is not an int64; export with --id_type=string"),
        ({"options": INT64, "users": NUMBERS[:7]}, "'☕ café' among the ids of items is not an int64"),
        (
            {"options": INT64, "users": NUMBERS[:7], "items": ["0", *NUMBERS[1:]]},
            "an item has the id 0, which means no",
        ),
        ({"options": INT64, "users": NUMBERS[:7], "items": ["007", *NUMBERS[1:]]}, "'007' among the ids of items"),
        ({"options": INT64, "users": NUMBERS[:7], "items": [str(2**63), *NUMBERS[1:]]}, "is not an int64"),
        ({"name": "file"}, "file is a file, not a directory"),
    ],
)
def test_bad_input_is_refused_by_message(model, tmp_path, changed, message):
    (tmp_path / "file").touch()
    given = {"users": USERS, "items": ITEMS, "name": "student", "options": ExportOptions(), **changed}
    with pytest.raises(InputError, match=message):
        export_ranker(model, given["users"], given["items"], tmp_path / given["name"], given["options"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]

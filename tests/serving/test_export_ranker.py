"""An export appears whole, checked and small, or not at all."""

import functools
import json
import shutil
from unittest import mock

import numpy as np
import pytest
import tensorflow as tf
from serving.small_world import ITEMS, LOWEST, NUM_ITEMS, NUM_USERS, USERS, L, export_unchecked, request, small_caser
from tensorflow.core.protobuf import saved_model_pb2

from rd_tf.data.interactions import Interactions
from rd_tf.data.windows import Dataset
from rd_tf.models.caser import Caser
from rd_tf.models.fossil import Fossil
from rd_tf.models.sasrec import SASRec
from rd_tf.serving import export
from rd_tf.serving.export import export_ranker
from rd_tf.serving.litert import make_interpreter
from rd_tf.serving.publishing import ExportOptions
from rd_tf.serving.quality import Disagreement, HeldOutQuality, ServedRanker, check_agreement
from rd_tf.serving.savedmodel_check import SavedModelError, run_saved_model, run_signatures
from rd_tf.serving.search import ExactSearch
from rd_tf.serving.server.models import ModelStore
from rd_tf.serving.server.settings import Limits, single_model
from rd_tf.serving.signatures import last_known, write_ids
from rd_tf.serving.weights import put_back, with_items, with_unknown_user
from rd_tf.storage import InputError


def small_fossil():
    return Fossil(NUM_USERS, NUM_ITEMS, L, 4)


# Every kind, and both rankers.
KINDS = {
    "float32": (small_caser, ExportOptions()),
    "float16": (small_fossil, ExportOptions(weights="float16", exclude_recent=False)),
    "int8": (small_caser, ExportOptions(weights="int8", item_table=True)),
    "clusters": (small_caser, ExportOptions(index="clusters", clusters=4, probes=2)),
    "clusters-int8": (small_fossil, ExportOptions(index="clusters", clusters=4, probes=4, weights="int8")),
    "batching": (small_caser, ExportOptions(batching=True)),
}


class Measured(HeldOutQuality):
    """Users 0 .. 5 of the small world, whose items 4, 11 and 20 nobody was trained on."""

    untrained = (4, 11, 20)

    def __init__(self):
        random = np.random.default_rng(3)
        users = np.repeat(np.arange(NUM_USERS, dtype=np.int32), 10)
        trained = np.setdiff1d(np.arange(1, NUM_ITEMS + 1), self.untrained)
        rows = [
            np.concatenate([random.permutation(trained)[:8], random.permutation(self.untrained)[:1], [1 + user]])
            for user in range(NUM_USERS)
        ]
        rows[0][:8] = trained[:8]
        rows[1][:9] = trained[8:]
        rows[1][8] = self.untrained[0]
        items = np.concatenate(rows).astype(np.int32)
        stamps = np.tile(np.arange(10, dtype=np.int64), NUM_USERS)
        interactions = Interactions(users, items, stamps, USERS, ITEMS)
        super().__init__(Dataset(interactions).split("test"), L)

    def left_out(self):
        """Ids of the items without a training row."""
        return [ITEMS[item - 1] for item in range(1, NUM_ITEMS + 1) if item not in self.trained_items()]

    def seen(self):
        """Ids of every user's training items."""
        data, train = self.data.interactions, self.data.split.train
        return [[ITEMS[item - 1] for item in data.items[train & (data.users == user)]] for user in range(NUM_USERS)]


@pytest.fixture(scope="module")
def model():
    return small_caser()


@pytest.fixture(scope="module")
def plain(model, tmp_path_factory):
    """An export of all items."""
    return export_unchecked(model, USERS, ITEMS, tmp_path_factory.mktemp("plain") / "student")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """A kind -> its export of the items with a training row."""

    @functools.cache
    def export_kind(kind):
        make, options = KINDS[kind]
        model, quality = make(), Measured()
        # The items without one would be the best of all.
        bias = np.array(model.item_bias)
        bias[np.setdiff1d(np.arange(1, NUM_ITEMS + 1), quality.trained_items())] = 50
        model.item_bias.assign(bias)
        # In blocks, as large catalogues are searched.
        with mock.patch.object(export, "ExactSearch", functools.partial(ExactSearch, 5, 6)):
            return export_ranker(model, USERS, ITEMS, tmp_path_factory.mktemp(kind) / "student", options, quality)

    return export_kind


@pytest.fixture(scope="module")
def answers(exported):
    """A kind -> its export's answers: all items of everybody, scores, queries, three items for everybody."""
    quality = Measured()
    nothing, seen = [[]] * NUM_USERS, quality.seen()
    asked = [
        ("recommend", request(USERS, nothing, nothing, [NUM_ITEMS] * NUM_USERS)),
        ("score", request(USERS[:1], [[]], candidates=[ITEMS])),
        ("query", request(USERS[:1] * 2, [[*quality.left_out(), ITEMS[0]], [ITEMS[0]]])),
        ("serving_default", request(USERS, seen, seen, [3] * NUM_USERS)),
    ]
    return functools.cache(lambda kind: run_signatures(exported(kind), asked))


def report_of(version):
    return json.loads((version / "assets.extra" / "report.json").read_text())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_export_is_checked_and_reported(kind, exported):
    make, options = KINDS[kind]
    version = exported(kind)
    report = report_of(version)
    assert report["weights"] == options.weights
    assert report["max_k"] == report["items"] == len(Measured().trained_items())
    unknown_user = {small_caser: "the mean of all users", small_fossil: "the weights of all users alone"}
    assert report["unknown_user"] == unknown_user[make]
    assert report["agreement"]["requests"] == 18
    assert report["agreement"]["largest_difference"] < 1e-5
    assert set(report["seconds_per_request"]) == {"1", "32"}
    assert report["index"]["kind"] == options.index
    if options.index == "clusters":
        recall = [value for name, value in report["index"].items() if name.startswith("recall@")]
        assert recall
        assert all(0 < value <= 1 for value in recall)
    files = [file for file in version.rglob("*") if file.is_file()]
    names = {file.name for file in files}
    assert ("item_table.npy" in names) == options.item_table
    beside = ("report.json", "item_table.npy", "item_ids.txt")
    assert report["bytes"]["total"] == sum(file.stat().st_size for file in files if file.name not in beside)
    assert sorted(file.name for file in (version / "assets").iterdir()) == ["items.txt.gz", "users.txt.gz"]


def test_where_nothing_is_measured_all_items_are_served(plain):
    report = report_of(plain)
    assert report["quality"] is None
    assert report["max_k"] == report["items"] == NUM_ITEMS


def test_a_ranker_without_users_serves_everybody_alike(tmp_path):
    model = SASRec(NUM_USERS, NUM_ITEMS, sequence_length=L, dim=4, heads=2)
    version = export_ranker(model, USERS, ITEMS, tmp_path / "sasrec", ExportOptions(weights="int8", batching=True))
    report = json.loads((version / "assets.extra" / "report.json").read_text())
    assert report["unknown_user"] == "like any other user, known by the recent items alone"
    assert report["agreement"]["largest_difference"] < 1e-5
    assert "ResourceGather" not in operations(version)
    users, recent = [USERS[3], "nobody"], [ITEMS[4], "?", ITEMS[7]]
    asked = request(users, [recent, recent], [[], []], [5, 5])
    (found,) = run_saved_model(version, [asked])
    assert found["items"][0].tolist() == found["items"][1].tolist()
    np.testing.assert_array_equal(found["scores"][0], found["scores"][1])


def test_the_item_table_has_a_row_an_item(model, tmp_path):
    version = export_unchecked(model, USERS, ITEMS, tmp_path / "student", ExportOptions(item_table=True))
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
        version = export_unchecked(model, users, items, tmp_path / weights, options)
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


def test_an_export_of_another_model_is_refused(model, plain, tmp_path):
    version = shutil.copytree(plain, tmp_path / "1")
    served = ServedRanker.of(model, USERS, ITEMS, ExportOptions())
    other = with_unknown_user(small_caser(seed=1))
    with pytest.raises(Disagreement, match="since its signature serving_default does not answer as the model does"):
        check_agreement(version, other, served)
    for file in (version / "variables").iterdir():
        file.unlink()
    with pytest.raises(Disagreement, match="since TensorFlow cannot run it"):
        check_agreement(version, with_unknown_user(model), served)


def test_versions_count_up_and_a_failure_leaves_the_old_ones_alone(model, tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("refused")

    directory = tmp_path / "student"
    (directory / "9").mkdir(parents=True)
    monkeypatch.setattr(export, "check_agreement", refuse)
    with pytest.raises(RuntimeError, match="refused"):
        export_ranker(model, USERS, ITEMS, directory)
    assert sorted(entry.name for entry in directory.iterdir()) == [".lock", "9"]
    monkeypatch.setattr(export, "check_agreement", lambda *_: None)
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
        ({"options": ExportOptions(index="clusters", probes=-1)}, "--probes=-1 is below 0"),
        ({"options": ExportOptions(index="clusters", recall=0.0)}, "--recall=0.0 is not above 0"),
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


def operations(version):
    graph = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    return [node.op for nodes in (graph.node, *(f.node_def for f in graph.library.function)) for node in nodes]


@pytest.mark.parametrize("kind", KINDS)
def test_no_variable_is_gathered_from(kind, exported):
    """One ResourceGather on a variable makes every later read of the whole of it a copy."""
    found = operations(exported(kind))
    assert "ReadVariableOp" in found
    assert "ResourceGather" not in found
    assert "ResourceGatherNd" not in found
    assert ("BatchFunction" in found) == (kind == "batching")


def test_a_cut_file_of_a_version_is_noticed_when_it_is_loaded(plain, tmp_path):
    version = shutil.copytree(plain, tmp_path / "student" / "1")
    files = [path for path in version.rglob("*") if path.is_file() and path.name != "report.json"]
    assert len(files) == 6
    store = functools.partial(ModelStore, single_model("student", str(tmp_path / "student")), Limits(), 0)
    for file in files:
        whole = file.read_bytes()
        # Without its last few bytes a gzip file may still give the whole text; an empty warm-up file asks nothing.
        parts = [whole[: len(whole) // 2], whole[:-14], *([] if file.match("assets.extra/*") else [b""])]
        for part in parts:
            file.write_bytes(part)
            served = store()
            reasons = served.unavailable()
            served.close(5)
            assert reasons.get("student"), f"{file.name} of {len(part)} of {len(whole)} bytes"
        file.write_bytes(whole)
    served = store()
    assert not served.unavailable()
    served.close(5)


@pytest.mark.parametrize("lines", [ITEMS[:-1], [*ITEMS[:-1], "another"], [*ITEMS[::-1]]])
def test_altered_ids_are_noticed_by_the_loader_of_servers(plain, tmp_path, lines):
    version = shutil.copytree(plain, tmp_path / "1")
    write_ids(version / "assets" / "items.txt.gz", lines)
    with pytest.raises(SavedModelError, match=r"items\.txt\.gz is not the file that was exported"):
        run_saved_model(version, [request(USERS[:1], [[]], [[]], [1])])


@pytest.mark.parametrize("kind", KINDS)
def test_items_without_a_training_row_are_not_served(kind, exported, answers):
    left_out = Measured().left_out()
    assert 3 <= len(left_out) < 8
    lists, scored, asked, _ = answers(kind)
    listed = {item for row in lists["items"].tolist() for item in row}
    assert not listed & set(left_out)
    assert scored["known"][0].tolist() == [item not in left_out for item in ITEMS]
    assert (scored["scores"][0][~scored["known"][0]] == LOWEST).all()
    # In a history they are unknown items, which vanish.
    np.testing.assert_array_equal(*asked["query"])
    report = report_of(exported(kind))
    assert report["items"] == NUM_ITEMS - len(left_out)
    assert report["quality"]["exported"]["map"] == pytest.approx(report["quality"]["float32"]["map"], abs=0.02)


@pytest.mark.parametrize("weights", ["float32", "int8"])
def test_what_is_served_is_what_was_measured(weights, exported, answers):
    quality = Measured()
    data, split, seen = quality.data.interactions, quality.data.split, quality.seen()
    hits, users = 0, 0
    for user, row in enumerate(answers(weights)[3]["items"].tolist()):
        targets = {ITEMS[i - 1] for i in data.items[split.held_out & (data.users == user)]} - set(seen[user])
        users += bool(targets)
        hits += len(targets & set(row))
    report = report_of(exported(weights))
    assert report["quality"]["exported"]["precision@3"] == pytest.approx(hits / 3 / users)


def test_devices_get_the_trained_items_alone(tmp_path):
    model, quality = small_caser(), Measured()
    options = ExportOptions(export_format="litert")
    version = export_ranker(model, USERS, ITEMS, tmp_path / "app", options, quality)
    items = (version / "items.txt").read_text().splitlines()
    assert items == [ITEMS[item - 1] for item in quality.trained_items()]
    ask = make_interpreter(version / "model.tflite")
    found = ask(user=np.array([0], np.int32), sequence=np.zeros((1, L), np.int32))["items"]
    assert found.max() <= len(items)


@pytest.mark.parametrize(
    "make",
    [small_caser, small_fossil, lambda: SASRec(NUM_USERS, NUM_ITEMS, L, 4)],
    ids=["Caser", "Fossil", "SASRec"],
)
def test_a_ranker_of_some_items_scores_them_as_the_whole_one(make):
    model, items = make(), np.array([2, 3, 7, 19])
    part = with_items(model, items)
    marked = [weight.name for weight in model.weights if weight.shape and weight.shape[0] == NUM_ITEMS + 1]
    assert marked == [weight.name for weight in model.weights if getattr(weight, "row_an_item", False)]
    user = np.arange(2, dtype=np.int32)
    query = model.encode(user, np.array([[0, 3, 7], [2, 19, 7]], np.int32))
    same = part.encode(user, np.array([[0, 2, 3], [1, 4, 3]], np.int32))
    np.testing.assert_array_equal(query, same)
    np.testing.assert_allclose(
        np.array(part.score_all(same))[:, 1:], np.array(model.score_all(query))[:, items], rtol=1e-5
    )
    back = put_back(model, part, items)
    for old, new in zip(model.weights, back.weights, strict=True):
        np.testing.assert_array_equal(old, new)
    assert with_items(model, np.arange(1, NUM_ITEMS + 1)) is model

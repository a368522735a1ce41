"""An export, run by the C++ loader of tensorflow_model_server, answers as the ranker it was made from."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

from rd_tf.errors import InputError
from rd_tf.models.caser import Caser
from rd_tf.models.ranker import exclude_items
from rd_tf.serving import export as serving_export
from rd_tf.serving.agreement import check_agreement
from rd_tf.serving.export import export_ranker
from rd_tf.serving.savedmodel_check import SavedModelError, run_saved_model
from rd_tf.serving.signatures import last_known
from rd_tf.serving.unknown_user import with_unknown_user
from rd_tf.serving.warmup import WARMUP_FILE

L, NUM_USERS, NUM_ITEMS = 3, 7, 20
LOWEST = np.finfo(np.float32).min
USERS = ["0", "ünï", "user two", "用户", "4", "a\u2028b", "6"]
ITEMS = [*(str(i) for i in range(100, 116)), "☕ café", 'it\'s "quoted"', "tab\there", "x" * 300]
# k of the export that excludes recent items, and of the one that does not.
K = {True: NUM_ITEMS, False: 5}
CASES = {
    "one known user": (["0"], [["100", "101", "102"]]),
    "a batch": (["0", "4", "6"], [["100", "101"], ["110", "103"], ["105", "105"]]),
    "unicode ids": (
        ["ünï", "用户", "a\u2028b"],
        [["☕ café", "x" * 300], ['it\'s "quoted"', "tab\there"], ["☕ café", ""]],
    ),
    "unknown user": (["nobody", "", "é" * 100_000], [["100", "101", "102"]] * 3),
    "unknown items vanish": (["0", "4"], [["nothing", "100", "", "101", "☃"], ["", "102", "no", "", ""]]),
    "only unknown items": (["0"], [["nothing", "\x00", "z" * 100_000]]),
    "only empty items": (["0", "nobody"], [["", ""], ["", ""]]),
    "no items": (["0", "nobody"], [[], []]),
    "more than L items": (["0"], [["100", "101", "102", "103", "104", "105"]]),
    "L known items before unknown ones": (["0"], [["100", "101", "102", "103", "?", "?", "?", "?"]]),
    "more items than the catalogue": (["4"], [ITEMS * 3]),
    "no rows": ([], []),
}


@pytest.fixture(scope="module")
def model() -> Caser:
    model = Caser(NUM_USERS, NUM_ITEMS, sequence_length=L, dim=4)
    model.item_bias.assign(np.random.default_rng(0).normal(size=NUM_ITEMS + 1))
    return model


@pytest.fixture(scope="module")
def exports(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved_models")
    return {flag: export_ranker(model, USERS, ITEMS, directory / f"exclude_{flag}", K[flag], flag) for flag in K}


@pytest.fixture(scope="module")
def answers(exports):
    requests = [request(*case) for case in CASES.values()]
    return {flag: dict(zip(CASES, run_saved_model(exports[flag], requests), strict=True)) for flag in exports}


def request(users, recents):
    width = len(recents[0]) if recents else 0
    cells = [item for recent in recents for item in recent]
    return {
        "user_id": np.array(users, object),
        "recent_items": np.array(cells, object).reshape(len(users), width),
    }


def expected(model, user, recent, k, exclude_recent):
    numbers = [ITEMS.index(item) + 1 for item in recent if item in ITEMS]
    sequence = np.array([([0] * L + numbers)[-L:]], np.int32)
    query = np.array(model.encode(np.array([USERS.index(user) if user in USERS else 0]), sequence))
    if user not in USERS:
        query[0, -model.dim :] = np.array(model.user_table).mean(axis=0)
    exclude = np.array([numbers if exclude_recent else []], np.int32)
    scores = np.array(exclude_items(model.score_all(query), exclude))[0]
    best = np.argsort(-scores, kind="stable")[:k]
    items = ["" if np.isneginf(scores[item]) else ITEMS[item - 1] for item in best]
    return items, np.maximum(scores[best], LOWEST)


@pytest.mark.parametrize("exclude_recent", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_the_loader_lists_what_the_model_does(model, answers, case, exclude_recent):
    users, recents = CASES[case]
    answer, k = answers[exclude_recent][case], K[exclude_recent]
    assert answer["items"].shape == answer["scores"].shape == (len(users), k)
    assert answer["scores"].dtype == np.float32
    for row, (user, recent) in enumerate(zip(users, recents, strict=True)):
        items, scores = expected(model, user, recent, k, exclude_recent)
        assert answer["items"][row].tolist() == items
        np.testing.assert_allclose(answer["scores"][row], scores, rtol=0, atol=1e-5)


def test_recommend_gives_the_same_list(model, answers):
    sequence = np.array([[1, 2, 3]])
    items, scores = model.recommend(np.array([0]), sequence, np.zeros((1, 0), np.int32), K[False])
    answer = answers[False]["one known user"]
    assert answer["items"][0].tolist() == [ITEMS[item - 1] for item in np.array(items)[0]]
    np.testing.assert_allclose(answer["scores"], np.array(scores), rtol=0, atol=1e-5)


def test_a_list_that_runs_out_of_items_is_padded(answers):
    answer = answers[True]["more than L items"]
    assert (answer["items"][0, -6:] == "").all()
    assert (answer["scores"][0, -6:] == LOWEST).all()
    assert "" not in answer["items"][0, :-6]
    assert (answers[True]["more items than the catalogue"]["items"] == "").all()


def test_known_users_keep_their_scores_bit_for_bit(model):
    wider = with_unknown_user(model)
    users, sequences = np.arange(NUM_USERS), np.arange(NUM_USERS * L).reshape(NUM_USERS, L) % (NUM_ITEMS + 1)
    old, new = (np.array(m.score_all(m.encode(users, sequences))) for m in (model, wider))
    np.testing.assert_array_equal(old, new)
    assert wider.num_users == NUM_USERS + 1


def test_last_known_items_equal_a_plain_loop():
    random = np.random.default_rng(1)
    for n in (0, 1, 2, 5, 9):
        items = np.where(random.random((40, n)) < 0.5, 0, random.integers(1, 9, (40, n))).astype(np.int32)
        wanted = [([0] * 4 + [item for item in row if item])[-4:] for row in items]
        np.testing.assert_array_equal(last_known(tf.constant(items), 4), wanted)


def test_the_warm_up_file_holds_a_request_of_known_ids(exports):
    (record,) = tf.data.TFRecordDataset(str(exports[True] / WARMUP_FILE))
    asked = prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request
    assert (asked.model_spec.name, asked.model_spec.signature_name) == ("exclude_True", "serving_default")
    assert {text.decode() for text in asked.inputs["user_id"].string_val} <= set(USERS)
    assert {text.decode() for text in asked.inputs["recent_items"].string_val} <= set(ITEMS)


def test_an_export_of_another_model_is_refused(exports):
    other = Caser(NUM_USERS, NUM_ITEMS, sequence_length=L, dim=4, seed=1)
    with pytest.raises(RuntimeError, match="its lists are not the model's"):
        check_agreement(exports[False], other, USERS, ITEMS, K[False], False)


def test_a_model_whose_variables_are_not_found_is_refused(tmp_path):
    weight = tf.Variable(2.0)
    module = tf.Module()
    module.f = tf.function(lambda x: {"y": x * weight}, input_signature=[tf.TensorSpec([None], tf.float32, "x")])
    module.weight = weight
    tf.saved_model.save(module, str(tmp_path), signatures=module.f)
    assert run_saved_model(tmp_path, [{"x": np.array([1.5])}])[0]["y"].tolist() == [3.0]
    for file in (tmp_path / "variables").iterdir():
        file.unlink()
    with pytest.raises(SavedModelError):
        run_saved_model(tmp_path, [{"x": np.array([1.5])}])


def test_versions_count_up_and_a_failure_leaves_the_old_ones_alone(model, tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError("refused")

    directory = tmp_path / "student"
    (directory / "9").mkdir(parents=True)
    monkeypatch.setattr(serving_export, "check_agreement", refuse)
    with pytest.raises(RuntimeError, match="refused"):
        export_ranker(model, USERS, ITEMS, directory, 5)
    assert sorted(entry.name for entry in directory.iterdir()) == [".lock", "9"]
    monkeypatch.setattr(serving_export, "check_agreement", lambda *_: None)
    assert export_ranker(model, USERS, ITEMS, directory, 5) == directory / "10"
    assert sorted(entry.name for entry in directory.iterdir()) == [".lock", "10", "9"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"k": 21}, "--export_k=21 is not between 1 and the 20 items"),
        ({"k": 0}, "--export_k=0 is not between 1"),
        ({"name": ".."}, r"--export_name=\.\. cannot be a served model's name"),
        ({"name": "a b"}, "--export_name=a b cannot be a served model's name"),
        ({"users": USERS[1:]}, "6 ids of users do not fit a model of 7 users"),
        ({"items": [*ITEMS[1:], ""]}, "'' among the ids of items is empty"),
        ({"items": [*ITEMS[1:], "a\r"]}, "holds a line break"),
        ({"items": [*ITEMS[1:], ITEMS[1]]}, "an id stands twice among the ids of items"),
        ({"name": "file"}, "file is a file, not a directory"),
    ],
)
def test_bad_input_is_refused_by_message(model, tmp_path, changed, message):
    (tmp_path / "file").touch()
    given = {"users": USERS, "items": ITEMS, "name": "student", "k": 5, **changed}
    with pytest.raises(InputError, match=message):
        export_ranker(model, given["users"], given["items"], tmp_path / given["name"], given["k"])
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]

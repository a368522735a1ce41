"""The signatures of an export, asked through the C++ loader, against lists computed row by row, and any ids at all."""

import contextlib
import re

import grpc
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from serving.small_world import (
    ITEMS,
    LOWEST,
    NUM_ITEMS,
    USERS,
    expected_list,
    export_unchecked,
    query_of,
    request,
    small_caser,
)
from tensorflow_serving.apis import prediction_log_pb2

from rd_tf.serving.export import export_ranker
from rd_tf.serving.publishing import WARMUP_FILE, ExportOptions
from rd_tf.serving.savedmodel_check import SavedModelError, run_saved_model, run_signatures
from rd_tf.serving.server.inference import LoadedVersion
from rd_tf.serving.server.settings import Limits
from rd_tf.serving.server.wire import ServingError
from rd_tf.serving.weights import item_vectors
from rd_tf.storage import InputError

# users, recent items, excluded items, k
CASES = {
    "one known user": (["0"], [["100", "101", "102"]], [[]], [5]),
    "a batch with a k of its own for each": (["0", "4", "6"], [["100"], ["110"], ["105"]], [["101"]] * 3, [2, 7, 1]),
    "unicode ids": (
        ["ünï", "用户", "a\u2028b"],
        [["☕ café", "x" * 300], ['it\'s "quoted"', "tab\there"], ["☕ café", ""]],
        [["x" * 300]] * 3,
        [4, 4, 4],
    ),
    "unknown user": (["nobody", "", "é" * 100_000], [["100", "101", "102"]] * 3, [[]] * 3, [5, 5, 5]),
    "unknown items vanish": (
        ["0", "4"],
        [["nothing", "100", "", "101", "☃"], ["", "102", "no", "", ""]],
        [["?", "103"], ["", ""]],
        [5, 5],
    ),
    "only unknown items": (["0"], [["nothing", "\x00", "z" * 100_000]], [["?"]], [5]),
    "no items": (["0", "nobody"], [[], []], [[], []], [5, 5]),
    "more than L items": (["0"], [["100", "101", "102", "103", "104", "105"]], [[]], [30]),
    "all items are excluded": (["4"], [[]], [ITEMS * 2], [5]),
    "k of 0 and below": (["4", "4"], [[], []], [[], []], [0, -7]),
    "k of 0 beside another": (["4", "4"], [[], []], [[], []], [0, 3]),
    "k above the catalogue": (["4"], [["100"]], [[]], [2**31 - 1]),
    "no rows": ([], [], [], []),
}


@pytest.fixture(scope="module")
def model():
    return small_caser()


@pytest.fixture(scope="module")
def exports(model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved_models")
    options = {
        True: ExportOptions(),
        False: ExportOptions(exclude_recent=False),
        "batched": ExportOptions(batching=True),
    }
    return {
        name: export_unchecked(model, USERS, ITEMS, directory / f"exclude_{name}", chosen)
        for name, chosen in options.items()
    }


CANDIDATES = [["100", "?", "", "x" * 300], ["102", "100", "100", "\x00"]]
# An array of no rows has no columns in JSON: `"recent_items": []` is of shape [0].
NO_ROWS = {"user_id": np.zeros(0, object), "recent_items": np.zeros(0, object)}
NO_LISTS = {**NO_ROWS, "exclude_items": np.zeros(0, object), "k": np.zeros(0, np.int32)}
# Name -> signature and inputs.
ASKED = {
    "some": ("score", request(["0", "nobody"], [["101"], ["101"]], candidates=CANDIDATES)),
    "none": ("score", request(["0"], [["101"]], candidates=[[]])),
    "query": ("query", request(["0", "nobody"], [["101", "102"], ["103", "?"]])),
    "named": ("recommend", request(*CASES["a batch with a k of its own for each"])),
    "no lists": ("serving_default", NO_LISTS),
    "no scores": ("score", {**NO_ROWS, "candidates": np.zeros(0, object)}),
    "no queries": ("query", NO_ROWS),
}


@pytest.fixture(scope="module")
def answers(exports):
    """Answers of every export to all that is asked of it, in one process each."""
    lists = {case: ("serving_default", request(*CASES[case])) for case in CASES}
    asked = {True: {**lists, **ASKED}, False: lists}
    return {
        flag: dict(zip(asked[flag], run_signatures(exports[flag], list(asked[flag].values())), strict=True))
        for flag in asked
    }


@pytest.mark.parametrize("exclude_recent", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_a_list_is_what_the_model_ranks_highest(model, answers, case, exclude_recent):
    users, recents, excludes, k = CASES[case]
    answer = answers[exclude_recent][case]
    width = max([min(max(0, wanted), NUM_ITEMS) for wanted in k], default=0)
    assert answer["items"].shape == answer["scores"].shape == (len(users), width)
    assert answer["scores"].dtype == np.float32
    for row, (user, recent, exclude, wanted) in enumerate(zip(users, recents, excludes, k, strict=True)):
        excluded = [*exclude, *recent] if exclude_recent else exclude
        items, scores = expected_list(model, user, recent, excluded, wanted)
        missing = width - len(items)
        assert answer["items"][row].tolist() == items + [""] * missing
        np.testing.assert_allclose(answer["scores"][row], [*scores, *[LOWEST] * missing], rtol=0, atol=1e-5)


def test_max_k_bounds_a_list(model, tmp_path):
    path = export_unchecked(model, USERS, ITEMS, tmp_path / "short", ExportOptions(max_k=3))
    (answer,) = run_saved_model(path, [request(["0", "4"], [[], []], [[], []], [10, 2])])
    assert answer["items"].shape == (2, 3)
    assert answer["items"][1, 2] == ""


def test_named_items_are_scored(model, answers):
    answer, empty = (answers[True][name] for name in ("some", "none"))
    assert answer["known"].dtype == bool
    assert answer["known"].tolist() == [[True, False, False, True], [True, True, True, False]]
    for row, user in enumerate(["0", "nobody"]):
        scores = np.array(model.score_all(query_of(model, user, ["101"])))[0]
        wanted = [scores[ITEMS.index(name) + 1] if name in ITEMS else LOWEST for name in CANDIDATES[row]]
        np.testing.assert_allclose(answer["scores"][row], wanted, rtol=0, atol=1e-5)
    assert empty["scores"].shape == empty["known"].shape == (1, 0)


def test_a_query_times_the_item_table_is_the_score(model, answers):
    answer = answers[True]["query"]
    assert answer["query"].shape == (2, model.query_dim + 1)
    for row, (user, recent) in enumerate([("0", ["101", "102"]), ("nobody", ["103"])]):
        scores = np.array(model.score_all(query_of(model, user, recent)))[0, 1:]
        np.testing.assert_allclose(item_vectors(model) @ answer["query"][row], scores, rtol=0, atol=1e-5)


@pytest.mark.parametrize("id_type", ["string", "int64"])
@pytest.mark.parametrize("batching", [False, True])
def test_a_list_may_have_the_names_of_its_items(model, tmp_path, id_type, batching):
    users = [str(user) for user in range(len(USERS))]
    items = [str(100 + item) for item in range(NUM_ITEMS)]
    names = ["" if item % 5 == 0 else f"Film {item % 7}, \u2028 ☕" for item in range(NUM_ITEMS - 1)] + [""]
    options = ExportOptions(id_type=id_type, names=True, batching=batching)
    # Checked by the loader of servers, names too.
    path = export_ranker(model, users, items, tmp_path / "named", options, item_names=names)
    with asking(path) as run:
        typed = int if id_type == "int64" else str
        none = typed(0) if id_type == "int64" else ""
        asked = request([typed(0), typed(4)], [[typed(100)], [none]], [[none], [none]], [4, 2], none=none)
        answer = run("serving_default", asked)
        scored = run("score", request([typed(0)], [[none]], candidates=[[typed(101)]], none=none))
    assert scored.keys() == {"scores", "known"}
    known = dict(zip(map(typed, items), names, strict=True)) | {none: ""}
    listed = [[cell.decode() if isinstance(cell, bytes) else int(cell) for cell in row] for row in answer["items"]]
    assert [[known[item] for item in row] for row in listed] == [
        [cell.decode() for cell in row] for row in answer["names"]
    ]
    assert any(answer["names"].ravel())
    assert listed[1][2:] == [none, none]


def test_names_are_given_for_all_items_or_refused(model, tmp_path):
    with pytest.raises(InputError, match="--names takes a name for each of the 20 items, but 3 are given"):
        export_ranker(model, USERS, ITEMS, tmp_path / "a", ExportOptions(names=True), item_names=["a", "b", "c"])
    with pytest.raises(InputError, match="--names does not go with --export_format=litert"):
        ExportOptions(names=True, export_format="litert").for_catalogue(9)
    assert not (tmp_path / "a").exists()


def test_recommend_is_the_default(answers):
    default, named = (answers[True][name] for name in ("a batch with a k of its own for each", "named"))
    assert default["items"].tolist() == named["items"].tolist()


def test_ids_may_be_integers(model, tmp_path):
    users, items = [str(-3 + i) for i in range(len(USERS))], [str(10**i * (-1) ** i) for i in range(1, 19)]
    items += [str(2**63 - 1), str(-(2**63))]
    options = ExportOptions(id_type="int64")
    # Checked too, with strange integers.
    path = export_ranker(model, users, items, tmp_path / "integers", options)
    inputs = request([-3, 77], [[-10, 0, 100], [5]], [[2**63 - 1], [0]], [30, 2], none=0)
    score = request([-3], [[-10]], candidates=[[100, 0, 5]], none=0)
    answer, scored = run_signatures(path, [("recommend", inputs), ("score", score)])
    assert answer["items"].dtype == np.int64
    listed = [str(item) for item in answer["items"][0] if item]
    assert set(listed) == set(items) - {"-10", "100", str(2**63 - 1)}
    assert np.count_nonzero(answer["items"][1]) == 2
    assert (answer["scores"][answer["items"] == 0] == LOWEST).all()
    assert scored["known"].tolist() == [[True, False, False]]


def test_every_signature_is_warmed_up_with_known_ids(exports):
    records = tf.data.TFRecordDataset(str(exports[True] / WARMUP_FILE))
    logs = [prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log.request for record in records]
    assert {log.model_spec.signature_name for log in logs} == {"serving_default", "recommend", "score", "query"}
    for log in logs:
        assert log.model_spec.name == "exclude_True"
        assert {text.decode() for text in log.inputs["user_id"].string_val} <= set(USERS)
        assert {text.decode() for text in log.inputs["recent_items"].string_val} <= set(ITEMS)


@pytest.mark.parametrize("signature", ["serving_default", "score", "query"])
def test_inputs_of_unequal_rows_are_refused(ask_without_exclusion, signature):
    rows = (["0", "4"], [["100"], ["101"]])
    whole = {
        "serving_default": request(*rows, [["102"], ["103"]], [2, 3]),
        "score": request(*rows, candidates=[["102"], ["103"]]),
        "query": request(*rows),
    }[signature]
    for name, array in whole.items():
        # With --exclude_recent the excluded items would meet the recent ones, and their rows be compared anyway.
        with pytest.raises(tf.errors.InvalidArgumentError, match=r"expected \[rows"):
            ask_without_exclusion(signature, {**whole, name: array[:1]})


def test_a_signature_that_is_not_there_is_named(exports):
    with pytest.raises(SavedModelError, match="has no signature 'nothing'"):
        run_signatures(exports[True], [("nothing", {})])


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


def test_tables_of_no_rows_may_be_written_as_json_writes_them(exports, answers):
    lists, scores, queries = (answers[True][name] for name in ("no lists", "no scores", "no queries"))
    assert lists["items"].shape == lists["scores"].shape == (0, 0)
    assert scores["scores"].shape == (0, 0)
    assert queries["query"].shape[0] == 0
    message = r"recent_items: expected \[rows, n\], received \[1\] \(rows of user_id: 0\)\]"
    with pytest.raises(SavedModelError, match=message):
        run_saved_model(exports[True], [{**NO_LISTS, "recent_items": np.array(["100"], object)}])


GOOD = request(["0", "4"], [["100"], ["101"]], [["102"], ["103"]], [2, 3])


def strings(value):
    return np.array(value, object)


@pytest.fixture(scope="module")
def loaded(exports):
    """By whether the export batches: versions of the server in Python."""
    versions = {False: LoadedVersion(exports[True], 1, Limits()), True: LoadedVersion(exports["batched"], 1, Limits())}
    yield versions
    for version in versions.values():
        version.close()


@pytest.mark.parametrize("batching", [False, True])
@pytest.mark.parametrize(
    ("signature", "changed", "message"),
    [
        ("recommend", {"recent_items": strings(["7", "8"])}, "recent_items: expected [rows, n], received [2] (2)"),
        ("recommend", {"recent_items": strings("7")}, "recent_items: expected [rows, n], received [] (2)"),
        (
            "recommend",
            {"recent_items": strings([[["7"]], [["8"]]])},
            "recent_items: expected [rows, n], received [2, 1, 1] (2)",
        ),
        (
            "recommend",
            {"recent_items": strings([["7", "8", "9"]])},
            "recent_items: expected [rows, n], received [1, 3] (2)",
        ),
        ("recommend", {"exclude_items": strings(["7", "8"])}, "exclude_items: expected [rows, n], received [2] (2)"),
        ("recommend", {"k": np.array(3, np.int32)}, "k: expected [rows], received [] (2)"),
        ("recommend", {"k": np.array([3], np.int32)}, "k: expected [rows], received [1] (2)"),
        ("recommend", {"k": np.array([[3], [3]], np.int32)}, "k: expected [rows], received [2, 1] (2)"),
        ("recommend", {"user_id": strings("0")}, "user_id: expected [rows], received []"),
        ("recommend", {"user_id": strings([["0"], ["4"]])}, "user_id: expected [rows], received [2, 1]"),
        ("score", {"candidates": strings(["7", "8"])}, "candidates: expected [rows, n], received [2] (2)"),
        ("score", {"candidates": strings([["7"]])}, "candidates: expected [rows, n], received [1, 1] (2)"),
        ("query", {"recent_items": strings(["7", "8"])}, "recent_items: expected [rows, n], received [2] (2)"),
        ("query", {"user_id": strings("0")}, "user_id: expected [rows], received []"),
    ],
)
def test_a_request_of_the_wrong_shape_is_told_which_input_and_which_shape(
    loaded, signature, changed, message, batching
):
    names = {"recommend": ["exclude_items", "k"], "score": ["candidates"], "query": []}[signature]
    good = {**GOOD, "candidates": GOOD["exclude_items"]}
    asked = {name: good[name] for name in ["user_id", "recent_items", *names]} | changed
    said = re.sub(r" \((\d+)\)$", r" (rows of user_id: \1)", message)
    # A session's run() would compare the shapes itself, as no server does.
    with pytest.raises(ServingError) as caught:
        loaded[batching].run(signature, {name: encoded(array) for name, array in asked.items()})
    assert (caught.value.code, caught.value.message) == (grpc.StatusCode.INVALID_ARGUMENT, said)


def test_the_loader_of_servers_tells_a_wrong_shape_too(exports):
    for changed, message in [
        ({"recent_items": strings(["7", "8"])}, "recent_items: expected [rows, n], received [2] (rows of user_id: 2)"),
        ({"k": np.array(3, np.int32)}, "k: expected [rows], received [] (rows of user_id: 2)"),
        ({"user_id": strings("0")}, "user_id: expected [rows], received []"),
    ]:
        with pytest.raises(SavedModelError, match=re.escape(message)):
            run_saved_model(exports[True], [{**GOOD, **changed}])


MAX_EXAMPLES = 25
SOME_ID = st.one_of(
    st.sampled_from(ITEMS), st.text(max_size=20), st.just(""), st.just("\x00" * 3), st.just("y" * 50_000)
)
SOME_USER = st.one_of(st.sampled_from(USERS), st.text(max_size=20))


@st.composite
def rows(draw):
    count, n, m = draw(st.integers(0, 6)), draw(st.integers(0, 9)), draw(st.integers(0, 4))

    def table(width):
        return draw(st.lists(st.lists(SOME_ID, min_size=width, max_size=width), min_size=count, max_size=count))

    users = draw(st.lists(SOME_USER, min_size=count, max_size=count))
    k = draw(st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(0, 8), min_size=count, max_size=count))
    return users, table(n), table(m), k


@contextlib.contextmanager
def asking(path):
    """Answers requests with one export, in one session, through the loader that servers use."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(path))

        def run(signature, inputs):
            described = loaded.signature_def[signature]
            feeds = {described.inputs[name].name: encoded(value) for name, value in inputs.items()}
            return session.run({name: tensor.name for name, tensor in described.outputs.items()}, feeds)

        yield run


@pytest.fixture(scope="module")
def ask(exports):
    with asking(exports[True]) as run:
        yield run


@pytest.fixture
def ask_without_exclusion(exports):
    with asking(exports[False]) as run:
        yield run


def encoded(array):
    if array.dtype != object:
        return array
    cells = [text.encode("utf-8", "surrogatepass") for text in array.ravel()]
    return np.array(cells, object).reshape(array.shape)


@settings(max_examples=MAX_EXAMPLES, deadline=None)
@given(rows())
def test_lists_are_finite_distinct_and_of_the_asked_length(ask, asked):
    users, recents, excludes, k = asked
    answer = ask("serving_default", request(*asked))
    width = max([min(max(0, wanted), NUM_ITEMS) for wanted in k], default=0)
    assert answer["items"].shape == answer["scores"].shape == (len(users), width)
    assert np.isfinite(answer["scores"]).all()
    for row, wanted in enumerate(k):
        listed = [item.decode() for item in answer["items"][row] if item]
        assert len(listed) == len(set(listed)) <= max(0, wanted)
        assert not set(listed) & {*recents[row], *excludes[row]}
        assert set(listed) <= set(ITEMS)
        assert (np.diff(answer["scores"][row]) <= 0).all()
        remaining = NUM_ITEMS - len({*recents[row], *excludes[row]} & set(ITEMS))
        assert len(listed) == min(max(0, wanted), remaining)


@settings(max_examples=MAX_EXAMPLES, deadline=None)
@given(rows(), rows())
def test_no_row_depends_on_another_or_on_padding(ask, one, other):
    alone = ask("serving_default", request(*one))
    count = len(one[0])
    together = ask("serving_default", request(*(first + second for first, second in zip(one, other, strict=True))))
    width = alone["items"].shape[1]
    assert together["items"][:count, :width].tolist() == alone["items"].tolist()
    assert not any(item for item in together["items"][:count, width:].ravel())
    np.testing.assert_allclose(together["scores"][:count, :width], alone["scores"], rtol=1e-5, atol=1e-5)


@settings(max_examples=MAX_EXAMPLES, deadline=None)
@given(rows())
def test_scores_and_queries_are_finite(ask, asked):
    users, recents, candidates, _ = asked
    answer = ask("score", request(users, recents, candidates=candidates))
    assert np.isfinite(answer["scores"]).all()
    assert answer["known"].tolist() == [[name in ITEMS for name in row] for row in candidates]
    query = ask("query", request(users, recents))["query"]
    assert np.isfinite(query).all()
    assert (query[:, -1] == 1).all()


def test_a_large_batch_is_answered(ask):
    rows, rng = 3000, np.random.default_rng(0)
    users = [USERS[i] for i in rng.integers(0, len(USERS), rows)]
    recents = [[ITEMS[i] for i in row] for row in rng.integers(0, NUM_ITEMS, (rows, 5))]
    answer = ask("serving_default", request(users, recents, [[]] * rows, [3] * rows))
    assert answer["items"].shape == (rows, 3)
    assert all(answer["items"].ravel())

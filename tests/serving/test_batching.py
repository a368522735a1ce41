"""An export that answers requests together answers each as it would alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from serving.small_world import ITEMS, NUM_ITEMS, NUM_USERS, USERS, L, export_unchecked, small_caser

from rd_tf.models.fossil import Fossil
from rd_tf.serving.publishing import ExportOptions
from rd_tf.serving.server.inference import LoadedVersion
from rd_tf.serving.server.settings import Limits
from rd_tf.serving.server.wire import ServingError
from rd_tf.serving.signatures import WIDTH

# Of every kind of export.
MIXES = 650
CLIENTS = 24
NUMBERS = {"users": [str(10 + user) for user in range(NUM_USERS)], "items": [str(9 - i) for i in range(9)]}
NUMBERS["items"] += [str(100 + i) for i in range(NUM_ITEMS - 9)]
# Every pair of a ranker, a type of ids and a type of weights.
KINDS = [
    ("caser", "string", "float32"),
    ("caser", "int64", "int8"),
    ("fossil", "string", "int8"),
    ("fossil", "int64", "float32"),
]


def small_fossil():
    model = Fossil(NUM_USERS, NUM_ITEMS, sequence_length=L, dim=4)
    random = np.random.default_rng(1)
    for weight in model.weights:
        if weight.dtype == "float32":
            weight.assign(random.normal(size=weight.shape))
    return model


def ids(id_type):
    return (USERS, ITEMS) if id_type == "string" else (NUMBERS["users"], NUMBERS["items"])


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def exports(request, tmp_path_factory):
    """One kind of export, that answers together and that answers alone."""
    name, id_type, weights = request.param
    model = {"caser": small_caser, "fossil": small_fossil}[name]()
    loaded = []
    for batching in (True, False):
        # Item "0" of the int64 ids is none, so it is no id.
        options = ExportOptions(max_k=8, id_type=id_type, weights=weights, batching=batching)
        users, items = ids(id_type)
        items = ["-7" if item == "0" and id_type == "int64" else item for item in items]
        version = export_unchecked(model, users, items, tmp_path_factory.mktemp("exports") / "student", options)
        loaded.append(LoadedVersion(version, 1, Limits()))
    yield (*loaded, id_type)
    for version in loaded:
        version.close()


def some_request(random, id_type):
    """A signature and its inputs: lists of any width, unknown ids, none, any k, no rows."""
    users, items = ids(id_type)
    none = "" if id_type == "string" else "0"
    rows = int(random.choice([1, 1, 1, 1, 2, 4, 0]))
    signature = str(random.choice(["serving_default", "recommend", "recommend", "score", "query"]))

    def table(width):
        names = random.choice([*items, none, "12345"], (rows, width))
        return typed(names, id_type)

    inputs = {
        "user_id": typed(random.choice([*users, "999"], rows), id_type),
        "recent_items": table(int(random.integers(0, 21))),
    }
    if signature == "score":
        inputs["candidates"] = table(int(random.integers(0, 6)))
    elif signature != "query":
        # Now and then more than a row may bring along and still share a batch.
        inputs["exclude_items"] = table(WIDTH + 1 if random.random() < 0.02 else int(random.integers(0, 4)))
        inputs["k"] = random.integers(-1, 12, rows).astype(np.int32)
    return signature, inputs


def typed(names, id_type):
    if id_type == "int64":
        return np.array(names, np.int64) if names.size else np.zeros(names.shape, np.int64)
    array = np.empty(names.shape, object)
    array[...] = np.vectorize(str.encode, otypes=[object])(names) if names.size else array
    return array


def malformed(signature, inputs):
    """A request that cannot be answered."""
    rows = len(inputs["user_id"]) + 1
    if signature in ("score", "query"):
        id_type = "string" if inputs["user_id"].dtype == object else "int64"
        return {**inputs, "recent_items": typed(np.full((rows, 2), "12345"), id_type)}
    return {**inputs, "k": np.zeros(rows, np.int32)}


def check_equal(found, expected):
    assert found.keys() == expected.keys()
    for name in found:
        assert found[name].shape == expected[name].shape
    for name in {"scores", "query"} & found.keys():
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-5, atol=1e-5)
    if "known" in found:
        np.testing.assert_array_equal(found["known"], expected["known"])
    if "items" in found:
        # Only neighbours of one score, to the rounding of a matrix product, may change places.
        for items, others, scores in zip(found["items"], expected["items"], expected["scores"], strict=True):
            assert sorted(items) == sorted(others) or np.ptp(scores[-2:]) < 1e-4
            for place in np.flatnonzero(items != others):
                near = np.abs(np.delete(scores, place) - scores[place])
                assert near.min() < 1e-4


def test_answers_do_not_depend_on_who_else_asks(exports):
    together, alone, id_type = exports
    random = np.random.default_rng(MIXES)
    asked = [some_request(random, id_type) for _ in range(MIXES)]
    expected = [alone.run(*request) for request in asked]
    start = threading.Barrier(CLIENTS)

    def client(number):
        start.wait()
        for place in range(number, MIXES, CLIENTS):
            check_equal(together.run(*asked[place]), expected[place])
            if place % 7 == 0:
                with pytest.raises(ServingError):
                    together.run(asked[place][0], malformed(*asked[place]))
        return True

    with ThreadPoolExecutor(CLIENTS) as clients:
        assert all(clients.map(client, range(CLIENTS)))


def test_a_request_of_more_rows_than_a_batch_holds_is_answered(exports):
    together, alone, id_type = exports
    users = typed(np.array(ids(id_type)[0] * 30), id_type)
    inputs = {
        "user_id": users,
        "recent_items": typed(np.full((len(users), 2), ids(id_type)[1][3]), id_type),
        "exclude_items": typed(np.zeros((len(users), 0), "U1"), id_type),
        "k": np.full(len(users), 3, np.int32),
    }
    check_equal(together.run("", inputs), alone.run("", inputs))


def test_a_malformed_request_gets_its_own_error(exports):
    together, _, id_type = exports
    random = np.random.default_rng(0)
    signature, inputs = next(
        request for request in iter(lambda: some_request(random, id_type), None) if request[0] == "recommend"
    )
    with pytest.raises(ServingError) as error:
        together.run(signature, malformed(signature, inputs))
    assert error.value.code == grpc.StatusCode.INVALID_ARGUMENT


def test_two_versions_in_a_process_never_share_a_batch(tmp_path):
    """Their queues are named after what they hold; else one's requests would be answered by the other."""
    models = [small_caser(seed=seed) for seed in (0, 1)]
    options = ExportOptions(batching=True, batch_timeout_micros=20_000)
    versions = [
        LoadedVersion(export_unchecked(model, USERS, ITEMS, tmp_path / f"m{i}", options), 1, Limits())
        for i, model in enumerate(models)
    ]
    user, recent = np.array([USERS[1].encode()], object), np.array([[ITEMS[3].encode()]], object)
    inputs = {"user_id": user, "recent_items": recent, "exclude_items": recent, "k": np.array([5], np.int32)}
    apart = [version.run("", inputs)["scores"] for version in versions]
    assert not np.allclose(*apart)
    with ThreadPoolExecutor(16) as clients:
        answers = list(clients.map(lambda turn: versions[turn % 2].run("", inputs)["scores"], range(64)))
    for turn, scores in enumerate(answers):
        np.testing.assert_allclose(scores, apart[turn % 2], rtol=1e-5)

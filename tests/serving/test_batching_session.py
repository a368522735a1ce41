"""The local server batches before the graph as tensorflow_model_server does, faults included."""

import contextlib
import json
import socket
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
import tensorflow as tf
from serving.small_world import ITEMS, USERS, export_unchecked, small_caser
from serving.test_batching import KINDS, check_equal, ids, small_fossil, typed
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from rd_tf.serving.publishing import ExportOptions
from rd_tf.serving.server.inference import LoadedVersion, SessionBatcher, count_rows, merge, split
from rd_tf.serving.server.model_server import ModelServer
from rd_tf.serving.server.settings import Limits, SessionBatching, bind, read_batching_parameters, single_model
from rd_tf.serving.server.wire import ServingError
from rd_tf.serving.signatures import NO_SCORE
from rd_tf.storage import InputError

# Of every kind of export; 8 kinds make 5,200.
MIXES = 650
PADDING = SessionBatching(max_batch_size=8, allowed_batch_sizes=(1, 2, 4, 8), pad_variable_length_inputs=True)


def strings(rows):
    return np.array([[name.encode() for name in row] for row in rows], object).reshape(len(rows), len(rows[0]))


def test_a_shorter_list_is_padded_with_its_own_first_element():
    short, long = strings([["b", "c"], ["d", "e"]]), strings([["x", "y", "z"]])
    (merged,) = merge([[short], [long]], PADDING)
    # Filled up to four rows with the first row of the last request.
    assert merged.tolist() == strings(["bcb", "deb", "xyz", "xyz"]).tolist()


def test_numbers_are_padded_in_every_dimension_but_the_first():
    small, large = np.full((1, 1, 2), 7), np.arange(6).reshape(1, 2, 3)
    (merged,) = merge([[small], [large]], PADDING)
    assert merged.tolist() == [[[7, 7, 7], [7, 7, 7]], [[0, 1, 2], [3, 4, 5]]]


def test_an_empty_list_fails_the_whole_batch_unless_all_are_empty():
    empty, long = np.empty((1, 0), object), strings([["x"]])
    (merged,) = merge([[empty], [empty]], PADDING)
    assert merged.shape == (2, 0)
    with pytest.raises(ServingError, match="Got empty tensor in batch of non-empty tensors"):
        merge([[long], [empty]], PADDING)


def test_without_padding_only_equal_shapes_meet():
    batching = SessionBatching(max_batch_size=8)
    with pytest.raises(ServingError, match="padding is turned off") as error:
        merge([[strings(["ab"])], [strings(["abc"])]], batching)
    assert error.value.code == grpc.StatusCode.FAILED_PRECONDITION
    assert len(merge([[strings(["ab"])], [strings(["cd"])], [strings(["ef"])]], batching)[0]) == 3


def test_other_ranks_and_no_rows_are_told_what_the_real_server_would_do():
    with pytest.raises(ServingError, match="would crash tensorflow_model_server"):
        merge([[np.zeros((1, 2))], [np.zeros(1)]], PADDING)
    with pytest.raises(ServingError, match="never answered"):
        count_rows([np.zeros((0, 2))])
    with pytest.raises(ServingError, match="the same 0th dimension"):
        count_rows([np.zeros(2), np.zeros(3)])


def test_zeros_at_the_end_of_an_id_stay():
    (merged,) = merge([[strings([["a\0"]])], [strings([["x", "y"]])]], PADDING)
    assert merged.tolist() == [[b"a\0", b"a\0"], [b"x", b"y"]]


def test_without_padding_other_ranks_do_no_harm():
    with pytest.raises(ServingError, match="padding is turned off"):
        merge([[np.zeros((1, 2))], [np.zeros(1)]], SessionBatching(max_batch_size=8))


def test_a_busy_signature_keeps_no_other_waiting():
    stop = threading.Event()

    def compute(signature, inputs):
        time.sleep(0.01)
        return inputs

    batcher = SessionBatcher(SessionBatching(1, num_batch_threads=1, max_enqueued_batches=0), compute)

    def keep_busy():
        while not stop.is_set():
            # A queue of one batch is often full.
            with contextlib.suppress(ServingError):
                batcher.run("busy", [np.zeros(1)], 5)

    with ThreadPoolExecutor(4) as clients:
        busy = [clients.submit(keep_busy) for _ in range(4)]
        try:
            for _ in range(5):
                batcher.run("other", [np.zeros(1)], 2)
        finally:
            stop.set()
        for client in busy:
            client.result()
    batcher.close()


def test_outputs_are_split_by_rows_and_the_fill_is_dropped():
    outputs = [np.arange(4), np.arange(8).reshape(4, 2)]
    first, second = split(outputs, [2, 1], PADDING)
    assert [part.tolist() for part in first] == [[0, 1], [[0, 1], [2, 3]]]
    assert [part.tolist() for part in second] == [[2], [[4, 5]]]
    with pytest.raises(ServingError, match="0th dimension"):
        split([np.arange(3)], [2, 1], PADDING)


def test_requests_wait_for_each_other_but_not_for_other_signatures():
    sizes = []

    def compute(signature, inputs):
        sizes.append((signature, len(inputs[0])))
        return inputs

    batcher = SessionBatcher(SessionBatching(4, batch_timeout_micros=50_000, num_batch_threads=1), compute)
    with ThreadPoolExecutor(6) as clients:
        answers = list(clients.map(lambda i: batcher.run("ab"[i % 2], [np.array([i])], 5), range(6)))
    assert [answer[0].tolist() for answer in answers] == [[i] for i in range(6)]
    assert sum(size for _, size in sizes) == 6
    assert len(sizes) < 6
    with pytest.raises(ServingError, match="larger than max_batch_size = 4"):
        batcher.run("a", [np.zeros(5)], 5)
    batcher.close()
    assert not any(thread.name == "batches" for thread in threading.enumerate())


def test_too_many_waiting_batches_are_refused_and_patience_ends():
    release = threading.Event()

    def compute(signature, inputs):
        release.wait(10)
        return inputs

    batcher = SessionBatcher(SessionBatching(1, max_enqueued_batches=1, num_batch_threads=1), compute)
    with ThreadPoolExecutor(2) as clients:
        running = clients.submit(batcher.run, "a", [np.zeros(1)], 10)
        while not running.running() or batcher._waiting["a"]:
            time.sleep(0.01)
        with pytest.raises(ServingError, match="waited too long"):
            batcher.run("a", [np.zeros(1)], 0.01)
        with pytest.raises(ServingError, match="queue is full") as error:
            batcher.run("a", [np.zeros(1)], 1)
        assert error.value.code == grpc.StatusCode.UNAVAILABLE
        release.set()
        running.result()
    batcher.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("max_batch_size { value: 8 }\nallowed_batch_sizes: 4", "must ascend to max_batch_size = 8; received 4"),
        ("max_batch_size { value: 8 }\nmax_rows: 4", "line 2 is not a BatchingParameters"),
        ("max_batch_size { value: 0 }", "max_batch_size is 0, below 1"),
        ("enable_large_batch_splitting { value: true }", "which only tensorflow_model_server itself has"),
    ],
)
def test_a_bad_file_is_one_sentence(tmp_path, text, message):
    (tmp_path / "batching.config").write_text(text)
    with pytest.raises(InputError, match=message):
        read_batching_parameters(str(tmp_path / "batching.config"))


def test_a_file_gives_the_rules(tmp_path):
    lines = [
        "max_batch_size { value: 16 }",
        "batch_timeout_micros { value: 500 }",
        "num_batch_threads { value: 3 }",
        "allowed_batch_sizes: 4",
        "allowed_batch_sizes: 16",
        "pad_variable_length_inputs: true",
    ]
    (tmp_path / "batching.config").write_text("\n".join(lines))
    batching = read_batching_parameters(str(tmp_path / "batching.config"))
    assert batching == SessionBatching(16, 500, 10, 3, (4, 16), True)
    assert read_batching_parameters("").max_batch_size == 1000


class Export:
    """One export with requests put into batches by hand, and without."""

    def __init__(self, version):
        self.alone = LoadedVersion(version, 1, Limits())

    def together(self, signature, requests):
        """What a batch of these requests is answered; all of one signature."""
        names = list(self.alone.signature(signature).inputs)
        inputs = [[request[name] for name in names] for request in requests]
        merged = merge(inputs, PADDING)
        outputs = self.alone.run(signature, dict(zip(names, merged, strict=True)))
        rows = [count_rows(own) for own in inputs]
        return [dict(zip(outputs, own, strict=True)) for own in split(list(outputs.values()), rows, PADDING)]


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def export(request, tmp_path_factory):
    name, id_type, weights = request.param
    model = {"caser": small_caser, "fossil": small_fossil}[name]()
    users, items = ids(id_type)
    items = ["-7" if item == "0" and id_type == "int64" else item for item in items]
    options = ExportOptions(max_k=8, id_type=id_type, weights=weights)
    path = tmp_path_factory.mktemp("export") / "student"
    made = Export(export_unchecked(model, users, items, path, options))
    yield made, id_type
    made.alone.close()


def opened_request(random, id_type, signature):
    """A request of one or two rows in which every list begins with none and no list is empty."""
    users, items = ids(id_type)
    none = "" if id_type == "string" else "0"
    rows = int(random.integers(1, 3))

    def table(width):
        names = random.choice([*items, none, "12345"], (rows, 1 + width))
        names[:, 0] = none
        return typed(names, id_type)

    inputs = {
        "user_id": typed(random.choice([*users, "999"], rows), id_type),
        "recent_items": table(int(random.integers(0, 21))),
    }
    if signature == "score":
        return {**inputs, "candidates": table(int(random.integers(0, 6)))}
    if signature == "query":
        return inputs
    k = random.integers(-1, 12, rows).astype(np.int32)
    return {**inputs, "exclude_items": table(int(random.integers(0, 4))), "k": k}


def test_lists_that_begin_with_none_are_answered_as_alone(export):
    made, id_type = export
    random = np.random.default_rng(2)
    none = b"" if id_type == "string" else 0
    left = MIXES
    while left > 0:
        signature = str(random.choice(["serving_default", "recommend", "score", "query"]))
        requests = [opened_request(random, id_type, signature) for _ in range(int(random.integers(1, 5)))]
        left -= len(requests)
        for request, found in zip(requests, made.together(signature, requests), strict=True):
            expected = made.alone.run(signature, request)
            own = {}
            for name, array in found.items():
                # A neighbour that asks for more makes an answer wider; behind it nothing stands.
                width = expected[name].shape[1]
                own[name], rest = array[:, :width], array[:, width:]
                assert (rest == {"items": none, "scores": NO_SCORE, "known": False}.get(name)).all()
            check_equal(own, expected)


def one(recent, exclude, k=8):
    """A request for the second user."""
    inputs = {"user_id": np.array([USERS[1].encode()], object), "k": np.array([k], np.int32)}
    for name, row in (("recent_items", recent), ("exclude_items", exclude)):
        inputs[name] = np.array([[item.encode() for item in row]], object).reshape(1, len(row))
    return inputs


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """One version of a model of that name."""
    return export_unchecked(small_caser(), USERS, ITEMS, tmp_path_factory.mktemp("models") / "student")


def test_the_faults_of_the_real_server_are_seen_here(student):
    made = Export(student)
    short, long = one(ITEMS[:1], ITEMS[5:6]), one(ITEMS[1:5], ITEMS[5:6])
    alone, (beside, _) = made.alone.run("", short), made.together("serving_default", [short, long])
    assert not np.allclose(alone["scores"], beside["scores"], rtol=1e-3)
    # It is answered as if he had been there four times.
    four_times = made.alone.run("", one(ITEMS[:1] * 4, ITEMS[5:6]))
    np.testing.assert_allclose(beside["scores"], four_times["scores"], rtol=1e-5)
    with pytest.raises(ServingError, match="Got empty tensor"):
        made.together("serving_default", [long, one(ITEMS[:2], [])])
    made.alone.close()


def test_a_loaded_version_batches_where_it_is_told_to(student):
    rules = SessionBatching(8, 100_000, 10, 1, (1, 2, 4, 8), True)
    batched, plain = LoadedVersion(student, 1, Limits(), rules), LoadedVersion(student, 1, Limits())
    requests = [one(["", *ITEMS[i : i + 1 + i % 3]], [""], k=1 + i % 4) for i in range(8)]
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda request: batched.run("", request), requests))
    for request, answer in zip(requests, answers, strict=True):
        expected = plain.run("", request)
        width = expected["items"].shape[1]
        np.testing.assert_allclose(answer["scores"][:, :width], expected["scores"], rtol=1e-5)
    # They came together, so that some answers are as wide as a neighbour's.
    assert max(answer["items"].shape[1] for answer in answers) == 4
    assert any(answer["items"].shape[1] > 1 + i % 4 for i, answer in enumerate(answers))
    batched.close()
    plain.close()


def test_clients_of_both_interfaces_meet_in_batches(student):
    rules = SessionBatching(8, 20_000, 100, 2, (2, 4, 8), True)
    rest = bind("127.0.0.1", 0)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ModelServer(
        single_model("student", str(student.parent)), port=port, rest_socket=rest, poll_seconds=0, batching=rules
    )
    url = f"http://127.0.0.1:{rest.getsockname()[1]}/v1/models/student:predict"
    plain_rest = bind("127.0.0.1", 0)
    plain = ModelServer(single_model("student", str(student.parent)), rest_socket=plain_rest, poll_seconds=0)
    plain_url = f"http://127.0.0.1:{plain_rest.getsockname()[1]}/v1/models/student:predict"

    def row(turn):
        random = np.random.default_rng(turn)
        recent = ["", *random.choice(ITEMS, turn % 7)]
        return {
            "user_id": USERS[turn % 7],
            "recent_items": recent,
            "exclude_items": ["", *random.choice(ITEMS, turn % 3)],
            "k": 1 + turn % 5,
        }

    def over_rest(where, turn):
        body = json.dumps({"instances": [row(turn)]}).encode()
        with urllib.request.urlopen(urllib.request.Request(where, body)) as response:
            answer = json.load(response)["predictions"][0]
        return answer["items"], answer["scores"]

    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)

        def over_grpc(turn):
            request = predict_pb2.PredictRequest()
            request.model_spec.name = "student"
            for name, value in row(turn).items():
                request.inputs[name].CopyFrom(tf.make_tensor_proto([value], tf.int32 if name == "k" else tf.string))
            outputs = stub.Predict(request, timeout=30).outputs
            return [item.decode() for item in outputs["items"].string_val], list(outputs["scores"].float_val)

        with ThreadPoolExecutor(16) as clients:
            answers = list(clients.map(lambda turn: over_rest(url, turn) if turn % 2 else over_grpc(turn), range(120)))
    wider = 0
    for turn, (items, scores) in enumerate(answers):
        own_items, own_scores = over_rest(plain_url, turn)
        width = len(own_items)
        np.testing.assert_allclose(scores[:width], own_scores, rtol=1e-5)
        assert items[:width] == own_items
        assert not any(items[width:])
        wider += len(items) > width
    # Some met neighbours who asked for more.
    assert wider
    server.close()
    plain.close()

"""Whatever a request holds, an export answers, row by row, in finite numbers."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from serving.small_world import ITEMS, NUM_ITEMS, USERS, request, small_caser

from rd_tf.serving.export import export_ranker

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


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """Answers requests with one export, in one session, through the loader that servers use."""
    path = export_ranker(small_caser(), USERS, ITEMS, tmp_path_factory.mktemp("saved_models") / "student")
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(path))

        def run(signature, inputs):
            described = loaded.signature_def[signature]
            feeds = {described.inputs[name].name: encoded(value) for name, value in inputs.items()}
            return session.run({name: tensor.name for name, tensor in described.outputs.items()}, feeds)

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

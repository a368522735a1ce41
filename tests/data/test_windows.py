"""Windows: by hand, against a slow oracle, and against what the authors' code makes."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rd_tf.data.interactions import Interactions
from rd_tf.data.windows import last_sequences, make_windows

AUTHORS = Path(__file__).parents[1] / "conformance" / "windows.json"


def of_histories(histories: list[list[int]]) -> Interactions:
    users = np.repeat(np.arange(len(histories), dtype=np.int32), [len(history) for history in histories])
    items = np.array([item for history in histories for item in history], np.int32)
    size = int(items.max(initial=0))
    ids = [str(user) for user in range(len(histories))], [str(item) for item in range(1, size + 1)]
    return Interactions(users, items, np.arange(len(users), dtype=np.int64), *ids)


def everything(interactions: Interactions) -> np.ndarray:
    return np.ones(len(interactions), bool)


def test_windows_step_by_one_and_are_named_by_their_last_position():
    interactions = of_histories([[1, 2, 3, 4, 5]])
    windows = make_windows(interactions, everything(interactions), 3, 1)
    assert windows.sequences.tolist() == [[1, 2, 3], [2, 3, 4]]
    assert windows.targets.tolist() == [[4], [5]]
    assert windows.users.tolist() == [0, 0]
    assert windows.positions.tolist() == [3, 4]


def test_short_history_is_padded_on_the_left_and_an_empty_one_has_no_window():
    interactions = of_histories([[7, 8], [], [9]])
    windows = make_windows(interactions, everything(interactions), 3, 2)
    assert windows.sequences.tolist() == [[0, 0, 0], [0, 0, 0]]
    assert windows.targets.tolist() == [[7, 8], [0, 9]]
    assert windows.users.tolist() == [0, 2]
    assert windows.positions.tolist() == [1, 0]


def test_only_training_rows_count():
    interactions = of_histories([[1, 2, 3, 4]])
    train = np.array([True, True, True, False])
    assert make_windows(interactions, train, 2, 1).targets.tolist() == [[3]]
    assert last_sequences(interactions, train, 2).tolist() == [[2, 3]]


def test_last_sequences_of_short_and_empty_histories():
    interactions = of_histories([[7, 8], [], [1, 2, 3, 4]])
    assert last_sequences(interactions, everything(interactions), 3).tolist() == [[0, 7, 8], [0, 0, 0], [2, 3, 4]]


@pytest.mark.parametrize(("sequence_length", "target_length"), [(0, 1), (1, 0)])
def test_lengths_below_one(sequence_length, target_length):
    interactions = of_histories([[1]])
    with pytest.raises(ValueError, match=f"at least 1; received L={sequence_length}, T={target_length}"):
        make_windows(interactions, everything(interactions), sequence_length, target_length)


@given(st.lists(st.lists(st.integers(1, 9), max_size=9), max_size=5), st.integers(1, 4), st.integers(1, 3))
def test_windows_are_the_oracles(histories, sequence_length, target_length):
    length, expected = sequence_length + target_length, []
    for user, history in enumerate(histories):
        padded = [0] * (length - len(history)) + history if history else []
        for end in range(length, len(padded) + 1):
            window = padded[end - length : end]
            position = end - 1 - (len(padded) - len(history))
            expected.append((user, position, window[:sequence_length], window[sequence_length:]))
    interactions = of_histories(histories)
    windows = make_windows(interactions, everything(interactions), sequence_length, target_length)
    columns = (windows.users, windows.positions, windows.sequences, windows.targets)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected
    assert [column.dtype.name for column in columns] == ["int32"] * 4
    last = last_sequences(interactions, everything(interactions), sequence_length)
    assert last.tolist() == [([0] * sequence_length + history)[-sequence_length:] for history in histories]


@given(st.lists(st.lists(st.integers(1, 9), max_size=9), max_size=5), st.integers(1, 4), st.integers(1, 3))
def test_short_windows_are_the_oracles(histories, sequence_length, target_length):
    expected = []
    for user, history in enumerate(histories):
        # Every run of T items that something comes before; of a history without one, all of it.
        begins = range(1, len(history) - target_length + 1) or [len(history) - target_length] * bool(history)
        for begin in begins:
            before, targets = history[: max(begin, 0)], history[max(begin, 0) : begin + target_length]
            sequence = ([0] * sequence_length + before)[-sequence_length:]
            padded = [0] * (target_length - len(targets)) + targets
            expected.append((user, begin + target_length - 1, sequence, padded))
    interactions = of_histories(histories)
    windows = make_windows(interactions, everything(interactions), sequence_length, target_length, short=True)
    columns = (windows.users, windows.positions, windows.sequences, windows.targets)
    assert list(zip(*(column.tolist() for column in columns), strict=True)) == expected


def test_short_windows_stand_before_the_others_and_have_a_fingerprint_of_their_own():
    interactions = of_histories([[1, 2, 3, 4, 5], [6], [7, 8]])
    short, whole = (make_windows(interactions, everything(interactions), 3, 1, short) for short in (True, False))
    assert short.sequences.tolist() == [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4], [0, 0, 0], [0, 0, 7]]
    assert short.targets[:, 0].tolist() == [2, 3, 4, 5, 6, 8]
    assert short.positions.tolist() == [1, 2, 3, 4, 0, 1]
    assert short.fingerprint() != whole.fingerprint()


def test_windows_do_not_depend_on_how_many_are_cut_at_once(monkeypatch):
    interactions = of_histories([[1, 2, 3, 4, 5], [], [6, 7], [8, 9, 1, 2]])
    train, cut = everything(interactions), (make_windows, last_sequences)
    whole = [function(interactions, train, 2) for function in cut]
    monkeypatch.setattr("rd_tf.data.windows._BLOCK", 2)
    windows, last = (function(interactions, train, 2) for function in cut)
    assert windows.fingerprint() == whole[0].fingerprint()
    np.testing.assert_array_equal(last, whole[1])


def test_fingerprint_tells_lengths_and_items_apart():
    one, other = of_histories([[1, 2, 3, 4]]), of_histories([[1, 2, 4, 3]])
    all_rows = everything(one)
    prints = [make_windows(one, all_rows, 2, 1), make_windows(one, all_rows, 1, 2), make_windows(other, all_rows, 2, 1)]
    assert len({windows.fingerprint() for windows in prints}) == 3
    assert make_windows(one, all_rows, 2, 1).fingerprint() == prints[0].fingerprint()


def test_windows_are_the_authors_for_histories_that_fill_one():
    authors = json.loads(AUTHORS.read_text())
    length, total = authors["L"], authors["L"] + authors["T"]
    histories: list[list[int]] = [[] for _ in range(authors["num_users"])]
    for user, item in authors["train"]:
        histories[authors["user_ids"][user]].append(authors["item_ids"][item])
    interactions = of_histories(histories)
    full = {user for user, history in enumerate(histories) if len(history) >= total}

    def as_set(users, sequences, targets):
        rows = zip(users, map(tuple, sequences), map(tuple, targets), strict=True)
        return {row for row in rows if row[0] in full}

    ours = make_windows(interactions, everything(interactions), length, authors["T"])
    theirs = as_set(authors["users"], authors["sequences"], authors["targets"])
    assert len(full) > 1
    assert as_set(ours.users.tolist(), ours.sequences.tolist(), ours.targets.tolist()) == theirs
    last = last_sequences(interactions, everything(interactions), length).tolist()
    for user in (user for user, history in enumerate(histories) if len(history) >= length):
        assert last[user] == authors["test_sequences"][user]

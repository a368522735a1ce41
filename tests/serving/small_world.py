"""A small ranker with awkward ids, and what its exports should answer, computed row by row."""

from unittest import mock

import numpy as np

from rd_tf.models.caser import Caser
from rd_tf.models.ranker import exclude_items
from rd_tf.serving import export

L, NUM_USERS, NUM_ITEMS = 3, 7, 20
LOWEST = np.finfo(np.float32).min
USERS = ["0", "ünï", "user two", "用户", "4", "a\u2028b", "6"]
ITEMS = [*(str(i) for i in range(100, 116)), "☕ café", 'it\'s "quoted"', "tab\there", "x" * 300]


def small_caser(**changed):
    model = Caser(NUM_USERS, NUM_ITEMS, sequence_length=L, dim=4, **changed)
    model.item_bias.assign(np.random.default_rng(0).normal(size=NUM_ITEMS + 1))
    return model


def export_unchecked(*arguments, **named):
    """`export_ranker` without a process that asks the export, for tests of something else than its answers."""
    with mock.patch.object(export, "check_agreement", return_value={}):
        return export.export_ranker(*arguments, **named)


def request(users, recents, excludes=None, k=(), candidates=None, none=""):
    """Inputs of every signature that has those names; rows are padded to equal length."""

    def table(rows):
        width = max([len(row) for row in rows], default=0)
        cells = [cell for row in rows for cell in [*row, *[none] * (width - len(row))]]
        return np.array(cells, object if none == "" else np.int64).reshape(len(users), width)

    inputs = {"user_id": np.array(users, object if none == "" else np.int64), "recent_items": table(recents)}
    if candidates is not None:
        return {**inputs, "candidates": table(candidates)}
    if excludes is None:
        return inputs
    return {**inputs, "exclude_items": table(excludes), "k": np.array(k, np.int32)}


def query_of(model, user, recent):
    numbers = [ITEMS.index(item) + 1 for item in recent if item in ITEMS]
    sequence = np.array([([0] * L + numbers)[-L:]], np.int32)
    query = np.array(model.encode(np.array([USERS.index(user) if user in USERS else 0]), sequence))
    if user not in USERS:
        query[0, -model.dim :] = np.array(model.user_table).mean(axis=0)
    return query


def expected_list(model, user, recent, exclude, k):
    """Raw ids and scores of a list of min(k, NUM_ITEMS), padded."""
    numbers = [ITEMS.index(item) + 1 for item in exclude if item in ITEMS]
    scores = model.score_all(query_of(model, user, recent))
    scores = np.array(exclude_items(scores, np.array([numbers], np.int32)))[0]
    best = np.argsort(-scores, kind="stable")[: max(0, min(k, NUM_ITEMS))]
    items = ["" if np.isneginf(scores[item]) else ITEMS[item - 1] for item in best]
    return items, np.maximum(scores[best], LOWEST)

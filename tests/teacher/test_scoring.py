"""Teachers by their scores: solved ones against slow oracles, fusions, lists for any windows, and the command."""

import numpy as np
import pytest

from rd_tf.command_line import choose, default_flags
from rd_tf.data.teacher_lists import load_cache_manifest, load_teacher_cache
from rd_tf.data.windows import Dataset, open_dataset
from rd_tf.evaluation.evaluator import Evaluator, evaluate_on
from rd_tf.models.registry import load_model
from rd_tf.storage import InputError
from rd_tf.teach import teach
from rd_tf.teacher import named
from rd_tf.teacher.cache import teacher_lists
from rd_tf.teacher.named import (
    PopularityTeacher,
    TeacherNames,
    choose_ease_l2,
    choose_weights,
    ease,
    item_knn,
    make_teacher,
)
from rd_tf.teacher.scoring import FusedTeacher, RankerTeacher, Teacher, evaluate_teacher, lists_of
from rd_tf.train import train


@pytest.fixture(scope="module")
def data(tiny_dataset):
    return open_dataset(tiny_dataset).split("validation")


def visits_of(data):
    visits = np.zeros((data.num_users, data.num_items + 1))
    visits[data.users, data.items] = 1
    return visits


def test_ease_is_the_best_linear_autoencoder_without_a_diagonal(data):
    scores = ease(data, 30.0).user_scores(np.arange(data.num_users))
    items, visits = np.flatnonzero(data.is_candidate), visits_of(data)
    known = visits[:, items]
    # Column by column: ridge regression of an item on all others.
    for column in (0, 5, len(items) - 1):
        others = np.delete(np.arange(len(items)), column)
        x = known[:, others]
        weights = np.linalg.solve(x.T @ x + 30.0 * np.eye(len(others)), x.T @ known[:, column])
        np.testing.assert_allclose(scores[:, items[column]], x @ weights, atol=1e-4)
    assert np.isneginf(scores[:, ~data.is_candidate]).all()


def test_ease_says_what_it_needs_before_it_fails(data, monkeypatch):
    monkeypatch.setattr(named, "free_bytes", lambda: 10_000)
    with pytest.raises(
        InputError, match=r"needs 0\.0 GB for \d+ items, but 0\.0 GB are free; use the teacher item_knn"
    ):
        ease(data)


@pytest.mark.parametrize("rows", [7, 512])
def test_item_knn_adds_the_similarities_of_the_nearest_items(data, monkeypatch, rows):
    monkeypatch.setattr(named, "_ROWS", rows)
    scores = item_knn(data, 4, 2.0).user_scores(np.arange(data.num_users))
    items, visits = np.flatnonzero(data.is_candidate), visits_of(data)
    known = visits[:, items]
    # In float32, as there: rounding decides between items that are as near.
    norms = np.sqrt(known.sum(0).astype(np.float32))
    similarity = (known.T @ known).astype(np.float32) / (np.outer(norms, norms) + np.float32(2.0))
    np.fill_diagonal(similarity, 0)
    for row in similarity:
        # Of equal ones those with the lower numbers stay.
        row[np.argsort(-row, kind="stable")[4:]] = 0
    np.testing.assert_allclose(scores[:, items], known @ similarity, atol=1e-5)


def test_popularity_counts_training_rows(data):
    scores = PopularityTeacher(data).user_scores(np.array([3, 1]))
    np.testing.assert_array_equal(scores[:, data.is_candidate], [visits_of(data).sum(0)[data.is_candidate]] * 2)
    assert np.isneginf(scores[:, 0]).all()


class Fixed(Teacher):
    """Scores of a table, a row a user."""

    def __init__(self, data, table):
        super().__init__(data)
        self.table, self.fingerprint = np.asarray(table, np.float32), "fixed"

    def user_scores(self, users):
        return np.where(self.data.is_candidate, self.table[users], -np.inf).astype(np.float32)


def test_fusions(data):
    random = np.random.default_rng(0)
    tables = random.normal(size=(2, data.num_users, data.num_items + 1)) * [[[1.0]], [[50.0]]] + 7
    teachers, is_candidate = [Fixed(data, table) for table in tables], data.is_candidate
    users, among = np.array([4, 0, 4]), tables[:, :, data.is_candidate]
    spread = (among - among.mean(2, keepdims=True)) / among.std(2, keepdims=True)
    fused = FusedTeacher(teachers, "zscore", [1.0, 0.5]).user_scores(users)
    np.testing.assert_allclose(fused[:, is_candidate], (spread[0] + 0.5 * spread[1])[users], atol=1e-4)
    ranks = 1 + np.argsort(np.argsort(-among, 2), 2)
    fused = FusedTeacher(teachers, "rrf", [1.0, 3.0]).user_scores(users)
    np.testing.assert_allclose(fused[:, is_candidate], (1 / (60 + ranks[0]) + 3 / (60 + ranks[1]))[users], atol=1e-6)
    assert np.isneginf(fused[:, ~is_candidate]).all()
    with pytest.raises(ValueError, match="weights must be 2 numbers"):
        FusedTeacher(teachers, "zscore", [1.0])


def test_a_rankers_scores_are_those_of_its_own_lists_and_evaluation(data, tiny_teacher):
    data = open_dataset(load_flags(tiny_teacher)["dataset"]).split("test")
    model = load_model(tiny_teacher)
    teacher = RankerTeacher(model, data)
    windows = data.windows(model.sequence_length, 1)
    for mask in ("target", "seen"):
        ours, theirs = lists_of(teacher, windows, 4, mask, 16), teacher_lists(model, data, 4, mask=mask)
        np.testing.assert_array_equal(ours.items, theirs.items)
        assert ours.key == theirs.key
    assert evaluate_teacher(teacher, ["3"]).metrics == pytest.approx(evaluate_on(model, data, ["3"]).metrics)
    # Windows of another L: the ranker still reads its own L items before the target.
    short = data.windows(2, 1)
    listed = lists_of(teacher, short, 4, "target")
    place = {(u, p): i for i, (u, p) in enumerate(zip(windows.users, windows.positions, strict=True))}
    rows = [
        (i, place[u, p]) for i, (u, p) in enumerate(zip(short.users, short.positions, strict=True)) if (u, p) in place
    ]
    mine, whole = np.array(rows).T
    np.testing.assert_array_equal(listed.items[mine], teacher_lists(model, data, 4).items[whole])


def load_flags(run):
    from rd_tf.run_directory import load_run_manifest

    return load_run_manifest(run)["flags"]


def test_lists_of_a_user_serve_all_windows_of_the_user(data):
    teacher, windows = ease(data, 20.0), data.windows(3, 1)
    lists = lists_of(teacher, windows, 5, "seen", 7)
    scores = teacher.user_scores(np.arange(data.num_users))
    scores[visits_of(data) > 0] = -np.inf
    best = np.argsort(-scores, 1, kind="stable")[:, :5]
    np.testing.assert_array_equal(lists.items, best[windows.users])
    # With the mask "target" a user's windows have different lists.
    scores, target = teacher.user_scores(windows.users), lists_of(teacher, windows, 5, "target", 7)
    scores[np.arange(len(windows)), windows.targets[:, 0]] = -np.inf
    np.testing.assert_array_equal(target.items, np.argsort(-scores, 1, kind="stable")[:, :5])


def test_the_search_of_a_weight_finds_the_better_half(data):
    evaluator = Evaluator(data, 1)
    truth = np.zeros((data.num_users, data.num_items + 1))
    held_out = evaluator.held_out
    users = np.repeat(held_out.users, np.diff(held_out.target_offsets))
    random = np.random.default_rng(3)
    truth[users, held_out.targets] = 1.0
    half = random.random(len(users)) < 0.5
    first, second, noise = truth.copy(), truth.copy(), random.normal(size=truth.shape)
    first[users[half], held_out.targets[half]] = 0.0
    second[users[~half], held_out.targets[~half]] = 0.0
    noisy = 0.1 * random.normal(size=truth.shape)
    teachers = [Fixed(data, noise), Fixed(data, first + noisy), Fixed(data, second + noisy)]
    weights, quality = choose_weights(teachers, "zscore", evaluator)
    alone = [evaluate_teacher(teacher, evaluator=evaluator).metrics["map"] for teacher in teachers]
    assert weights[0] == 0
    assert min(weights[1:]) > 0
    assert sum(weights) == pytest.approx(1)
    assert quality > max(alone)
    assert evaluate_teacher(FusedTeacher(teachers, "zscore", weights)).metrics["map"] == pytest.approx(quality)


def test_lambda_is_chosen_on_the_validation_split(data, monkeypatch):
    asked = []

    def quality(teacher, evaluator):
        return type("Evaluation", (), {"metrics": {"map": -abs(np.log2(teacher / 900))}})

    def solve(solved, l2, log):
        asked.append((solved.name, l2))
        return l2

    monkeypatch.setattr(named, "_solve_ease", solve)
    monkeypatch.setattr(named, "evaluate_teacher", quality)
    assert choose_ease_l2(Dataset(data.interactions).split("test")) == 800
    assert asked == [("validation", l2) for l2 in (100, 200, 400, 800, 1600)]


def test_the_command_fuses_a_run_and_a_solved_teacher_and_a_student_learns_from_it(
    tmp_path, tiny_dataset, train_flags, capsys
):
    run = str(tmp_path / "teacher")
    train(**train_flags(dataset=tiny_dataset, run_dir=run, split="validation", epochs=1))
    cache = str(tmp_path / "cache")
    flags = choose(
        teach,
        default_flags(teach),
        teacher=f"{run},ease",
        fusion_weights=["1", "0.5"],
        ease_l2=20.0,
        dataset=tiny_dataset,
        cache=cache,
        k=6,
        mask="seen",
        split="validation",
    )
    assert teach(**flags) == cache
    shown = capsys.readouterr().out
    assert "ease, l2 = 20: " in shown
    assert "validation MAP of the teacher: 0." in shown
    data = open_dataset(tiny_dataset).split("validation")
    names = TeacherNames((run, "ease"), "zscore", (1.0, 0.5), 20.0)
    manifest = load_cache_manifest(cache)
    assert manifest["teacher"] == names.fingerprint(data) == make_teacher(names, data).fingerprint
    lists = lists_of(make_teacher(names, data), data.windows(5, 1), 6, "seen")
    np.testing.assert_array_equal(load_teacher_cache(cache, lists.key, 6).items, lists.items)
    capsys.readouterr()
    teach(**flags)
    assert capsys.readouterr().out == f"teacher cache kept: {cache}\n"
    with pytest.raises(InputError, match="was made for teacher"):
        teach(**{**flags, "fusion_weights": ["1", "1"]})
    losses = {"ranking_loss": "sampled_softmax", "distillation_loss": "listwise", "shared_negatives": 20}
    student = {"dataset": tiny_dataset, "split": "validation", "k": 6, "mask": "seen", "dim": 4, **losses}
    manifest = train(**train_flags(run_dir=str(tmp_path / "student"), teacher=cache, **student))
    assert manifest["teacher"]["teacher"] == names.fingerprint(data)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"teacher": "ease,ease"}, "each teacher stands there once"),
        ({"teacher": "ease,", "cache": "x"}, "each teacher stands there once"),
        ({"teacher": "ease,popularity", "fusion_weights": ["1"]}, "takes 2 numbers from 0"),
        ({"teacher": "ease,popularity", "fusion_weights": ["1", "nan"]}, "takes 2 numbers from 0"),
        ({"teacher": "ease,nowhere"}, "nowhere is neither a directory nor one of ease, item_knn, popularity"),
        ({"teacher": "ease", "cache": ""}, "--cache is empty"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path, tiny_dataset, flags, message):
    given = {"dataset": tiny_dataset, "cache": str(tmp_path / "cache"), **flags}
    with pytest.raises(InputError, match=message):
        teach(**choose(teach, default_flags(teach), **given))
    assert not (tmp_path / "cache").exists()


def test_a_run_teaches_a_student_of_another_length(tmp_path, tiny_dataset, tiny_teacher, train_flags):
    flags = train_flags(dataset=tiny_dataset, teacher=tiny_teacher, sequence_length=3, dim=4, epochs=1)
    manifest = train(**{**flags, "run_dir": str(tmp_path / "student")})
    assert manifest["teacher"]["sequence_length"] == 3

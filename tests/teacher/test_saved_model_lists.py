"""Lists of SavedModels: an export lists what its ranker lists, and any other signature is asked for what it takes."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from rd_tf.command_line import choose, default_flags
from rd_tf.data.teacher_lists import load_teacher_cache
from rd_tf.data.windows import Dataset, open_dataset
from rd_tf.export import export
from rd_tf.models.registry import load_model
from rd_tf.storage import InputError
from rd_tf.teach import teach
from rd_tf.teacher.cache import teacher_lists
from rd_tf.teacher.saved_model import highest_version, saved_model_lists


@pytest.fixture(scope="module")
def data(tiny_dataset):
    return open_dataset(tiny_dataset).split("test")


@pytest.fixture(scope="module")
def exported(tiny_teacher, tiny_dataset, tmp_path_factory):
    """The directory of the versions of an export that lists recent items too."""
    parent = tmp_path_factory.mktemp("exports")
    flags = choose(export, default_flags(export), run_dir=tiny_teacher, dataset=tiny_dataset, export_dir=str(parent))
    export(**flags | {"export_name": "teacher", "exclude_recent": False, "max_k": 40})
    return parent / "teacher"


@pytest.mark.parametrize("mask", ["target", "seen", "none"])
def test_an_export_lists_what_its_ranker_lists(exported, tiny_teacher, data, mask):
    ranker = teacher_lists(load_model(tiny_teacher), data, 5, mask=mask, target_length=1)
    # Versions: the highest is taken.
    lists = saved_model_lists(exported, data, 5, mask=mask, target_length=1, block_size=100)
    # By score, since items that are equal to rounding may change places.
    np.testing.assert_allclose(lists.scores, ranker.scores, rtol=2e-3, atol=1e-3)
    assert (lists.items == ranker.items).mean() > 0.99
    assert lists.has_scores
    assert lists.manifest["lists"]["counts"] == {
        "unknown items": 0,
        "items without a training row": 0,
        "repeated items": 0,
        "items kept out by the mask": 0,
        "windows without a list": 0,
        "windows with too few items": 0,
    }


def test_the_command_makes_an_ordinary_cache_and_keeps_it(exported, tiny_dataset, data, tmp_path, capsys):
    flags = {"saved_model": str(exported / "1"), "dataset": tiny_dataset, "cache": str(tmp_path / "cache"), "k": 4}
    flags["mask"] = "target"
    cache = teach(**default_flags(teach) | flags)
    assert "signature serving_default: 0 unknown items" in capsys.readouterr().out
    lists = saved_model_lists(exported, data, 4, target_length=1)
    loaded = load_teacher_cache(cache, lists.key, 4)
    np.testing.assert_array_equal(loaded.items, lists.items)
    teach(**default_flags(teach) | flags)
    assert "teacher cache kept" in capsys.readouterr().out
    with pytest.raises(InputError, match=r"was made for mask target, but mask none is needed; .* --force"):
        teach(**default_flags(teach) | flags | {"mask": "none"})


def with_ids(data, **ids):
    """The same data with other raw ids."""
    return Dataset(dataclasses.replace(data.interactions, **ids)).split("test")


class Popular(tf.Module):
    """Lists the same items for everybody, as signatures of other makers may."""

    def __init__(self, item_ids, dtype=tf.string):
        super().__init__()
        self.item_ids = tf.constant(item_ids, dtype)

    def answer(self, rows, width):
        return tf.tile(self.item_ids[None, :width], [rows, 1])


def save(module, path, function, *specs):
    tf.saved_model.save(module, str(path), signatures={"list": tf.function(function, input_signature=specs)})
    return path


def user_spec(dtype=tf.string, rows=None):
    return tf.TensorSpec([rows], dtype, name="user_id")


def popular(path, data, items, length=None):
    """A SavedModel that lists some items, given as raw ids, up to a length that is asked for."""
    module = Popular(items)
    return save(
        module,
        path,
        lambda user_id, k: {"items": module.answer(tf.shape(user_id)[0], k)},
        user_spec(),
        tf.TensorSpec([], tf.int64, name="k"),
    )


def trained_ids(data):
    return [data.interactions.item_ids[item - 1] for item in np.flatnonzero(data.is_candidate)]


def test_without_exclusion_and_scores_more_items_are_asked_for(data, tmp_path):
    path = popular(tmp_path / "m", data, trained_ids(data))
    lists = saved_model_lists(path, data, 3, signature="list", target_length=2)
    best = [data.interactions.item_ids.index(name) + 1 for name in trained_ids(data)[:5]]
    for targets, items in zip(data.windows(5, 2).targets, lists.items, strict=True):
        assert items.tolist() == [item for item in best if item not in targets][:3]
    assert not lists.has_scores
    assert lists.scores[0].tolist() == [-1, -2, -3]


def test_items_that_may_not_be_taught_are_left_out_and_counted(data, tmp_path):
    trained = trained_ids(data)
    path = popular(tmp_path / "m", data, [trained[0], trained[0], "nobody's", "", *trained[1:3]])
    arguments = {"signature": "list", "mask": "none", "target_length": 1}
    with pytest.raises(
        InputError, match=r"'list' lists the item \"nobody's\", which is not in the dataset; pass --unk"
    ):
        saved_model_lists(path, data, 6, **arguments)
    with pytest.raises(InputError, match=r"0 have no list and [\d,]+ fewer than --k=6 items"):
        saved_model_lists(path, data, 6, unknown="skip", **arguments)
    lists = saved_model_lists(path, data, 6, unknown="skip", incomplete="pad", **arguments)
    first = [data.interactions.item_ids.index(name) + 1 for name in trained[:3]]
    assert (lists.items[:, :3] == first).all()
    counts = lists.manifest["lists"]["counts"]
    windows = len(lists)
    assert (counts["unknown items"], counts["repeated items"]) == (windows, windows)
    assert counts["windows with too few items"] == windows


def test_fixed_widths_and_whole_numbers(data, tmp_path):
    """The last item again, told by the last two; the scores decide over the order."""
    data = with_ids(data, item_ids=[str(item * 3) for item in range(1, data.num_items + 1)])
    module = Popular([int(name) for name in trained_ids(data)[:2]], tf.int64)

    def answer(recent_items):
        rows = tf.shape(recent_items)[0]
        items = tf.concat([module.answer(rows, 2), recent_items[:, -1:]], 1)
        return {"items": items, "scores": tf.tile([[0.5, 0.25, 2.0]], [rows, 1])}

    path = save(module, tmp_path / "m", answer, tf.TensorSpec([None, 2], tf.int64, name="recent_items"))
    lists = saved_model_lists(path, data, 1, signature="list", mask="none", target_length=1, incomplete="pad")
    last = data.windows(5, 1).sequences[:, -1]
    best = data.interactions.item_ids.index(trained_ids(data)[0]) + 1
    np.testing.assert_array_equal(lists.items[:, 0], np.where(last > 0, last, best))


@pytest.mark.parametrize(
    ("specs", "outputs", "message"),
    [
        (
            [tf.TensorSpec([None], tf.string, name="who")],
            "items",
            "needs the inputs user_id or recent_items, .* not who",
        ),
        ([tf.TensorSpec([None], tf.int32, name="k")], "items", "needs the inputs user_id or recent_items, .* not k"),
        ([user_spec(tf.float32)], "items", "has an input user_id .* float32, which cannot be given"),
        ([tf.TensorSpec([], tf.string, name="user_id")], "items", "has an input user_id .* which cannot be given"),
        ([user_spec(rows=1)], "items", "takes exactly 1 rows; save it with a batch of any size"),
        ([user_spec()], "best", "gives best string, and no items as strings or whole numbers"),
    ],
)
def test_a_signature_that_cannot_be_asked_is_refused(data, tmp_path, specs, outputs, message):
    module = Popular(["a", "b"])
    save(module, tmp_path / "m", lambda value: {outputs: module.answer(tf.size(value), 2)}, *specs)
    with pytest.raises(InputError, match=message):
        saved_model_lists(tmp_path / "m", data, 1, signature="list")


def test_ids_that_are_no_numbers_are_refused_where_numbers_are_taken(data, tmp_path):
    module = Popular(["a", "b"])
    save(module, tmp_path / "m", lambda user_id: {"items": module.answer(tf.size(user_id), 2)}, user_spec(tf.int64))
    other = with_ids(data, user_ids=[str(user) if user else "007" for user in range(data.num_users)])
    with pytest.raises(InputError, match="takes whole numbers as user_id, but the dataset has the id '007'"):
        saved_model_lists(tmp_path / "m", other, 1, signature="list")


def test_answers_that_cannot_be_used_are_refused(data, tmp_path):
    module = Popular(trained_ids(data))

    def write(name, answer):
        return save(module, tmp_path / name, answer, user_spec())

    cases = {
        "short": (lambda user_id: {"items": module.answer(1, 2)}, "rows with items of the shape"),
        "nan": (
            lambda user_id: {
                "items": module.answer(tf.size(user_id), 2),
                "scores": tf.fill([tf.size(user_id), 2], float("nan")),
            },
            "gives scores of the shape .* that are not finite",
        ),
        "fails": (
            lambda user_id: {"items": tf.strings.as_string(tf.strings.to_number(user_id)[:, None])},
            "fails on a request",
        ),
    }
    for name, (answer, message) in cases.items():
        with pytest.raises(InputError, match=message):
            saved_model_lists(write(name, answer), data, 1, signature="list")


def test_a_directory_without_a_usable_saved_model_is_refused(data, tmp_path):
    with pytest.raises(InputError, match=r"--saved_model=.* holds no SavedModel; name one, or the directory of its"):
        saved_model_lists(tmp_path, data)
    path = popular(tmp_path / "2", data, ["a"])
    (tmp_path / "10").mkdir()
    assert highest_version(tmp_path) == path
    with pytest.raises(InputError, match="has no signature 'serving_default'; --signature may be list"):
        saved_model_lists(tmp_path, data)
    (path / "saved_model.pb").write_bytes(b"damaged")
    with pytest.raises(InputError, match=r"--saved_model=.*2 cannot be loaded \(.*\); export the model again"):
        saved_model_lists(tmp_path, data)

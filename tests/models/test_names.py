"""What is written of a ranker does not tell what the process has made before it."""

import pytest
from serving.small_world import export_unchecked

from rd_tf.models.caser import Caser
from rd_tf.models.fossil import Fossil
from rd_tf.models.sasrec import SASRec
from rd_tf.serving.publishing import ExportOptions, are_equal_versions


def make_caser():
    return Caser(6, 30, dim=4, conv_activation="prelu", dropout=0.2)


def make_fossil():
    return Fossil(6, 30, dim=4, dropout=0.2)


def make_sasrec():
    return SASRec(6, 30, 5, dim=4, dropout=0.2)


@pytest.mark.parametrize("make", [make_caser, make_fossil, make_sasrec])
def test_every_ranker_of_a_kind_is_named_and_saved_alike(make, tmp_path):
    models = [make(), make()]
    assert models[0].name == models[1].name == type(models[0]).__name__.lower()
    assert [weight.path for weight in models[0].weights] == [weight.path for weight in models[1].weights]
    for number, model in enumerate(models):
        model.save_weights(tmp_path / f"{number}.weights.h5")
    assert (tmp_path / "0.weights.h5").read_bytes() == (tmp_path / "1.weights.h5").read_bytes()


def test_a_given_name_is_kept():
    model = Caser(6, 30, dim=4, name="mine")
    assert type(model).from_config(model.get_config()).name == "mine"


# Functions in functions: a search over cells in a loop, and batches behind a condition.
@pytest.mark.parametrize(
    "options",
    [
        {"index": "clusters", "clusters": 4, "probes": 2, "weights": "int8"},
        {"batching": True, "id_type": "int64"},
    ],
    ids=["clusters", "batching"],
)
def test_the_same_export_twice_has_the_same_bytes(options, tmp_path):
    users, items = [str(user) for user in range(6)], [str(item) for item in range(100, 130)]
    versions = [
        export_unchecked(make_caser(), users, items, tmp_path / place / "model", ExportOptions(max_k=5, **options))
        for place in ("one", "other")
    ]
    assert are_equal_versions(*versions)

"""What a Keras user types: the snippet of rd_tf's docstring, fit against the commands, plug-ins."""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import rd_tf
from rd_tf.command_line import choose, default_flags, run
from rd_tf.evaluate import evaluate
from rd_tf.export import export
from rd_tf.models.registry import load_model
from rd_tf.plugins import DISTILLATION_LOSSES, RANKERS, RANKING_LOSSES
from rd_tf.storage import InputError
from rd_tf.teach import teach
from rd_tf.train import train


@pytest.fixture(scope="module")
def data(tiny_dataset):
    return rd_tf.load_dataset(tiny_dataset).split("validation")


def small(data, dim=4, seed=0):
    return rd_tf.models.Caser.for_dataset(data, dim=dim, sequence_length=3, seed=seed)


def test_import_is_lazy_and_dir_lists_the_door():
    code = "import rd_tf, sys; print(sorted(m for m in ('tensorflow', 'keras', 'numpy') if m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
    assert set(rd_tf.__all__) <= set(dir(rd_tf))
    assert all(getattr(rd_tf, name) is not None for name in rd_tf.__all__)
    with pytest.raises(AttributeError, match="no attribute 'RankinDistiller'"):
        rd_tf.RankinDistiller  # noqa: B018


def test_fit_gives_the_weights_of_the_command_bit_for_bit(tiny_dataset, tiny_teacher, train_flags, tmp_path):
    flags = {"dataset": tiny_dataset, "run_dir": str(tmp_path / "run"), "teacher": tiny_teacher}
    changed = {"discrepancy_start_epoch": 1, "epochs": 3, "validate_every": 0, "model": "caser"}
    made = train(**train_flags(**flags, **changed))
    said, data = made["flags"], rd_tf.load_dataset(tiny_dataset).split("test")
    teacher = load_model(tiny_teacher)
    lists = rd_tf.teacher_lists(teacher, data, k=said["k"], mask=said["mask"], target_length=said["target_length"])
    names = ("dim", "sequence_length", "seed", "vertical_filters", "horizontal_filters", "dropout", "conv_activation")
    student = rd_tf.models.Caser.for_dataset(
        data, dense_activation=said["dense_activation"], **{name: said[name] for name in names}
    )
    distiller = rd_tf.RankingDistiller(student, lists)
    distiller.compile(
        rd_tf.optimizers.LazyAdam(said["learning_rate"], l2=said["l2"]),
        rd_tf.losses.PointwiseLogLoss(),
        rd_tf.losses.WeightedPointwiseDistillation(temperature=1.0, sharpness=0.1),
        student_rank_from_epoch=1,
        rank_samples=said["rank_samples"],
    )
    settings = {name: said[name] for name in ("batch_size", "negatives", "target_length", "seed")}
    distiller.fit(data, epochs=3, verbose=0, **settings)
    expected = load_model(tmp_path / "run").get_weights()
    for ours, theirs in zip(student.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_ranker_alone_fits_validates_and_keeps_the_best_epoch(data, tmp_path):
    ranker = small(data)
    validation = rd_tf.callbacks.Validation(every=2)
    history = rd_tf.RankingDistiller(ranker).fit(
        data,
        epochs=3,
        batch_size=64,
        verbose=0,
        callbacks=[validation, keras.callbacks.TensorBoard(str(tmp_path / "logs"))],
    )
    losses = history.history["loss"]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert validation.best_epoch in (2, 3)
    assert rd_tf.evaluate(ranker, data).metrics["map"] == pytest.approx(validation.best_map)
    assert list(tmp_path.glob("logs/train/*tfevents*"))


def test_rows_that_no_batch_used_are_up_to_date_when_callbacks_look(data):
    seen = []

    class Look(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append(np.array(self.model.student.item_table))

    def fitted(optimizer):
        ranker = small(data)
        distiller = rd_tf.RankingDistiller(ranker)
        distiller.compile(optimizer)
        distiller.fit(data, epochs=1, batch_size=64, verbose=0, callbacks=[Look()])
        return ranker

    after = fitted(rd_tf.optimizers.LazyAdam(1e-2, l2=1e-2))
    np.testing.assert_array_equal(seen[-1], after.item_table)
    # Row 0 is in no batch as an item: all that moves it is the L2 term.
    assert not np.array_equal(seen[-1][0], np.array(small(data).item_table)[0])


def test_patience_stops_and_the_test_part_is_refused(data, tiny_dataset):
    class NeverBetter(rd_tf.callbacks.Validation):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            self._best.map = 2.0

    history = rd_tf.RankingDistiller(small(data)).fit(
        data, epochs=9, batch_size=64, verbose=0, callbacks=[NeverBetter(patience=2)]
    )
    assert len(history.epoch) == 3
    test = rd_tf.load_dataset(tiny_dataset).split("test")
    with pytest.raises(ValueError, match=r"Validation needs data of .split\('validation'\); received the split 'test'"):
        rd_tf.RankingDistiller(small(test)).fit(test, callbacks=[rd_tf.callbacks.Validation()])


def test_keras_saves_and_loads_ranker_and_distiller(data, tmp_path):
    ranker = small(data)
    distiller = rd_tf.RankingDistiller(ranker)
    distiller.compile(rd_tf.optimizers.LazyAdam(0.01), alpha=0.5)
    distiller.fit(data, epochs=1, batch_size=64, verbose=0)
    query = {"user": tf.constant([0, 1]), "sequence": tf.constant([[1, 2, 3], [0, 0, 4]])}
    again = keras.losses.deserialize(keras.losses.serialize(rd_tf.losses.WeightedPointwiseDistillation(2.0)))
    assert again.temperature == 2.0
    for model in (ranker, distiller):
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(again(query), model(query))
    assert (again.alpha, again.optimizer.iterations.numpy()) == (0.5, distiller.optimizer.iterations.numpy())


def test_export_serves_what_was_trained(data, tmp_path):
    ranker = small(data)
    version = rd_tf.export(ranker, data, tmp_path / "models" / "door", max_k=5)
    assert (version / "saved_model.pb").is_file()
    assert version.parent.name == "door"


def test_a_loss_that_asks_is_told(data):
    told_names = []

    class Asks(rd_tf.losses.DistillationLoss):
        needs = frozenset({"teacher_scores", "student_rank", "sampled_logits"})

        def call(self, told, student_logits):
            told_names.append({name: tuple(value.shape[1:]) for name, value in told.items()})
            finite = tf.where(tf.math.is_finite(told["sampled_logits"]), told["sampled_logits"], -1e9)
            return -tf.reduce_mean(student_logits, 1) + tf.reduce_logsumexp(finite, 1)

    lists = rd_tf.teacher_lists(small(data, seed=1), data, k=3)
    distiller = rd_tf.RankingDistiller(small(data), lists)
    distiller.compile(distillation_loss=Asks(), student_rank_from_epoch=1, rank_samples=7)
    history = distiller.fit(data, epochs=2, batch_size=64, verbose=0)
    assert told_names[0] == {"teacher_scores": (3,), "sampled_logits": (7,)}
    assert told_names[-1] == {"teacher_scores": (3,), "student_rank": (3,), "sampled_logits": (7,)}
    assert np.isfinite(history.history["distillation_loss"]).all()


def test_lists_of_other_windows_and_unknown_needs_are_refused(data, tiny_dataset):
    lists = rd_tf.teacher_lists(small(data), data, k=3)
    test = rd_tf.load_dataset(tiny_dataset).split("test")
    with pytest.raises(ValueError, match="lists belong to other windows"):
        rd_tf.RankingDistiller(small(test), lists).fit(test)

    class Greedy(rd_tf.losses.DistillationLoss):
        needs = frozenset({"future"})

    with pytest.raises(ValueError, match=r"distillation_loss needs \['future'\], but it can be told"):
        rd_tf.RankingDistiller(small(data), lists).compile(distillation_loss=Greedy())


PLUGIN = '''
import keras
from keras import ops
import rd_tf

@rd_tf.register_ranker("mean_of_items")
class MeanOfItems(rd_tf.SequenceRanker):
    """The mean of the last items, scaled."""

    def __init__(self, num_users, num_items, sequence_length=5, dim=8, scale: float = 1.0, **kwargs):
        super().__init__(num_users, num_items, sequence_length, dim, **kwargs)
        self.dim, self.scale = dim, scale
        self.build_item_table()
        self.built = True

    def encode(self, user, sequence, training=False, history=None, noise=None):
        rows = ops.take(self.item_table, sequence, axis=0)
        return self.scale * ops.mean(rows, axis=1)

@rd_tf.register_loss("likes")
class Likes(rd_tf.losses.DistillationLoss):
    def __init__(self, how_much: float = 1.0, **kwargs):
        super().__init__(**kwargs)
        self.how_much = how_much

    def call(self, told, student_logits):
        return self.how_much * ops.sum(ops.softplus(-student_logits), axis=1)

@rd_tf.register_loss("my_bpr")
class Bpr(keras.losses.Loss):
    def call(self, labels, logits):
        targets = ops.cast(labels > 0.5, "float32")
        count = ops.maximum(ops.sum(targets, axis=1, keepdims=True), 1.0)
        mean = ops.sum(targets * logits, axis=1, keepdims=True) / count
        return ops.sum(ops.softplus(logits - mean) * ops.cast(labels == 0, "float32"), axis=1)
'''


@pytest.fixture
def plug_ins(tmp_path, monkeypatch):
    """A module of plug-ins that can be imported; all is forgotten after the test."""
    (tmp_path / "my_rankers.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    tables = ((RANKERS, "mean_of_items"), (DISTILLATION_LOSSES, "likes"), (RANKING_LOSSES, "my_bpr"))
    for table, name in (*tables, (sys.modules, "my_rankers")):
        monkeypatch.setitem(table, name, None)
        del table[name]


def test_plug_ins_train_teach_evaluate_and_export(plug_ins, tmp_path, tiny_dataset, tiny_teacher, train_flags):
    run_dir, given = str(tmp_path / "run"), {"dataset": tiny_dataset, "import_module": ["my_rankers"]}
    chosen = {"model": "mean_of_items", "distillation_loss": "likes", "ranking_loss": "my_bpr", "optimizer": "adagrad"}
    made = train(
        **train_flags(**given, run_dir=run_dir, teacher=tiny_teacher, epochs=1, l2=0.0, **chosen),
        scale=2.0,
        how_much=0.5,
    )
    assert (made["model"]["class"], made["model"]["config"]["scale"]) == ("mean_of_items", 2.0)
    evaluate(**choose(evaluate, default_flags(evaluate), **given, run_dir=run_dir))
    teach(**choose(teach, default_flags(teach), **given, teacher=run_dir, k=3))
    exported = {"export_dir": str(tmp_path / "exports"), "export_name": "mine", "max_k": 5}
    assert Path(export(**choose(export, default_flags(export), **given, run_dir=run_dir, **exported))).is_dir()


def test_flags_of_plug_ins_are_in_the_help(plug_ins, capsys):
    with pytest.raises(SystemExit, match="0"):
        run(train, ["--import_module=my_rankers", "--help"])
    shown = capsys.readouterr().out
    assert "--scale  (default: 1.0)" in shown
    assert "--how_much  (default: 1.0)" in shown


def test_an_unknown_ranker_or_module_is_refused_before_anything_is_written(tmp_path, tiny_dataset, train_flags, capsys):
    flags = train_flags(dataset=tiny_dataset, run_dir=str(tmp_path / "run"), model="mine")
    with pytest.raises(
        InputError, match=r"--model=mine is not known; it is one of caser, fossil, sasrec, or name the module"
    ):
        train(**flags)
    with pytest.raises(SystemExit, match="1"):
        run(train, [f"--run_dir={tmp_path / 'run'}", "--import_module=no_such_module"])
    said = capsys.readouterr().err
    assert said.startswith("error: --import_module=no_such_module cannot be imported (ModuleNotFoundError")
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []

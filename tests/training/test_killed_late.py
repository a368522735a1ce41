"""What a run that is killed after an epoch, or after its manifest, has on the disk."""

import shutil
from pathlib import Path

from benchmarks.interrupted import differences, run_contents, scalars
from rd_tf.train import train
from rd_tf.training.callbacks import TensorBoardWriter


def test_the_scalars_of_an_epoch_are_on_disk_before_the_next(tmp_path, train_flags):
    board = TensorBoardWriter(tmp_path, train_flags())
    board.scalars(1, {"train/loss": 0.5, "train/ranking_loss": 0.25})
    assert [key for key in scalars(tmp_path) if key[0].startswith("train/")] == [
        ("train/loss", 1),
        ("train/ranking_loss", 1),
    ]
    board.close()


def test_checkpoints_beside_a_manifest_go_when_the_run_is_kept(tiny_teacher, tiny_dataset, train_flags, tmp_path):
    run = shutil.copytree(tiny_teacher, tmp_path / "run")
    (run / "checkpoint" / "000000000012").mkdir(parents=True)
    train(**train_flags(dataset=tiny_dataset, run_dir=str(run)))
    assert not (run / "checkpoint").exists()
    assert differences(run_contents(run), run_contents(Path(tiny_teacher))) == []

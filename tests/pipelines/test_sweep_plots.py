"""Which runs may stand in one plot of a sweep."""

import pytest

from pipelines.paper.output import plot_sweeps
from pipelines.records import keep_evidence
from rd_tf.storage import InputError, read_json, write_json


@pytest.fixture
def sweeps(make_run, tmp_path):
    """Fills `sweeps/gowalla/caser` with the default runs of seed 0 and one point of alpha."""

    def make(seed=0, **flags):
        for name, role in [("default", "teacher"), ("default", "distilled"), ("alpha=2", "distilled")]:
            changed = {"alpha": 2.0, **flags} if name == "alpha=2" else {}
            number = seed if name == "alpha=2" else 0
            run = make_run(tmp_path / "runs" / name / role, role, number, split="validation", **changed)
            keep_evidence(run, tmp_path / "gowalla" / "caser" / name / "seed-0" / role, per_user=False)
        return tmp_path / "gowalla" / "caser"

    return make


def test_runs_that_differ_in_one_flag_are_plotted(sweeps, tmp_path):
    (path,) = plot_sweeps(sweeps(history_exponent=0.7, steps_per_call=9), tmp_path)
    assert path.name == "sweep-gowalla-caser-alpha.png"


def test_runs_that_differ_in_another_flag_are_refused(sweeps, tmp_path):
    with pytest.raises(InputError, match=r"alpha=2/seed-0/distilled was trained with --epochs=9, but .* --epochs=15;"):
        plot_sweeps(sweeps(epochs=9), tmp_path)


def test_points_of_another_teacher_are_refused(sweeps, tmp_path):
    with pytest.raises(InputError, match=r"was distilled from the teacher teacher 1, but .* is teacher 0; delete both"):
        plot_sweeps(sweeps(seed=1), tmp_path)


def test_an_older_run_without_a_flag_has_its_default(sweeps, tmp_path):
    directory = sweeps()
    for path in directory.glob("*/*/*/manifest.json"):
        manifest = read_json(path)
        del manifest["flags"]["history_exponent"], manifest["flags"]["threads_per_operation"]
        write_json(path, manifest)
    assert len(plot_sweeps(directory, tmp_path)) == 1

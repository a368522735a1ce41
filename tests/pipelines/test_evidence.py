"""What results/ keep of a run."""

import numpy as np
import pandas as pd
import pytest

from pipelines.records import FILES, PER_USER_METRICS, is_complete, keep_evidence
from rd_tf.storage import InputError


def test_users_values_are_kept_bit_for_bit(make_run, tmp_path):
    run = make_run(tmp_path / "run", "teacher", 0)
    keep_evidence(run, tmp_path / "kept", per_user=True)
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {*FILES, "per_user.parquet"}
    kept, before = (pd.read_parquet(tmp_path / name / "per_user.parquet") for name in ("kept", "run"))
    assert list(kept) == ["user", *PER_USER_METRICS]
    assert {str(kind) for kind in kept.dtypes} == {"int32", "float64"}
    np.testing.assert_array_equal(kept[list(PER_USER_METRICS)], before[list(PER_USER_METRICS)])
    assert (tmp_path / "kept" / "metrics.json").read_bytes() == (run / "metrics.json").read_bytes()


def test_evidence_without_one_of_its_files_is_not_complete(make_run, tmp_path):
    keep_evidence(make_run(tmp_path / "run", "teacher", 0), tmp_path / "kept", per_user=False)
    assert is_complete(tmp_path / "kept", per_user=False)
    assert not is_complete(tmp_path / "kept", per_user=True)
    (tmp_path / "kept" / "log.txt").unlink()
    assert not is_complete(tmp_path / "kept", per_user=False)


def test_evidence_that_is_there_is_replaced_as_a_whole(make_run, tmp_path):
    keep_evidence(make_run(tmp_path / "one", "teacher", 0), tmp_path / "kept", per_user=True)
    keep_evidence(make_run(tmp_path / "two", "teacher", 1), tmp_path / "kept", per_user=False)
    assert {path.name for path in (tmp_path / "kept").iterdir()} == set(FILES)
    assert (tmp_path / "kept" / "flags.cfg").read_text() == "--seed=1\n"


def test_a_run_evaluated_with_other_cutoffs_is_refused(make_run, tmp_path):
    run = make_run(tmp_path / "run", "teacher", 0)
    pd.read_parquet(run / "per_user.parquet").drop(columns="precision@5").to_parquet(run / "per_user.parquet")
    with pytest.raises(InputError, match=r"was evaluated without precision@5; the tables need --cutoffs=3,5,10"):
        keep_evidence(run, tmp_path / "kept", per_user=True)
    assert not (tmp_path / "kept").exists()


def test_an_unfinished_run_is_refused(make_run, tmp_path):
    run = make_run(tmp_path / "run", "teacher", 0)
    (run / "manifest.json").unlink()
    with pytest.raises(InputError, match="holds no finished run"):
        keep_evidence(run, tmp_path / "kept", per_user=True)

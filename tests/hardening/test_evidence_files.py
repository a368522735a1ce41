"""Evidence of runs whose files are damaged: no table, no plot and no copy of it, but one sentence."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from damage import damaged, damaged_json, refusing
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.paper.chains import Cell
from pipelines.paper.efficiency import FILE as EFFICIENCY
from pipelines.paper.efficiency import read_efficiency
from pipelines.paper.tables import markdown_tables, summarise
from pipelines.records import FILES, PER_USER_METRICS, ROLES, check_evidence, keep_evidence, read_history, read_per_user
from pipelines.report import as_json, collect, show
from rd_tf.storage import remove

PUBLISHED = Path(__file__).parents[2] / "results" / "paper" / "gowalla" / "caser"
READ = ["metrics.json", "manifest.json", "per_user.parquet"]
CELL = Cell("gowalla", "caser")


@pytest.fixture(scope="module")
def cell(tmp_path_factory):
    """A copy of a seed's evidence as results/ has it."""
    directory = tmp_path_factory.mktemp("results") / "gowalla" / "caser"
    shutil.copytree(PUBLISHED / "seed-0", directory / "seed-0")
    shutil.copyfile(PUBLISHED / EFFICIENCY, directory / EFFICIENCY)
    return directory


@contextlib.contextmanager
def replaced(path, content):
    before = path.read_bytes()
    path.write_bytes(content)
    try:
        yield
    finally:
        path.write_bytes(before)


@st.composite
def damage(draw, path):
    content = path.read_bytes()
    if path.suffix == ".json" and draw(st.integers(0, 2)):
        return draw(damaged_json(json.loads(content))).encode()
    return draw(damaged(content))


@settings(max_examples=120)
@given(data=st.data(), role=st.sampled_from(list(ROLES)), name=st.sampled_from(READ))
def test_a_report(cell, data, role, name):
    paths = {each: cell / "seed-0" / each for each in ROLES}
    with replaced(paths[role] / name, data.draw(damage(paths[role] / name))):
        with refusing(paths[role]), contextlib.redirect_stdout(io.StringIO()):
            report = collect({0: paths})
            show(report)
            json.dumps(as_json(report), allow_nan=False)
        flags = json.loads((PUBLISHED / "seed-0" / role / "manifest.json").read_text())["flags"]
        with refusing(paths[role]):
            check_evidence(paths[role], flags | {"dataset": "nowhere"})


@settings(max_examples=20)
@given(
    data=st.data(),
    role=st.sampled_from(list(ROLES)),
    name=st.sampled_from([*FILES[1:2], *FILES[4:], "per_user.parquet"]),
)
def test_the_papers_tables(cell, data, role, name):
    path = cell / "seed-0" / role / name
    with replaced(path, data.draw(damage(path))), refusing(cell.parents[1]):
        summary = summarise(cell.parents[1], [CELL])
        json.dumps(summary, allow_nan=False)
        markdown_tables(summary)


@settings(max_examples=80)
@given(data=st.data())
def test_an_efficiency(cell, data):
    with replaced(cell / EFFICIENCY, data.draw(damage(cell / EFFICIENCY))), refusing(cell / EFFICIENCY):
        found = read_efficiency(cell)
        assert found is None or all(found["roles"][role]["seconds"] > 0 for role in ("teacher", "distilled"))


@settings(max_examples=80)
@given(data=st.data())
def test_a_history(cell, data):
    path = cell / "seed-0" / "distilled" / "history.csv"
    with replaced(path, data.draw(damage(path))), refusing(path):
        history = read_history(path.parent)
        assert set(map(str, history.dtypes)) <= {"int64", "float64"}


@settings(max_examples=30)
@given(data=st.data())
def test_users_values_are_numbers_and_nothing_is_copied_of_damaged_ones(cell, data):
    run, kept = cell / "seed-0" / "teacher", cell.parent / "kept"
    path = run / "per_user.parquet"
    with replaced(path, data.draw(damage(path))):
        with refusing(run) as refused:
            assert np.isfinite(read_per_user(run)[list(PER_USER_METRICS)]).to_numpy().all()
        with refusing(run):
            keep_evidence(run, kept, per_user=True)
        assert kept.exists() != bool(refused)
        remove(kept)
    assert not list(cell.parent.glob(".tmp-*"))


@pytest.mark.parametrize("name", FILES)
def test_evidence_without_one_of_its_files_is_not_copied(cell, name):
    run, kept = cell / "seed-0" / "teacher", cell.parent / "kept"
    content = (run / name).read_bytes()
    (run / name).unlink()
    with refusing(run) as refused:
        keep_evidence(run, kept, per_user=True)
    (run / name).write_bytes(content)
    assert refused
    assert not kept.exists()

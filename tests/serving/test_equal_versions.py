"""An export that is there already is kept: it has the same bytes whenever and wherever it is made."""

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf
from serving.small_world import ITEMS, USERS, export_unchecked, small_caser

from rd_tf.serving import export, publishing
from rd_tf.serving.export import export_ranker
from rd_tf.serving.publishing import REPORT_FILE, are_equal_versions, measured_version, versions
from rd_tf.storage import InputError, write_json

ROOT = Path(__file__).parents[2]
EXPORT = """
import sys
from serving.small_world import ITEMS, USERS, export_unchecked, small_caser
print(export_unchecked(small_caser(), USERS, ITEMS, sys.argv[1], keep_versions=int(sys.argv[2])).name)
"""


def export_here(directory):
    return export_unchecked(small_caser(), USERS, ITEMS, directory)


def export_elsewhere(directory, keep_versions):
    command = [sys.executable, "-c", EXPORT, str(directory), str(keep_versions)]
    environment = {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "TF_CPP_MIN_LOG_LEVEL": "3"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    # So that TensorFlow has counted other functions here than in a new process.
    tf.function(lambda: tf.constant(0)).get_concrete_function()
    directory = tmp_path_factory.mktemp("equal") / "student"
    assert export_here(directory).name == "1"
    return directory


def test_the_same_export_by_another_process_is_kept_and_older_versions_go(exported, tmp_path):
    directory = shutil.copytree(exported, tmp_path / "student")
    # As after a kill between the appearance of a version and the removal of the one before.
    shutil.copytree(directory / "1", directory / "2")
    before = {path: path.stat().st_ino for path in (directory / "2").rglob("*")}
    assert export_elsewhere(directory, keep_versions=1) == "2"
    assert [path.name for path in versions(directory)] == ["2"]
    assert {path: path.stat().st_ino for path in (directory / "2").rglob("*")} == before


def test_going_back_to_what_an_older_version_was_is_a_new_version(exported, tmp_path):
    directory = shutil.copytree(exported, tmp_path / "student")
    shutil.copytree(directory / "1", directory / "2")
    change(directory / "2" / "saved_model.pb")
    assert export_here(directory).name == "3"
    assert are_equal_versions(directory / "1", directory / "3")


def change(path, text=b"x"):
    path.write_bytes(text + path.read_bytes()[1:])


@pytest.mark.parametrize(
    "alter",
    [
        lambda version: change(version / "saved_model.pb"),
        lambda version: change(version / "variables" / "variables.index"),
        lambda version: (version / "assets" / "items.txt.gz").unlink(),
        lambda version: (version / "assets" / "more").touch(),
        lambda version: (version / REPORT_FILE).write_text("{}"),
    ],
    ids=["graph", "weights", "missing", "more", "report"],
)
def test_another_file_makes_another_version(exported, tmp_path, alter):
    version = shutil.copytree(exported / "1", tmp_path / "1")
    report = json.loads((version / REPORT_FILE).read_text())
    (version / REPORT_FILE).write_text(json.dumps({**report, "seconds_per_request": {"1": 7.0}}))
    assert are_equal_versions(exported / "1", version)
    alter(version)
    assert not are_equal_versions(exported / "1", version)


def test_a_damaged_report_is_named(exported, tmp_path):
    version = shutil.copytree(exported / "1", tmp_path / "1")
    (version / REPORT_FILE).write_text("{")
    with pytest.raises(InputError, match=r"report\.json is damaged"):
        are_equal_versions(exported / "1", version)


def test_a_version_that_passed_the_gate_is_kept_and_one_that_fails_another_is_not(tmp_path, monkeypatch):
    def write(directory, *_):
        (directory / "saved_model.pb").write_text("graph")
        quality = {"split": "test", "dataset": "d", "exported": {"map": 0.5}}
        (directory / REPORT_FILE).parent.mkdir()
        write_json(directory / REPORT_FILE, {"quality": quality, "seconds_per_request": random.random()})

    def publish(**given):
        return export_ranker(small_caser(), USERS, ITEMS, tmp_path / "student", min_metric_ratio={"map": 1.1}, **given)

    monkeypatch.setattr(export, "write_saved_model", write)
    monkeypatch.setattr(publishing, "measured_run", lambda *_: measured_version(tmp_path / "student" / "1"))
    # No version can be better than itself, and this one was there when the command that made it was killed.
    assert [publish().name, publish().name] == ["1", "1"]
    with pytest.raises(InputError, match="so nothing is published"):
        publish(gate_against="runs/other")


def test_versions_with_other_ids_share_no_table_in_one_process(exported, tmp_path):
    others = [*ITEMS[1:], ITEMS[0]]
    turned = export_unchecked(small_caser(), USERS, others, tmp_path / "turned")
    exports = {"first": exported / "1", "turned": turned, "again": exported / "1"}
    loaded = {name: tf.saved_model.load(str(path)) for name, path in exports.items()}

    def best(name):
        known = (ITEMS if name != "turned" else others)[2]
        nothing = tf.zeros([1, 0], tf.string)
        answer = loaded[name].signatures["serving_default"](
            user_id=tf.constant([USERS[1]]),
            recent_items=tf.constant([[known]]),
            exclude_items=nothing,
            k=tf.constant([1]),
        )
        return answer["items"].numpy()[0, 0].decode()

    first = best("first")
    assert best("turned") == others[ITEMS.index(first)]
    del loaded["first"]
    assert best("again") == first

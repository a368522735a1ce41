"""Versions appear and vanish whole, also where the publisher is killed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rd_tf import storage
from rd_tf.serving.publishing import LAST_VERSION_FILE, NothingNew, publishing, versions
from rd_tf.storage import InputError

ROOT = Path(__file__).parents[2]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def numbers(directory: Path) -> list[int]:
    return [int(path.name) for path in versions(directory)]


def publish(directory: Path, keep_versions: int = 0) -> Path:
    with publishing(directory, keep_versions) as new:
        (new.directory / "variables").mkdir()
        (new.directory / "variables" / "data").write_text(str(new.number))
    return new.path


def test_versions_count_up_from_one_and_appear_when_the_block_ends(tmp_path):
    directory = tmp_path / "student"
    with publishing(directory) as new:
        (new.directory / "file").write_text("whole")
        assert (new.number, new.path) == (1, directory / "1")
        assert new.directory.name.startswith(".tmp-1-")
        assert versions(directory) == []
    assert (directory / "1" / "file").read_text() == "whole"
    assert publish(directory) == directory / "2"
    assert names(directory) == [LAST_VERSION_FILE, ".lock", "1", "2"]


def test_a_number_is_not_used_again_after_its_version_was_removed(tmp_path):
    publish(tmp_path)
    storage.remove_whole(publish(tmp_path))
    assert numbers(tmp_path) == [1]
    assert publish(tmp_path).name == "3"


def test_whatever_the_server_reads_as_a_number_counts(tmp_path):
    for name in ("3", "007", "x8", "-9", "1.5", str(2**63), "²"):
        (tmp_path / name).mkdir()
    (tmp_path / "11").touch()
    assert publish(tmp_path).name == "12"
    assert numbers(tmp_path) == [3, 7, 12]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_error_leaves_what_was_there(tmp_path, error):
    publish(tmp_path)
    before = names(tmp_path)

    def fail():
        with publishing(tmp_path, keep_versions=1) as new:
            (new.directory / "half").touch()
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == before
    assert publish(tmp_path).name == "2"


def test_the_newest_versions_stay(tmp_path):
    for _ in range(4):
        publish(tmp_path)
    publish(tmp_path, keep_versions=2)
    assert numbers(tmp_path) == [4, 5]
    publish(tmp_path, keep_versions=1)
    assert numbers(tmp_path) == [6]
    assert names(tmp_path) == [LAST_VERSION_FILE, ".lock", "6"]
    with pytest.raises(ValueError, match="keep_versions must be 0 or more; received -1"):
        publish(tmp_path, keep_versions=-1)


def test_nothing_new_leaves_the_highest_version_and_removes_old_ones(tmp_path):
    for _ in range(3):
        publish(tmp_path)
    with publishing(tmp_path, keep_versions=2) as new:
        (new.directory / "file").touch()
        raise NothingNew
    assert names(tmp_path) == [LAST_VERSION_FILE, ".lock", "2", "3"]
    assert publish(tmp_path).name == "4"


def test_an_old_version_that_cannot_be_removed_is_named(tmp_path, monkeypatch):
    def refuse(_):
        raise PermissionError(13, "Permission denied")

    publish(tmp_path)
    monkeypatch.setattr("rd_tf.serving.publishing.remove_whole", refuse)
    with pytest.raises(InputError, match=r"2 is published, but the old .*1 cannot be removed \(Permission denied\)"):
        publish(tmp_path, keep_versions=1)
    assert numbers(tmp_path) == [1, 2]


def test_leftovers_of_a_killed_publisher_are_removed_by_the_next(tmp_path):
    code = (
        "import os, sys\nfrom rd_tf.serving.publishing import publishing\n"
        "with publishing(sys.argv[1]) as new:\n"
        "    (new.directory / 'half').touch()\n    os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT).returncode == -9
    (leftover,) = tmp_path.glob(".tmp-*")
    assert names(leftover) == ["half"]
    assert versions(tmp_path) == []
    publish(tmp_path)
    assert names(tmp_path) == [LAST_VERSION_FILE, ".lock", "1"]


def test_a_second_publisher_is_refused(tmp_path):
    with publishing(tmp_path), pytest.raises(InputError, match=f"in use by process {os.getpid()}"):
        publish(tmp_path)
    assert numbers(tmp_path) == [1]


def test_a_version_that_would_be_passed_over_is_not_published(tmp_path):
    def overtaken():
        with publishing(tmp_path):
            (tmp_path / "5").mkdir()

    with pytest.raises(InputError, match="got version 5 while 1 was made; publish again"):
        overtaken()
    assert numbers(tmp_path) == [5]


def test_a_damaged_mark_is_named(tmp_path):
    (tmp_path / LAST_VERSION_FILE).write_text("seven")
    with pytest.raises(InputError, match="is damaged; write the number of the last version"):
        publish(tmp_path)


def test_every_file_is_on_disk_before_the_name_and_the_name_before_the_end(tmp_path, monkeypatch):
    done, fsync, rename = [], os.fsync, os.rename

    def record_fsync(descriptor):
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def record_rename(source, target):
        done.append(f"{Path(target).name} appears")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "rename", record_rename)
    with publishing(tmp_path) as new:
        (new.directory / "variables").mkdir()
        (new.directory / "variables" / "data").touch()
        (new.directory / "graph").touch()
    appears = done.index("1 appears")
    assert {"variables", "data", "graph", new.directory.name} <= set(done[:appears])
    assert done[appears + 1 :] == [tmp_path.name]


def test_versions_of_a_directory_that_is_missing(tmp_path):
    assert versions(tmp_path / "nowhere") == []

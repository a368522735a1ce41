"""Files and directories appear whole or not at all; a directory has one holder."""

import math
import os
import platform
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from rd_tf import storage
from rd_tf.storage import InputError

ROOT = Path(__file__).parents[1]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_atomic_file_appears_when_the_block_ends(tmp_path):
    with storage.atomic_file(tmp_path / "new" / "a.weights.h5") as temporary:
        temporary.write_text("whole")
        assert temporary.name.endswith(".weights.h5")
        assert not (tmp_path / "new" / "a.weights.h5").exists()
    assert (tmp_path / "new" / "a.weights.h5").read_text() == "whole"
    assert names(tmp_path / "new") == ["a.weights.h5"]


def test_a_lock_that_is_a_link_or_no_file_is_refused(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / ".lock").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match=r"\.lock is a symbolic link"), storage.directory_lock(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "precious"
    (tmp_path / ".lock").unlink()
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(InputError, match=r"\.lock is no plain file"), storage.directory_lock(tmp_path):
        pass


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_atomic_file_leaves_the_old_one_and_nothing_else_after_an_error(tmp_path, error):
    (tmp_path / "a").write_text("old")

    def fail():
        with storage.atomic_file(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == ["a"]
    assert (tmp_path / "a").read_text() == "old"


def test_atomic_directory_appears_when_the_block_ends(tmp_path):
    with storage.atomic_directory(tmp_path / "d") as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "file").write_text("whole")
        assert not (tmp_path / "d").exists()
    assert (tmp_path / "d" / "inner" / "file").read_text() == "whole"
    assert names(tmp_path) == ["d"]


def test_atomic_directory_leaves_the_old_one_and_nothing_else_after_an_error(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "old").touch()

    def fail():
        with storage.atomic_directory(tmp_path / "d", replace=True) as temporary:
            (temporary / "new").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert names(tmp_path) == ["d"]
    assert names(tmp_path / "d") == ["old"]


def test_atomic_directory_replaces_only_where_it_may(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "old").touch()
    with pytest.raises(InputError, match="d exists already"), storage.atomic_directory(tmp_path / "d"):
        pass
    with storage.atomic_directory(tmp_path / "d", replace=True) as temporary:
        (temporary / "new").touch()
    assert names(tmp_path) == ["d"]
    assert names(tmp_path / "d") == ["new"]


def test_leftovers_of_a_killed_process_are_removed_and_those_of_a_living_one_stay(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    host = f"{zlib.crc32(platform.node().encode()):08x}"
    stale = f".tmp-d-{host}-{ended.pid}-00000000"
    alive = f".tmp-d-{host}-{os.getpid()}-00000000"
    others = f".tmp-other-{host}-{ended.pid}-00000000"
    elsewhere = f".tmp-d-{'0' * 8}-{ended.pid}-00000000"
    for name in (stale, alive, others, elsewhere):
        (tmp_path / name).mkdir()
    with storage.atomic_directory(tmp_path / "d"):
        pass
    assert names(tmp_path) == sorted([alive, others, elsewhere, "d"])


def test_json_comes_back_and_a_nan_is_refused(tmp_path):
    storage.write_json(tmp_path / "a.json", {"ü": [1, 0.5, None]})
    assert storage.read_json(tmp_path / "a.json") == {"ü": [1, 0.5, None]}
    with pytest.raises(ValueError, match="Out of range float"):
        storage.write_json(tmp_path / "b.json", {"loss": math.nan})
    assert names(tmp_path) == ["a.json"]


def test_json_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match=r"none\.json is missing"):
        storage.read_json(tmp_path / "none.json")
    (tmp_path / "a.json").write_text('{"half": ')
    with pytest.raises(InputError, match=r"a\.json is damaged .*; make it again"):
        storage.read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"a\.json is a file, not a directory"):
        storage.read_json(tmp_path / "a.json" / "b.json")


def test_lock_refuses_a_second_process_and_names_the_holder(tmp_path):
    code = (
        "import sys\nfrom rd_tf import storage\nfrom rd_tf.storage import InputError\n"
        "try:\n    with storage.directory_lock(sys.argv[1]): print('held')\n"
        "except InputError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "run")]

    def try_it() -> str:
        return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True).stdout.strip()

    with storage.directory_lock(tmp_path / "run"):
        assert try_it() == f"{tmp_path / 'run'} is in use by process {os.getpid()}; wait for it or name another one"
    assert try_it() == "held"


def test_lock_waits_as_long_as_it_is_told(tmp_path):
    code = (
        "import sys, time\nfrom rd_tf import storage\n"
        "with storage.directory_lock(sys.argv[1]):\n    print('held', flush=True)\n    time.sleep(0.3)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(InputError, match=f"in use by process {other.pid}"),
            storage.directory_lock(tmp_path, wait_seconds=0.05),
        ):
            pass
        with storage.directory_lock(tmp_path, wait_seconds=30):
            assert (tmp_path / ".lock").read_text() == f"{os.getpid()}\n"


def test_a_directory_has_lost_its_name_before_its_first_file_goes(tmp_path, monkeypatch):
    (tmp_path / "d" / "inner").mkdir(parents=True)
    seen = []
    monkeypatch.setattr(storage, "remove", lambda path: seen.append((path, names(tmp_path), names(path))))
    storage.remove_whole(tmp_path / "d")
    ((aside, others, inside),) = seen
    assert others == [aside.name]
    assert aside.name.startswith(".tmp-d-")
    assert inside == ["inner"]


def test_who_holds_the_lock_removes_all_leftovers(tmp_path):
    for name in (".tmp-7-00000000-1-0", f".tmp-d-{zlib.crc32(platform.node().encode()):08x}-{os.getpid()}-0"):
        (tmp_path / name / "inner").mkdir(parents=True)
    (tmp_path / ".tmp-file-00000000-1-0.txt").touch()
    (tmp_path / "7").mkdir()
    storage.remove_all_leftovers(tmp_path)
    assert names(tmp_path) == ["7"]


def test_lock_of_a_file_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is a file, not a directory"), storage.directory_lock(tmp_path / "file"):
        pass


@pytest.mark.parametrize("has_exchange", [True, False])
def test_replacing_a_directory_swaps_it_whole(tmp_path, monkeypatch, has_exchange):
    if not has_exchange:
        monkeypatch.setattr(storage.ctypes, "CDLL", lambda *_, **__: object())
    with storage.atomic_directory(tmp_path / "d") as temporary:
        (temporary / "old").write_text("old")
    with storage.atomic_directory(tmp_path / "d", replace=True) as temporary:
        (temporary / "new").write_text("new")
    assert [path.name for path in (tmp_path / "d").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["d"]


def test_a_directory_that_appears_meanwhile_is_not_replaced(tmp_path):
    def write():
        with storage.atomic_directory(tmp_path / "d"):
            (tmp_path / "d").mkdir()

    with pytest.raises(InputError, match="was made by another process meanwhile"):
        write()
    assert [path.name for path in tmp_path.iterdir()] == ["d"]

"""Input and intermediate files on a file system that is not the machine's."""

import shutil

import pytest

pytest.importorskip("apache_beam")

from apache_beam.io.filesystem import BeamIOError
from apache_beam.io.localfilesystem import LocalFileSystem

from pipelines.beam.prepare import beam_prepare
from rd_tf.command_line import choose, default_flags
from rd_tf.data.dataset import load_manifest
from rd_tf.prepare import prepare
from rd_tf.storage import InputError


class FarFileSystem(LocalFileSystem):
    """far://name is a file of a folder that nobody else knows; directories are no more than what names begin with."""

    folder = None
    opened = None

    @classmethod
    def scheme(cls):
        return "far"

    def create(self, path, *arguments, **named):
        return super().create(self._place(path), *arguments, **named)

    def open(self, path, *arguments, **named):
        self.opened.add(path)
        try:
            return super().open(self._place(path), *arguments, **named)
        except FileNotFoundError as error:
            raise BeamIOError(f"{path} is not there", {path: error}) from None

    def delete(self, paths):
        for path in paths:
            assert path.endswith("/")
            shutil.rmtree(self._place(path))

    def _place(self, path):
        return str(self.folder / path.removeprefix("far://"))


@pytest.fixture
def far(tmp_path, monkeypatch):
    monkeypatch.setattr(FarFileSystem, "folder", tmp_path / "far")
    monkeypatch.setattr(FarFileSystem, "opened", set())
    (tmp_path / "far" / "in").mkdir(parents=True)
    return tmp_path / "far"


def test_remote_input_and_work_give_the_local_bytes(tmp_path, far):
    rows = "".join(f"u{row % 5},i{row % 8},{row}\n" for row in range(40))
    (far / "in" / "a.csv").write_text(f"user_id,item_id,timestamp\n{rows}")
    flags = {**default_flags(beam_prepare), "input": ["far://in/a.csv"], "bucket_rows": 9, "shards": 2}
    beam_prepare(**{**flags, "dataset": str(tmp_path / "beam"), "work_dir": "far://work/", "min_user_items": 2})
    prepare(**choose(prepare, flags, dataset=str(tmp_path / "local"), min_user_items=2))
    for path in (tmp_path / "local").iterdir():
        assert (tmp_path / "beam" / path.name).read_bytes() == path.read_bytes()
    assert load_manifest(tmp_path / "beam")["source"]["input"] == ["far://in/a.csv"]
    assert sum(path.startswith("far://work/rd_tf-") for path in FarFileSystem.opened) > 10
    assert not list((far / "work").iterdir())


def test_a_remote_file_that_is_not_there(tmp_path, far):
    flags = {**default_flags(beam_prepare), "input": ["far://in/none.csv"], "dataset": str(tmp_path / "out")}
    for command in (prepare, beam_prepare):
        with pytest.raises(InputError, match=r"^--input: far://in/none\.csv cannot be opened \(.*\); mend the name"):
            command(**choose(command, flags))

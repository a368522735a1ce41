"""A remote file system for Beam that keeps its files in a local directory: fake:///tmp/x is /tmp/x."""

from pathlib import Path

from apache_beam.io.filesystem import FileMetadata
from apache_beam.io.localfilesystem import LocalFileSystem

PREFIX = "fake://"


def local(path):
    return path.removeprefix(PREFIX)


class FakeRemote(LocalFileSystem):
    """Found by Beam as long as the class exists. As object stores do, it knows no folders."""

    @classmethod
    def scheme(cls):
        return "fake"

    def has_dirs(self):
        return False

    def split(self, path):
        head, _, tail = path.rpartition("/")
        return head, tail

    def _list(self, dir_or_prefix):
        folder = local(dir_or_prefix).rstrip("/")
        for found in super()._list(folder):
            yield FileMetadata(PREFIX + found.path, found.size_in_bytes, found.last_updated_in_seconds)

    def _path_open(self, path, *arguments, **named):
        return super()._path_open(local(path), *arguments, **named)

    def create(self, path, *arguments, **named):
        return super().create(local(path), *arguments, **named)

    def rename(self, sources, destinations):
        super().rename([local(path) for path in sources], [local(path) for path in destinations])

    def exists(self, path):
        return super().exists(local(path))

    def delete(self, paths):
        for path in paths:
            Path(local(path)).unlink()

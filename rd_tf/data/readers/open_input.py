"""Opens an input file, local or on a file system of a cluster."""

from typing import BinaryIO, cast

from rd_tf.errors import InputError


def open_input(path: str) -> BinaryIO:
    """Opens a file for reading, one whose name is a URL (gs://..., hdfs://..., s3://...) through Apache Beam.

    Raises:
        InputError: the URL cannot be opened.
        OSError: the local file cannot be opened.
    """
    if "://" not in path:
        return open(path, "rb")
    try:
        from apache_beam.io.filesystem import BeamIOError, CompressionTypes
        from apache_beam.io.filesystems import FileSystems
    except ImportError:
        raise InputError(f"--input: {path} is read through Apache Beam; pip install -r requirements-beam.txt") from None
    try:
        return cast(BinaryIO, FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED))
    except (BeamIOError, ValueError, OSError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"--input: {path} cannot be opened ({first}); mend the name or the access to it") from None

"""A check-in file, whatever its layout, piece by piece."""

from collections.abc import Iterator

from rd_tf.data.readers.checked_file import CheckedFile
from rd_tf.data.readers.formats import detect_format
from rd_tf.data.readers.parquet_table import read_parquet_pieces
from rd_tf.data.readers.raw_table import RawTable
from rd_tf.data.readers.text_table import read_text_pieces

_WITH_NAMES = ("csv", "tsv", "parquet")


def columns_of(layout: str, columns: dict[str, str]) -> dict[str, str]:
    """From the flags `user_column`, `item_column`, `time_column` to column names, empty where the layout has none."""
    return columns if layout in _WITH_NAMES else dict.fromkeys(columns, "")


def checked_pieces(path: str, format: str, columns: dict[str, str], fractional: bool) -> CheckedFile:
    """Reads a file of any size in memory of some megabytes.

    Args:
        path: .csv, .tsv, .txt (plain or gzip) or .parquet.
        format: "csv", "tsv", "parquet", "snap", "triples", or "auto": by the ending.
        columns: from the flags `user_column`, `item_column`, `time_column` to column names.
        fractional: as of `CheckedFile`.

    Raises:
        InputError: the layout is unknown; iterating raises it where the file cannot be used.
    """
    layout = detect_format(path) if format == "auto" else format
    pieces: Iterator[RawTable] = (
        read_parquet_pieces(path, columns) if layout == "parquet" else read_text_pieces(path, layout, columns)
    )
    return CheckedFile(path, pieces, columns_of(layout, columns), fractional=fractional)

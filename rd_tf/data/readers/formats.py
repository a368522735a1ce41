"""Which layout a file has."""

from rd_tf.data.readers.text_lines import first_lines
from rd_tf.errors import InputError

_ENDINGS = {".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"}


def detect_format(path: str) -> str:
    """Tells a file's layout by its ending, and that of a .txt file by its first line.

    Returns:
        "csv", "tsv", "parquet", "snap" or "triples".

    Raises:
        InputError: neither the ending nor the first line tells.
    """
    name = path.lower().removesuffix(".gz")
    for ending, layout in _ENDINGS.items():
        if name.endswith(ending):
            return layout
    if not name.endswith(".txt"):
        raise InputError(
            f"{path}: its ending does not tell its layout; give --format (csv, tsv, parquet, snap or triples)"
        )
    line = next((line for line in first_lines(path) if line.strip()), b"")
    if line.count(b"\t") == 4:
        return "snap"
    if len(line.split()) == 3:
        return "triples"
    raise InputError(
        f"{path}: its first line is neither five tab-separated columns (snap) nor 'user item rating' (triples);"
        " give --format (csv, tsv, snap or triples)"
    )

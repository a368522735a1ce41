"""Foursquare check-ins, from a file that the user has, for TensorFlow Datasets."""

import contextlib
import csv
import datetime
import gzip
import io
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets.public_api as tfds

_FILE = "checkins.csv.gz"
_HOMEPAGE = "https://foursquare.com"
_SECONDS = "seconds since 1970-01-01 UTC"
_TIME_COLUMNS = {"timestamp": _SECONDS, "position": "check-ins of the user before this one"}


class Builder(tfds.core.GeneratorBasedBuilder):
    """One split, "train", with every check-in in the order of the file.

    An example holds `user_id` and `item_id` (strings) and `timestamp` (int64, seconds since 1970-01-01 UTC, or the
    position where the file has positions in place of times; `info.metadata["units"]["timestamp"]` says which).
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Put {_FILE} into the manual directory: a gzip-compressed CSV file in UTF-8 whose first line names the"
        " columns, among them user_id, item_id and either timestamp (whole seconds since 1970-01-01 UTC, or ISO 8601,"
        " UTC where it has no offset; fractions of a second are cut off) or position (a whole number that orders a"
        " user's check-ins, 0 the earliest). Other columns are passed over; of timestamp and position, timestamp is"
        " read."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "user_id": tfds.features.Text(doc="The user, as in the file."),
                    "item_id": tfds.features.Text(doc="The venue, as in the file."),
                    "timestamp": tfds.features.Scalar(
                        np.int64, doc=f"{_SECONDS}; the position where there is no time."
                    ),
                }
            ),
            supervised_keys=None,
            homepage=_HOMEPAGE,
            # The order of a user's check-ins with equal times is all that the file says of them.
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        path = dl_manager.manual_dir / _FILE
        with _text(path) as lines:
            header = next(csv.reader(lines), [])
        time_column = next((name for name in _TIME_COLUMNS if name in header), None)
        if time_column is None or not {"user_id", "item_id"} <= set(header):
            raise ValueError(f"{_FILE}: its first line names {header}, not user_id, item_id and timestamp or position")
        # Read by rd_tf.prepare, so that times come out as they do from the file itself.
        self.info.metadata["units"] = {"timestamp": _TIME_COLUMNS[time_column]}
        return {"train": self._generate_examples(path, time_column)}

    def _generate_examples(self, path: Any, time_column: str) -> Iterator[tuple[int, dict[str, Any]]]:
        with _text(path) as lines:
            rows = csv.DictReader(lines, strict=True)
            for index in itertools.count():
                try:
                    row = next(rows, None)
                    if row is None:
                        return
                    example = {
                        "user_id": _present(row["user_id"]),
                        "item_id": _present(row["item_id"]),
                        "timestamp": _number(_present(row[time_column]), time_column),
                    }
                except (ValueError, csv.Error) as error:
                    raise ValueError(f"{_FILE}, line {rows.line_num}: {error}") from None
                yield index, example


@contextlib.contextmanager
def _text(path: Any) -> Iterator[io.TextIOWrapper]:
    # newline="" leaves line breaks inside quotation marks to the csv module; the -sig drops a byte-order mark.
    with path.open("rb") as zipped, gzip.open(zipped, "rt", encoding="utf-8-sig", newline="") as text:
        yield text


def _present(value: str | None) -> str:
    if not value:
        raise ValueError("a user, an item or a time is missing")
    return value


def _number(text: str, column: str) -> int:
    try:
        return int(text)
    except ValueError:
        if column == "position":
            raise ValueError(f"the position {text!r} is not a whole number") from None
    try:
        time = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"the timestamp {text!r} is neither whole seconds nor ISO 8601") from None
    return int((time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).timestamp())

"""Gowalla's check-ins, from the file of the Stanford Network Analysis Project, for TensorFlow Datasets."""

import datetime
import gzip
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets.public_api as tfds

_FILE = "loc-gowalla_totalCheckins.txt.gz"
_URL = f"https://snap.stanford.edu/data/{_FILE}"
_HOMEPAGE = "https://snap.stanford.edu/data/loc-Gowalla.html"
_LAYOUT = "user, ISO 8601 time, latitude, longitude, place, tab-separated"


class Builder(tfds.core.GeneratorBasedBuilder):
    """One split, "train", with every check-in in the order of the file.

    An example holds `user_id` and `item_id` (strings), `timestamp` (int64, seconds since 1970-01-01 UTC), `latitude`
    and `longitude` (float32, degrees).
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First release."}  # noqa: RUF012
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        f"Without a manual directory the file is downloaded. Where there is no network, fetch {_URL} elsewhere and put "
        f"it into the manual directory as {_FILE}: gzip, UTF-8, no header, a check-in a line ({_LAYOUT})."
    )

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "user_id": tfds.features.Text(doc="The user, as in the file."),
                    "item_id": tfds.features.Text(doc="The place, as in the file."),
                    "timestamp": tfds.features.Scalar(
                        np.int64, doc="Time of the check-in: seconds since 1970-01-01 UTC."
                    ),
                    "latitude": tfds.features.Scalar(np.float32, doc="Degrees north."),
                    "longitude": tfds.features.Scalar(np.float32, doc="Degrees east."),
                }
            ),
            supervised_keys=None,
            homepage=_HOMEPAGE,
            # The order of a user's check-ins with equal times is all that the file says of them.
            disable_shuffling=True,
            # Read by rd_tf.prepare, so that times come out as they do from the file itself.
            metadata=tfds.core.MetadataDict(units={"timestamp": "seconds since 1970-01-01 UTC"}),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        # There is no checksums.tsv beside this file: nobody here has seen the published file to take its checksum.
        path = _manual_file(dl_manager) or dl_manager.download(_URL)
        return {"train": self._generate_examples(path)}

    def _generate_examples(self, path: Any) -> Iterator[tuple[int, dict[str, Any]]]:
        with tfds.core.Path(path).open("rb") as zipped, gzip.open(zipped, "rb") as lines:
            for index, line in enumerate(lines):
                try:
                    user, time, latitude, longitude, item = line.decode().rstrip("\r\n").split("\t")
                    example = {
                        "user_id": user,
                        "item_id": item,
                        "timestamp": _seconds(time),
                        "latitude": float(latitude),
                        "longitude": float(longitude),
                    }
                except ValueError:
                    raise ValueError(f"{_FILE}, line {index + 1}: {line[:100]!r} is not {_LAYOUT}") from None
                yield index, example


def _manual_file(dl_manager: tfds.download.DownloadManager) -> Any:
    try:
        path = dl_manager.manual_dir / _FILE
    except AssertionError:  # That directory is missing or empty.
        return None
    return path if path.exists() else None


def _seconds(text: str) -> int:
    time = datetime.datetime.fromisoformat(text)
    # A time without an offset is UTC.
    return int((time if time.tzinfo else time.replace(tzinfo=datetime.UTC)).timestamp())

"""What an export may be told: its options, and the names that a served model may have."""

import dataclasses
import re

from rd_tf.storage import InputError

_CHOICES = {
    "weights": ("float32", "float16", "int8"),
    "id_type": ("string", "int64"),
    "index": ("exact", "clusters"),
    "export_format": ("saved_model", "litert"),
}
# These characters need no quoting in a URL or in a server's configuration.
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """How a ranker is exported; every attribute is the flag of that name.

    Attributes:
        max_k: longest list that a request may ask for; the catalogue bounds it too.
        exclude_recent: whether a request's recent items are kept out of its list.
        id_type: "string" or "int64", how requests and answers write ids.
        weights: "float32", "float16" or "int8", how the weights are stored.
        index: "exact" or "clusters", how the best items are found.
        clusters: cells of the clustered index; 0 chooses.
        probes: cells that are searched for a query.
        item_table: whether item vectors are written beside the model, for other indexes.
        batching: whether requests of different clients are answered together, inside the graph.
        max_batch_size: most rows that are answered together.
        batch_timeout_micros: how long a request waits for others, in microseconds.
        num_batch_threads: batches that are computed at the same time.
        export_format: "saved_model" for tensorflow_model_server, or "litert" for devices.
    """

    max_k: int = 100
    exclude_recent: bool = True
    id_type: str = "string"
    weights: str = "float32"
    index: str = "exact"
    clusters: int = 0
    probes: int = 16
    item_table: bool = False
    export_format: str = "saved_model"
    batching: bool = False
    max_batch_size: int = 64
    batch_timeout_micros: int = 0
    num_batch_threads: int = 2

    def for_catalogue(self, num_items: int) -> "ExportOptions":
        """These options with everything chosen that they left open.

        Raises:
            InputError: they do not fit the catalogue or each other.
        """
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"--{name}={getattr(self, name)} is none of {', '.join(allowed)}")
        if self.max_k < 1:
            raise InputError(f"--max_k={self.max_k} is below 1; a request must be able to ask for an item")
        if self.batching and self.export_format != "saved_model":
            raise InputError(
                f"--batching does not go with --export_format={self.export_format}, since a device has one client; "
                "leave it out"
            )
        for name, least in (("max_batch_size", 1), ("batch_timeout_micros", 0), ("num_batch_threads", 1)):
            if getattr(self, name) < least:
                raise InputError(f"--{name}={getattr(self, name)} is below {least}")
        if self.index == "exact":
            return dataclasses.replace(self, max_k=min(self.max_k, num_items))
        if self.export_format != "saved_model":
            raise InputError(
                f"--index=clusters does not go with --export_format={self.export_format}; use --index=exact"
            )
        if self.clusters > num_items:
            raise InputError(f"--clusters={self.clusters} is more than the {num_items} items; use fewer")
        # Near the square root of the items, scoring the centroids costs as much as scoring the items of a few cells.
        clusters = self.clusters or min(num_items, max(1, round(2 * num_items**0.5)))
        if self.probes < 1:
            raise InputError(f"--probes={self.probes} is below 1; search a cell at least")
        if self.clusters and self.probes > self.clusters:
            raise InputError(f"--probes={self.probes} is more than --clusters={self.clusters}; probe fewer cells")
        return dataclasses.replace(
            self, max_k=min(self.max_k, num_items), clusters=clusters, probes=min(self.probes, clusters)
        )


def is_export_name(name: str) -> bool:
    """Whether a served model may have a name."""
    return _NAME.fullmatch(name) is not None


def check_export_name(name: str) -> None:
    """Checks a served model's name.

    Raises:
        InputError: it would need quoting in a URL, or leads to another directory.
    """
    if not is_export_name(name):
        raise InputError(
            f"--export_name={name} cannot be a served model's name; take letters, digits, '_', '-', '.', not '.' first"
        )

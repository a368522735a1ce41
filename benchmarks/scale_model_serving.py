"""What a server of an export of any size holds, and how long a request takes."""

import dataclasses
import math

from benchmarks.scale_model_constants import Constants
from benchmarks.scale_model_rankers import FLOAT, Ranker

_MILLION, _GIGA, _MEGA = 1_000_000, 1e9, 1e6
# Of the exports that were measured.
_MEASURED_QUERY_DIM, _MEASURED_PROBES = 128, 16


@dataclasses.dataclass(frozen=True)
class Server:
    """One process that serves an export, on a machine of 2 cores.

    Attributes:
        name: of the kind of export.
        export_bytes: of the weights and the index, on disk; raw ids are compressed there and take little.
        memory_bytes: resident.
        read_bytes: of weights, a request.
        flops: floating-point operations of a request.
        milliseconds: a request's time, one client.
    """

    name: str
    export_bytes: float
    memory_bytes: float
    read_bytes: float
    flops: float
    milliseconds: float


def make_servers(ranker: Ranker, users: int, probes: int, constants: Constants) -> list[Server]:
    """An exact float32 export, an exact int8 one, and one by cells.

    Args:
        ranker: what is exported.
        users: that it knows.
        probes: cells that are searched.
        constants: measured.
    """
    item_rows, query_dim = ranker.tables["item_table"]
    ids = constants.id_bytes.value * (users + item_rows - 1)
    base = constants.server_mb.value * _MEGA + ids
    small = constants.request_ms.value

    def server(name: str, size: float, read: float, scored: float, measured_ms: float, work: float) -> Server:
        milliseconds = small + (measured_ms - small) * work
        return Server(name, size, base + size, read, 2 * query_dim * scored, milliseconds)

    exact = item_rows * query_dim / (_MILLION * _MEASURED_QUERY_DIM)
    whole, compact = ranker.stored_bytes("float32"), ranker.stored_bytes("int8")
    rows = searched_rows(item_rows, probes)
    fewer = rows * query_dim / (searched_rows(_MILLION, _MEASURED_PROBES) * _MEASURED_QUERY_DIM)
    # Only the names of the constants say which table was searched how.
    return [
        server("exact, float32", whole, FLOAT * item_rows * query_dim, item_rows, constants.exact_ms.value, exact),
        server("exact, int8", compact, item_rows * query_dim, item_rows, constants.int8_ms.value, exact),
        server(
            f"clusters ({probes} of {cells(item_rows):,}), float32",
            whole + index_bytes(item_rows, query_dim),
            FLOAT * rows * query_dim,
            rows,
            constants.clusters_ms.value,
            fewer,
        ),
    ]


def cells(item_rows: int) -> int:
    """Cells of an index as --clusters=0 makes them: twice the square root of the catalogue."""
    return round(2 * math.sqrt(item_rows))


def searched_rows(item_rows: int, probes: int) -> float:
    """Vectors that a request is multiplied with: all centroids, and the probed cells at their mean size."""
    return cells(item_rows) + probes * item_rows / cells(item_rows)


def index_bytes(item_rows: int, query_dim: int) -> float:
    """Of `rd_tf.serving.search.Cells`: centroids with their biases, offsets, items."""
    return FLOAT * (cells(item_rows) * (query_dim + 2) + item_rows)

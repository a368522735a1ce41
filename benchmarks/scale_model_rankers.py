"""Parameters and optimizer state of a ranker of any size, without making it."""

import dataclasses
import math

from benchmarks.floors import CaserSizes

FLOAT = 4


@dataclasses.dataclass(frozen=True)
class Ranker:
    """The variables of a ranker.

    Attributes:
        name: of the class and its d.
        tables: rows and columns of each embedding table, which LazyAdam gives one slot a number; the item table is
            "item_table", its biases "item_bias".
        network: numbers of all other weights, which have two slots.
    """

    name: str
    tables: dict[str, tuple[int, int]]
    network: int

    @property
    def table_numbers(self) -> int:
        return sum(rows * columns for rows, columns in self.tables.values())

    @property
    def parameters(self) -> int:
        return self.table_numbers + self.network

    @property
    def weight_bytes(self) -> int:
        return FLOAT * self.parameters

    @property
    def table_bytes(self) -> int:
        return FLOAT * self.table_numbers

    @property
    def slot_bytes(self) -> int:
        """LazyAdam's second moments of the tables, both moments of the network."""
        return FLOAT * (self.table_numbers + 2 * self.network)

    @property
    def replica_bytes(self) -> int:
        """What a replica holds of the model and its optimizer."""
        return self.weight_bytes + self.slot_bytes

    @property
    def item_matrix_bytes(self) -> int:
        """The copy of the item table, with its biases, by which an evaluation and the teacher's lists score."""
        rows, columns = self.tables["item_table"]
        return FLOAT * rows * (columns + 1)

    def stored_bytes(self, weights: str) -> int:
        """Of an export: float32, or int8 with a byte a row for its scale and all else in float16."""
        if weights == "float32":
            return self.weight_bytes
        tables = [(rows, columns) for name, (rows, columns) in self.tables.items() if name != "item_bias"]
        return sum(rows * (columns + 1) for rows, columns in tables) + 2 * (self.tables["item_bias"][0] + self.network)


def caser(users: int, items: int, dim: int, sequence_length: int = 5) -> Ranker:
    """`rd_tf.models.caser.Caser` with the paper's filters."""
    tables = {
        "user_table": (users, dim),
        "sequence_table": (items + 1, dim),
        "item_table": (items + 1, 2 * dim),
        "item_bias": (items + 1, 1),
    }
    return Ranker(f"Caser, d = {dim}", tables, CaserSizes(dim, sequence_length).network_weights)


def fossil(users: int, items: int, dim: int, sequence_length: int = 5) -> Ranker:
    """`rd_tf.models.fossil.Fossil`."""
    tables = {
        "visited_table": (items + 1, dim),
        "user_markov_weights": (users, sequence_length),
        "item_table": (items + 1, dim),
        "item_bias": (items + 1, 1),
    }
    return Ranker(f"Fossil, d = {dim}", tables, sequence_length)


def distinct(draws: float, rows: int) -> float:
    """Distinct rows that uniform draws from a table are expected to hit."""
    return -rows * math.expm1(draws * math.log1p(-1 / rows)) if rows > 1 else 1.0

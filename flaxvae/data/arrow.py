"""What is used of Arrow's tables, columns and types, which have no annotations."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np


class ArrowType(Protocol):
    """The type of a column; which attributes it has depends on its kind."""

    bit_width: int
    unit: str
    tz: str | None
    value_type: "ArrowType"
    index_type: "ArrowType"
    storage_type: "ArrowType"

    def to_pandas_dtype(self) -> type[np.generic]:
        """The type of NumPy's scalars."""


class ArrowScalar(Protocol):
    """One cell of a column."""

    def as_py(self) -> object:
        """Its value in Python; None where it is missing."""


class ArrowColumn(Protocol):
    """An array or a chunked array."""

    type: ArrowType
    null_count: int
    chunks: Sequence["ArrowColumn"]
    dictionary: "ArrowColumn"
    indices: "ArrowColumn"

    def __len__(self) -> int:
        """N, the number of rows."""

    def __getitem__(self, row: int) -> ArrowScalar:
        """The cell of a row."""

    def cast(self, target_type: ArrowType, safe: bool = True) -> "ArrowColumn":
        """The column as another type; not ``safe``: numbers may be rounded."""

    def combine_chunks(self) -> "ArrowColumn":
        """The column in one piece."""

    def dictionary_encode(self) -> "ArrowColumn":
        """The column as ``indices`` of the different values in ``dictionary``."""

    def fill_null(self, value: int) -> "ArrowColumn":
        """The column with a value in place of what is missing."""

    def drop_null(self) -> "ArrowColumn":
        """The cells that are not missing."""

    def filter(self, mask: "ArrowColumn") -> "ArrowColumn":
        """The cells where the mask is true."""

    def slice(self, offset: int, length: int) -> "ArrowColumn":
        """Some of the rows."""

    def take(self, indices: "ArrowColumn") -> "ArrowColumn":
        """The cells of these rows."""

    def to_numpy(self, zero_copy_only: bool = True) -> np.ndarray:
        """The column as an array ``(N,)``."""

    def to_pylist(self) -> list[Any]:
        """The cells as Python has them, which are of one type, or None."""


class ArrowTable(Protocol):
    """A table."""

    column_names: list[str]
    columns: list[ArrowColumn]
    num_rows: int

    def column(self, name: str) -> ArrowColumn:
        """The column of a name."""

    def select(self, columns: Sequence[str]) -> "ArrowTable":
        """These columns alone."""

    def drop_columns(self, columns: Sequence[str]) -> "ArrowTable":
        """The table without these columns."""

    def rename_columns(self, names: Sequence[str]) -> "ArrowTable":
        """The table with other names of its columns, in their order."""

    def unify_dictionaries(self) -> "ArrowTable":
        """The table with one dictionary per column."""

    def append_column(self, name: str, column: ArrowColumn) -> "ArrowTable":
        """The table with a further column."""

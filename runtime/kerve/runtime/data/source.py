"""The interface of data files."""

from collections.abc import Collection, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from kerve.runtime.datatypes import Array

__all__ = ["BLOCK_BYTES", "BLOCK_ROWS", "Block", "DataError", "Source", "needs", "rows_of_block"]

#: Package names that differ from the imported module.
LIBRARIES = {"PIL.Image": "pillow"}

#: Maximum rows and bytes of a block in memory.
BLOCK_ROWS = 256
BLOCK_BYTES = 8 * 2**20

#: Columns by name, each an array with the rows on axis 0; text is an object array of str or bytes.
Block = dict[str, Array]


class DataError(Exception):
    """A data file is not as expected; the message says where, what was expected and what was found."""

    exit_code = 2


class Source(Protocol):
    """A data file with named columns."""

    @property
    def path(self) -> Path:
        """The file, for errors."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""

    @property
    def rows(self) -> int | None:
        """The number of rows; None if it is unknown without reading all of them."""

    def blocks(self, columns: Collection[str]) -> Iterator[Block]:
        """Yield the rows of some columns in order, in blocks; raises DataError if they cannot be read."""


def rows_of_block(bytes_per_row: int) -> int:
    """Return the number of rows in a block, given their size."""
    return max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(1, bytes_per_row)))


def needs(module: str, path: Path, kind: str, doing: str = "reading") -> Any:
    """Import an optional module; raises DataError with the package to install if it is missing."""
    try:
        return import_module(module)
    except ImportError as error:
        library = LIBRARIES.get(module, module.partition(".")[0])
        raise DataError(
            f"{path}: {doing} {kind} needs {library}, which is not installed: pip install 'kerve[data]'"
        ) from error

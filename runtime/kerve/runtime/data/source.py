"""What a file of rows is to those who read it."""

from collections.abc import Collection, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from kerve.runtime.datatypes import Array

__all__ = ["BLOCK_BYTES", "BLOCK_ROWS", "Block", "DataError", "Source", "needs", "rows_of_block"]

#: What is installed, where it is not what is imported.
LIBRARIES = {"PIL.Image": "pillow"}

#: Rows that are in memory together, and the bytes that they may take.
BLOCK_ROWS = 256
BLOCK_BYTES = 8 * 2**20

#: Columns by name, each an array with the rows on axis 0; text is an object array of str or bytes.
Block = dict[str, Array]


class DataError(Exception):
    """A file is not what was expected: says where, what was expected and what is there."""

    exit_code = 2


class Source(Protocol):
    """A file of rows, with named columns."""

    @property
    def path(self) -> Path:
        """The file, for errors."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns."""

    @property
    def rows(self) -> int | None:
        """The number of rows; None where only reading all of them tells."""

    def blocks(self, columns: Collection[str]) -> Iterator[Block]:
        """Yield the rows of some columns, in order, a few at a time; DataError where they cannot be read."""


def rows_of_block(bytes_per_row: int) -> int:
    """Return how many rows of a size make a block."""
    return max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(1, bytes_per_row)))


def needs(module: str, path: Path, kind: str, doing: str = "reading") -> Any:
    """Return an optional module; DataError that says how to get it."""
    try:
        return import_module(module)
    except ImportError as error:
        library = LIBRARIES.get(module, module.partition(".")[0])
        raise DataError(
            f"{path}: {doing} {kind} needs {library}, which is not installed: pip install 'kerve[data]'"
        ) from error

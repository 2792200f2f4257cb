"""CSV with a header: RFC 4180 in UTF-8."""

import csv
from collections.abc import Collection, Iterator
from itertools import islice
from pathlib import Path

import numpy as np

from kerve.runtime.data.source import BLOCK_ROWS, Block, DataError

__all__ = ["CsvFile"]

#: Maximum characters of a value: a book has a few millions. It stops at a quote that is never closed.
MOST_LETTERS = 2**26
csv.field_size_limit(MOST_LETTERS)  # global in the csv module: there is no limit per reader


class CsvFile:
    """Columns of text; numbers are converted where the expected type is known."""

    rows = None

    def __init__(self, path: Path) -> None:
        self.path = path
        header = next(self._lines(), [])
        self.columns = tuple(name.strip() for name in header)
        if not header or not all(self.columns):
            raise DataError(f"{path}: expected a header that names every column in the first line")
        if twice := {name for name in self.columns if self.columns.count(name) > 1}:
            raise DataError(f"{path}: duplicate columns in the header: {', '.join(sorted(twice))}")

    def blocks(self, columns: Collection[str]) -> Iterator[Block]:
        """Yield the rows of some columns, as text."""
        positions = {column: self.columns.index(column) for column in columns}
        lines, first = islice(self._lines(), 1, None), 0
        while block := list(islice(lines, BLOCK_ROWS)):
            for number, line in enumerate(block, first):
                if len(line) != len(self.columns):
                    raise DataError(
                        f"{self.path}: row {number}: expected {len(self.columns)} values, as the header has, "
                        f"got {len(line)}"
                    )
            yield {
                column: np.array([line[position] for line in block], object)
                for column, position in positions.items()
            }
            first += len(block)

    def _lines(self) -> Iterator[list[str]]:
        """Yield the non-empty lines."""
        with self.path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, strict=True)
            try:
                yield from filter(None, reader)
            except (csv.Error, UnicodeDecodeError) as error:
                raise DataError(
                    f"{self.path}: line {reader.line_num + 1}: expected CSV in UTF-8: {error}"
                ) from error

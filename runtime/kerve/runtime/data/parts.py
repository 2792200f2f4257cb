"""Divides data files into parts, each of which is read by one worker."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kerve.runtime.data.files import files_in, open_file, open_files
from kerve.runtime.data.numpy_file import NpyFile
from kerve.runtime.data.parquet import ParquetFile
from kerve.runtime.data.source import Source

__all__ = ["Part", "parts_of"]

# Approximate bytes of a part, which is repeated if its worker is lost; row groups are not divided.
PART_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Part:
    """Some rows of the data."""

    #: Its position among all parts, which are in the order of the rows.
    number: int
    #: One file, or .npy files that are columns of the same rows.
    paths: tuple[Path, ...]
    #: Row groups of a Parquet file; None: all of the file.
    groups: range | None = None
    #: The position of the first row within the file.
    first: int = 0
    #: The number of rows; None if it is unknown without reading all of them.
    rows: int | None = None

    def open(self) -> Source:
        """Return the rows; raises DataError if they cannot be read."""
        if self.groups is not None:
            return ParquetFile(self.paths[0], self.groups)
        return open_files(self.paths)


def parts_of(paths: Sequence[Path]) -> list[Part]:
    """Divide files and folders: Parquet by row groups, other files are one part each; raises DataError."""
    files = files_in(paths)
    sources = [open_file(path) for path in files]
    if all(isinstance(source, NpyFile) for source in sources):
        return [Part(0, tuple(files), rows=open_files(files).rows)]
    parts: list[Part] = []
    for source in sources:
        if not isinstance(source, ParquetFile):
            parts.append(Part(len(parts), (source.path,), rows=source.rows))
            continue
        for groups in runs_of(source):
            rows = sum(source.sizes[number][0] for number in groups)
            first = sum(rows for rows, _ in source.sizes[: groups.start])
            parts.append(Part(len(parts), (source.path,), groups, first, rows))
    return parts


def runs_of(file: ParquetFile) -> Iterator[range]:
    """Yield ranges of consecutive row groups, each for one part."""
    begin, size = 0, 0
    for number, (_, group) in enumerate(file.sizes):
        if number > begin and size + group > PART_BYTES:
            yield range(begin, number)
            begin, size = number, 0
        size += group
    yield range(begin, len(file.sizes))

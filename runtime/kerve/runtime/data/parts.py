"""Files of rows in parts, each of which one worker reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kerve.runtime.data.files import files_in, open_file, open_files
from kerve.runtime.data.numpy_file import NpyFile
from kerve.runtime.data.parquet import ParquetFile
from kerve.runtime.data.source import Source

__all__ = ["Part", "parts_of"]

# What a worker does anew when another was lost; row groups are not divided.
PART_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Part:
    """Some rows of the data."""

    #: Its place among all parts, whose order is that of the rows.
    number: int
    #: A file; .npy files that are columns of the same rows.
    paths: tuple[Path, ...]
    #: Row groups of a Parquet file; None: all of the file.
    groups: range | None = None
    #: The position of the first row within the file.
    first: int = 0
    #: None where only reading all of them tells.
    rows: int | None = None

    def open(self) -> Source:
        """Return the rows; DataError where they cannot be read."""
        if self.groups is not None:
            return ParquetFile(self.paths[0], self.groups)
        return open_files(self.paths)


def parts_of(paths: Sequence[Path]) -> list[Part]:
    """Return the parts of files and folders: row groups of Parquet, other files whole; DataError."""
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
    """Yield row groups that follow one another, as many at a time as are read together."""
    begin, size = 0, 0
    for number, (_, group) in enumerate(file.sizes):
        if number > begin and size + group > PART_BYTES:
            yield range(begin, number)
            begin, size = number, 0
        size += group
    yield range(begin, len(file.sizes))

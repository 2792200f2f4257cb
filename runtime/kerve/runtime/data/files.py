"""Detects the format of a file, and concatenates several files, or a folder of them."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

from kerve.runtime.data.csv_file import CsvFile
from kerve.runtime.data.numpy_file import NpyFile, NpzFile
from kerve.runtime.data.parquet import ParquetFile
from kerve.runtime.data.source import Block, DataError, Source, rows_of_block
from kerve.runtime.data.tfrecord import TfRecordFile

__all__ = ["files_in", "open_files"]

Reader = Callable[[Path], Source]

#: Readers by the suffix of the file's name.
NAMES: Mapping[str, Reader] = {
    ".npz": NpzFile,
    ".npy": NpyFile,
    ".csv": CsvFile,
    ".parquet": ParquetFile,
    ".tfrecord": TfRecordFile,
    ".tfrecords": TfRecordFile,
}
#: Readers by the first bytes of a file with any other suffix.
MAGIC: Mapping[bytes, Reader] = {
    b"PK": NpzFile,
    b"\x93NUMPY": NpyFile,
    b"PAR1": ParquetFile,
    b"\x1f\x8b": TfRecordFile,
}
SNIFFED = 1024


def open_files(paths: Sequence[Path]) -> Source:
    """Return the rows of files: .npy files are columns, named after the files; other files are concatenated.

    The column of a single .npy file is `x`, unless its dtype has fields. A folder means the files in it.
    Raises DataError.
    """
    files = files_in(paths)
    sources = [open_file(path) for path in files]
    if len(sources) == 1:
        return sources[0]
    if all(isinstance(source, NpyFile) for source in sources):
        return ColumnConcatenation([NpyFile(path, path.stem) for path in files])
    return RowConcatenation(sources)


def files_in(paths: Sequence[Path]) -> list[Path]:
    """Return the files of the paths: of a folder, those with a known suffix, at any depth, sorted by name.

    Names that begin with a dot or an underscore are skipped: they are not data.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            files.append(path)
            continue
        inside = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in NAMES
            and file.is_file()
            and not any(name.startswith((".", "_")) for name in file.relative_to(path).parts)
        )
        if not inside:
            raise DataError(f"{path} contains no data files; expected one of *{', *'.join(NAMES)}")
        files += inside
    return files


def open_file(path: Path) -> Source:
    """Return the rows of one file."""
    with path.open("rb") as stream:
        start = stream.read(SNIFFED)
    if not start:
        raise DataError(f"{path} is empty")
    if (promised := NAMES.get(path.suffix.lower())) is not None:
        return promised(path)
    for magic, reader in MAGIC.items():
        if start.startswith(magic):
            return reader(path)
    return TfRecordFile(path) if is_binary(start) else CsvFile(path)


def is_binary(start: bytes) -> bool:
    """Return whether the beginning of a file is binary."""
    if b"\0" in start:  # a TFRecord starts with its length in eight bytes
        return True
    try:
        start[: SNIFFED - 4].decode()
    except UnicodeDecodeError:
        return True
    return False


class ColumnConcatenation:
    """The columns of files with the same rows."""

    def __init__(self, sources: Sequence[NpyFile]) -> None:
        first = sources[0]
        for source in sources:
            if source.rows != first.rows:
                raise DataError(f"{source.path} has {source.rows} rows where {first.path} has {first.rows}")
        self.path, self.rows = first.path, first.rows
        self._sources = sources
        self.columns = tuple(column for source in sources for column in source.columns)
        if twice := {column for column in self.columns if self.columns.count(column) > 1}:
            raise DataError(f"{', '.join(sorted(twice))}: several files have an array of that name")

    def blocks(self, columns: Collection[str]) -> Iterator[Block]:
        """Yield the rows of some columns."""
        rows = rows_of_block(sum(source.row_bytes for source in self._sources))
        wanted = [source for source in self._sources if set(source.columns) & set(columns)]
        streams = [source.parts(set(source.columns) & set(columns), rows) for source in wanted]
        for parts in zip(*streams, strict=True):
            yield {column: array for part in parts for column, array in part.items()}


class RowConcatenation:
    """The rows of files with the same columns."""

    def __init__(self, sources: Sequence[Source]) -> None:
        first = sources[0]
        for source in sources:
            if set(source.columns) != set(first.columns):
                raise DataError(
                    f"{source.path}: expected the columns of {first.path}, {', '.join(first.columns)}, got "
                    f"{', '.join(source.columns)}"
                )
        self.path, self.columns = first.path, first.columns
        counts = [source.rows for source in sources]
        self.rows = None if None in counts else sum(count or 0 for count in counts)
        self._sources = sources

    def blocks(self, columns: Collection[str]) -> Iterator[Block]:
        """Yield the rows of some columns."""
        for source in self._sources:
            yield from source.blocks(columns)

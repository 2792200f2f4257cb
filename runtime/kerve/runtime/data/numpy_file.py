"""NumPy's .npz and .npy, streamed: only the current rows are in memory."""

import math
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from kerve.runtime.data.source import BLOCK_BYTES, Block, DataError, rows_of_block
from kerve.runtime.datatypes import Array

__all__ = ["NpyFile", "NpzFile"]

HEADERS: dict[tuple[int, int], Callable[[IO[bytes]], Any]] = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Stored:
    """An array in a file, read sequentially by rows."""

    def __init__(self, path: Path, name: str, stream: IO[bytes]) -> None:
        self._where = f"{path}: array {name!r}"
        self._stream = stream
        try:
            self.shape, self._column_major, self.dtype = HEADERS[np.lib.format.read_magic(stream)](stream)
        except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{self._where}: expected a NumPy array without Python objects: {error}"
            ) from error
        if self.dtype.hasobject:
            raise DataError(
                f"{self._where} contains Python objects, which are not loaded; write numbers, or text as "
                "numpy.str_"
            )
        self.shape = self.shape or (1,)

    @property
    def row_bytes(self) -> int:
        """The size of a row in bytes."""
        size: int = math.prod(self.shape[1:]) * self.dtype.itemsize
        return size

    def read(self, rows: int) -> Array:
        """Return the next `rows` rows."""
        contents, wanted = bytearray(), rows * self.row_bytes
        while len(contents) < wanted:
            part = self._some(min(wanted - len(contents), BLOCK_BYTES))
            if not part:
                raise DataError(
                    f"{self._where}: the file is truncated, expected {self.shape[0]} rows; write it again"
                )
            contents += part
        array = np.frombuffer(contents, self.dtype).reshape(rows, *self.shape[1:])
        return array.astype(self.dtype.newbyteorder("="), copy=False)

    def whole(self) -> Array:
        """Return all rows of an array in column-major order, which cannot be read by rows."""
        array = self.read(self.shape[0])
        return array.reshape(self.shape[::-1]).transpose()

    def blocks(self, rows: int) -> Iterator[Array]:
        """Yield the rows in blocks of `rows`."""
        whole = self.whole() if self._column_major and len(self.shape) > 1 else None
        for begin in range(0, self.shape[0], rows):
            count = min(rows, self.shape[0] - begin)
            yield self.read(count) if whole is None else whole[begin : begin + count]

    def _some(self, wanted: int) -> bytes:
        try:
            return self._stream.read(wanted)
        except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(f"{self._where} cannot be read: {error}") from error


class NpzFile:
    """An .npz file; each array is a column."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._members = {
                    name.removesuffix(".npy"): name for name in archive.namelist() if not name.endswith("/")
                }
                self._shapes: dict[str, int] = {}
                for column in self._members:
                    with self._open(archive, column) as stream:
                        self._shapes[column] = self._length(column, stream)
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path} is not a NumPy .npz file; write one with numpy.savez ({error})"
            ) from error
        self.columns = tuple(self._members)
        self.rows = next(iter(self._shapes.values()), 0)

    def blocks(self, columns: Collection[str]) -> Iterator[Block]:
        """Yield the rows of some columns."""
        if not columns:
            return
        lengths = {column: self._shapes[column] for column in columns}
        first, rows = next(iter(lengths.items()))
        for column, length in lengths.items():
            if length != rows:
                raise DataError(f"{self.path}: array {column!r} has {length} rows where {first!r} has {rows}")
        with ExitStack() as stack:
            archive = stack.enter_context(zipfile.ZipFile(self.path))
            arrays = {
                column: Stored(self.path, column, stack.enter_context(self._open(archive, column)))
                for column in columns
            }
            count = rows_of_block(sum(array.row_bytes for array in arrays.values()))
            for parts in zip(*(array.blocks(count) for array in arrays.values()), strict=True):
                yield dict(zip(arrays, parts, strict=True))

    def _open(self, archive: zipfile.ZipFile, column: str) -> IO[bytes]:
        return archive.open(self._members[column])

    def _length(self, column: str, stream: IO[bytes]) -> int:
        return int(Stored(self.path, column, stream).shape[0])


class NpyFile:
    """An .npy file: one named column, or one for each field of a structured dtype."""

    def __init__(self, path: Path, name: str = "x") -> None:
        self.path = path
        with path.open("rb") as stream:
            array = Stored(path, name, stream)
        self._name = name
        self._fields = array.dtype.names
        self.columns: tuple[str, ...] = self._fields or (name,)
        self.rows = int(array.shape[0])
        self.row_bytes = array.row_bytes

    def blocks(self, columns: Collection[str]) -> Iterator[Block]:
        """Yield the rows of some columns."""
        return self.parts(columns, rows_of_block(self.row_bytes))

    def parts(self, columns: Collection[str], rows: int) -> Iterator[Block]:
        """Yield the rows of some columns in blocks of `rows`."""
        with self.path.open("rb") as stream:
            for part in Stored(self.path, self._name, stream).blocks(rows):
                yield {
                    column: np.ascontiguousarray(part[column]) if self._fields else part for column in columns
                }

"""Writes data files in blocks and atomically: a file appears complete or not at all.

.npz      an array for each output
.npy      the array of the only output
.csv      a column for each number, `NAME` or `NAME_0`, `NAME_1`, ..., under a header
.parquet  a column for each output, of lists where an output has further axes
"""

import csv
import math
import tempfile
import uuid
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from kerve.runtime.data.source import DataError, needs
from kerve.runtime.datatypes import Array

__all__ = ["Add", "arrow_column", "whole", "writing"]

#: Takes the next rows, as arrays by name.
Add = Callable[[Mapping[str, Array]], None]


class Writer(Protocol):
    """Writes a data file."""

    def __init__(self, path: Path) -> None: ...

    def add(self, outputs: Mapping[str, Array]) -> None:
        """Write the next rows."""

    def close(self, *, complete: bool) -> None:
        """Close the file; if it is not complete, it need not be readable."""


@contextmanager
def writing(path: Path) -> Iterator[Add]:
    """Yield a function that writes rows to a file; raises DataError if its suffix is not a known format."""
    kind = WRITERS.get(path.suffix.lower())
    if kind is None:
        raise DataError(f"{path}: expected a name that ends in one of {', '.join(WRITERS)}")
    with whole(path) as partial:
        writer, complete = kind(partial), False
        try:
            yield writer.add
            complete = True
        finally:
            writer.close(complete=complete)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` at the end, if nothing failed.

    Raises DataError or OSError at the start if the file cannot be written, before any work is done.
    """
    if not path.parent.is_dir():
        raise DataError(f"{path}: there is no folder {path.parent}")
    if path.is_dir():
        raise DataError(f"{path} is a folder; expected the name of a file")
    partial = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:8]}{path.suffix}")
    try:
        partial.touch()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class Spool:
    """Blocks of one array on disk, until the number of rows and the width of text are known."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[bytes] = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115  closed by `close`
        self._blocks = 0
        self._rows = 0
        self._dtype: Any = None
        self._shape: tuple[int, ...] = ()

    def add(self, name: str, array: Array) -> None:
        """Add a block; text is converted to a fixed width, which needs no pickle."""
        block = fixed(name, array) if array.dtype == object else array
        if self._blocks and block.shape[1:] != self._shape[1:]:
            raise DataError(
                f"output {name!r}: an array cannot contain rows of different shapes, "
                f"{list(self._shape[1:])} and {list(block.shape[1:])}; write .parquet"
            )
        self._dtype = block.dtype if self._dtype is None else np.promote_types(self._dtype, block.dtype)
        self._shape = block.shape
        self._rows += len(block) if block.ndim else 0
        self._blocks += 1
        np.lib.format.write_array(
            self._file, np.ascontiguousarray(block).reshape(block.shape), allow_pickle=False
        )

    def write(self, file: IO[bytes]) -> None:
        """Write the array in .npy format."""
        shape = (self._rows, *self._shape[1:]) if self._shape else ()
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        self._file.seek(0)
        for _ in range(self._blocks):
            block: Array = np.lib.format.read_array(self._file, allow_pickle=False)
            file.write(block.astype(self._dtype, copy=False).tobytes())

    def close(self) -> None:
        """Delete the temporary file."""
        self._file.close()


def fixed(name: str, texts: Array) -> Array:
    """Return texts of fixed width, padded with zeros; raises DataError for one that ends with a zero."""
    if any(text.endswith(b"\0") for text in texts.flat):
        raise DataError(f"output {name!r}: NumPy drops zero bytes at the end of text; write .parquet")
    return texts.astype("S")


class NpzWriter:
    """An .npz file. Not with numpy.savez, which takes names as keywords: an output may be called `file`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._arrays: dict[str, Spool] = {}

    def add(self, outputs: Mapping[str, Array]) -> None:
        for name, array in outputs.items():
            if name not in self._arrays:
                self._arrays[name] = Spool(self._path.parent)
            self._arrays[name].add(name, array)

    def close(self, *, complete: bool) -> None:
        with ExitStack() as stack:
            for array in self._arrays.values():
                stack.callback(array.close)
            if complete:
                self._write()

    def _write(self) -> None:
        with zipfile.ZipFile(self._path, "w") as archive:
            for name, array in self._arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                    array.write(stream)


class NpyWriter(NpzWriter):
    """An .npy file of the only output."""

    def add(self, outputs: Mapping[str, Array]) -> None:
        if len(outputs) != 1:
            raise DataError(
                f"an .npy file holds one array, and the outputs are {', '.join(outputs)}; write .npz"
            )
        super().add(outputs)

    def _write(self) -> None:
        with self._path.open("wb") as stream:
            for array in self._arrays.values():
                array.write(stream)


class CsvWriter:
    """A CSV file with a header."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.writer(self._stream)
        self._header: list[str] = []

    def add(self, outputs: Mapping[str, Array]) -> None:
        rows = as_rows(outputs)
        header = [column for name, array in rows.items() for column in csv_names(name, array.shape[1:])]
        if not self._header:
            self._writer.writerow(header)
            self._header = header
        elif header != self._header:
            raise DataError("CSV cannot contain rows of different sizes; write .parquet")
        flat = [array.reshape(len(array), -1) for array in rows.values()]
        for row in zip(*flat, strict=True):
            self._writer.writerow([csv_value(value) for part in row for value in part.tolist()])

    def close(self, *, complete: bool) -> None:  # noqa: ARG002  it is closed in either case
        self._stream.close()


def as_rows(outputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return outputs as columns of one table; raises DataError if their numbers of rows differ."""
    rows = {name: array if array.ndim else array.reshape(1) for name, array in outputs.items()}
    if len({len(array) for array in rows.values()}) > 1:
        counts = ", ".join(f"{name} has {len(array)}" for name, array in rows.items())
        raise DataError(f"the columns of a table need the same number of rows, but {counts}; write .npz")
    return rows


def csv_names(name: str, shape: tuple[int, ...]) -> list[str]:
    """Return the column names of an output, in the form that kerve reads."""
    return [f"{name}_{number}" for number in range(math.prod(shape))] if shape else [name]


def csv_value(value: object) -> object:
    """Decode bytes; return other values unchanged."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


class ParquetWriter:
    """A Parquet file."""

    def __init__(self, path: Path) -> None:
        needs("pyarrow.parquet", path, "Parquet", "writing")
        self._path = path
        self._writer: Any = None

    def add(self, outputs: Mapping[str, Array]) -> None:
        self.write({name: arrow_column(array) for name, array in as_rows(outputs).items()})

    def write(self, columns: Mapping[str, Any]) -> None:
        """Write the next rows, given as Arrow columns."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.table(dict(columns))
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)

    def close(self, *, complete: bool) -> None:  # noqa: ARG002  it is closed in either case
        if self._writer is not None:
            self._writer.close()


def arrow_column(array: Array) -> Any:
    """Convert an array to an Arrow column: further axes become lists, text becomes binary."""
    import pyarrow as pa

    flat = np.ascontiguousarray(array).reshape(-1)
    column = pa.array(flat.tolist(), pa.binary()) if array.dtype == object else pa.array(flat)
    for axis in range(array.ndim - 1, 0, -1):
        offsets = np.arange(math.prod(array.shape[:axis]) + 1, dtype=np.int32) * array.shape[axis]
        column = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), column)
    return column


WRITERS: Mapping[str, type[Writer]] = {
    ".npz": NpzWriter,
    ".npy": NpyWriter,
    ".csv": CsvWriter,
    ".parquet": ParquetWriter,
}

"""Parquet, read with pyarrow: numbers, text, and lists of them."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kerve.runtime.data.source import Block, DataError, needs, rows_of_block
from kerve.runtime.datatypes import Array

__all__ = ["ParquetFile"]

# Bytes read at a time: otherwise, the column of a whole row group is read.
BUFFER = 2**20


class ParquetFile:
    """A column for each field of the schema."""

    def __init__(self, path: Path, groups: range | None = None) -> None:
        """`groups`: read only these row groups; row numbers still count from the beginning of the file."""
        self.path = path
        self._arrow = needs("pyarrow", path, "Parquet")
        with self._open() as file:
            self.columns = tuple(file.schema_arrow.names)
            if twice := {name for name in self.columns if self.columns.count(name) > 1}:
                raise DataError(f"{path}: duplicate columns in the schema: {', '.join(sorted(twice))}")
            every = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
        self._groups = range(len(every)) if groups is None else groups
        #: Rows and bytes of each row group of the file.
        self.sizes = [(int(each.num_rows), int(each.total_byte_size)) for each in every]
        own = [self.sizes[number] for number in self._groups]
        self.rows = sum(rows for rows, _ in own)
        #: The position of the first row.
        self.first = sum(rows for rows, _ in self.sizes[: self._groups.start])
        self._row_bytes = sum(size for _, size in own) // max(1, self.rows)

    def blocks(self, columns: Collection[str]) -> Iterator[Block]:
        """Yield the rows of some columns."""
        first = self.first
        for batch in self.batches(columns):
            yield {
                column: self._array(column, batch.column(batch.schema.get_field_index(column)), first)
                for column in columns
            }
            first += batch.num_rows

    def batches(self, columns: Collection[str]) -> Iterator[Any]:
        """Yield the rows of some columns as Arrow batches, whose size does not depend on the columns."""
        with self._open() as file:
            try:
                # Without threads, which would read ahead and use more memory.
                yield from file.iter_batches(
                    rows_of_block(self._row_bytes),
                    row_groups=list(self._groups),
                    columns=list(columns),
                    use_threads=False,
                )
            except (self._arrow.ArrowException, OSError) as error:
                raise DataError(f"{self.path}: the file is damaged: {error}") from error

    def _open(self) -> Any:
        parquet = needs("pyarrow.parquet", self.path, "Parquet")
        try:
            return parquet.ParquetFile(self.path, buffer_size=BUFFER)
        except (self._arrow.ArrowException, OSError) as error:
            raise DataError(f"{self.path} is not a Parquet file that can be read: {error}") from error

    def _array(self, column: str, values: Any, first: int) -> Array:
        """Convert a column to an array, with lists as further axes."""
        types = self._arrow.types
        kind = values.type
        if values.null_count:
            row = first + int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
            raise DataError(f"{self.path}: row {row}, column {column!r}: expected a value, got null")
        if isinstance(kind, self._arrow.BaseExtensionType):
            shape = getattr(kind, "shape", None)
            array = self._array(column, values.storage, first)
            return array if shape is None else array.reshape(len(array), *shape)
        if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:  # an image in Hugging Face's format
            return self._array(column, values.field("bytes"), first)
        if types.is_dictionary(kind):
            return self._array(column, values.dictionary_decode(), first)
        if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
            return self._lists(column, values, first)
        if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
            numbers: Array = values.to_numpy(zero_copy_only=False)
            return numbers
        texts = ("is_string", "is_large_string", "is_binary", "is_large_binary", "is_fixed_size_binary")
        if any(getattr(types, each)(kind) for each in texts):
            return np.array(values.to_pylist(), object)
        raise DataError(
            f"{self.path}: column {column!r}: expected numbers, text or lists of them, got {kind}"
        )

    def _lists(self, column: str, values: Any, first: int) -> Array:
        lengths = values.value_lengths().to_numpy(zero_copy_only=False)
        if (ragged := np.flatnonzero(lengths != lengths[0])).size:
            raise DataError(
                f"{self.path}: row {first + ragged[0]}, column {column!r}: expected {lengths[0]} values, as "
                f"row {first} has, got {lengths[ragged[0]]}; all lists of a column must have the same length"
            )
        inner = values.flatten()
        if inner.null_count:
            place = int(np.flatnonzero(inner.is_null().to_numpy(zero_copy_only=False))[0])
            row = first + place // max(1, int(lengths[0]))
            raise DataError(
                f"{self.path}: row {row}, column {column!r}: expected values in the list, got null"
            )
        array = self._array(column, inner, first)
        return array.reshape(len(values), int(lengths[0]), *array.shape[1:])

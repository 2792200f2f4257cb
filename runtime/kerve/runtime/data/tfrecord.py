"""TFRecord files of tf.train.Example, without TensorFlow; optionally compressed with GZIP or ZLIB.

A record is its length (uint64), the masked CRC-32C of the length, the contents, and the masked CRC-32C of the
contents; all little-endian (tensorflow/core/lib/io/record_writer.h).
"""

import gzip
import io
import struct
import zlib
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from google.protobuf.message import DecodeError

from kerve.runtime.data.source import BLOCK_BYTES, BLOCK_ROWS, Block, DataError, needs
from kerve.runtime.datatypes import Array
from kerve.tensorflow.core.example.example_pb2 import Example

__all__ = ["TfRecordFile"]

HEAD, FOOT = struct.Struct("<QI"), struct.Struct("<I")
MASK = 0xA282EAD8
DTYPES = {"int64_list": np.int64, "float_list": np.float32, "bytes_list": object}
MOST_RECORD_BYTES = 2**31


class TfRecordFile:
    """A column for each feature of the first record."""

    rows = None

    def __init__(self, path: Path) -> None:
        self.path = path
        self._crc = needs("google_crc32c", path, "TFRecord").value
        first = next(self._examples(), None)
        if first is None:
            raise DataError(f"{path} contains no record")
        self.columns = tuple(sorted(first.features.feature))

    def blocks(self, columns: Collection[str]) -> Iterator[Block]:
        """Yield the rows of some columns; axis 1 has the values of a feature."""
        begin, held, size = 0, [], 0
        for example in self._examples():
            held.append(example)
            size += example.ByteSize()
            if len(held) == BLOCK_ROWS or size >= BLOCK_BYTES:
                yield {column: self._array(column, held, begin) for column in columns}
                begin, held, size = begin + len(held), [], 0
        if held:
            yield {column: self._array(column, held, begin) for column in columns}

    def _array(self, column: str, examples: Sequence[Example], begin: int) -> Array:
        rows: list[Any] = []
        kinds: set[str] = set()
        for number, example in enumerate(examples, begin):
            feature = example.features.feature
            kind = feature[column].WhichOneof("kind") if column in feature else None
            values = getattr(feature[column], kind).value if kind else ()
            if not kind or (rows and (kind not in kinds or len(values) != len(rows[0]))):
                expected = f"{len(rows[0])} values of {kinds.pop()}" if rows else "a feature with values"
                got = f"{len(values)} of {kind}" if kind else "none"
                raise DataError(
                    f"{self.path}: row {number}, feature {column!r}: expected {expected}, got {got}"
                )
            kinds.add(kind)
            rows.append(values)
        dtype = DTYPES[kinds.pop()]
        array = np.empty((len(rows), len(rows[0])), dtype)
        for number, values in enumerate(rows):
            array[number] = values
        return array

    def _examples(self) -> Iterator[Example]:
        for number, record in enumerate(self._records()):
            try:
                yield Example.FromString(record)
            except DecodeError as error:
                raise DataError(f"{self.path}: row {number}: expected a tf.train.Example: {error}") from error

    def _records(self) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            stream, number = plain(file), 0
            try:
                while head := stream.read(HEAD.size):
                    yield self._record(number, head, stream)
                    number += 1
            except (OSError, EOFError, zlib.error) as error:
                raise DataError(f"{self.path}: row {number}: the file is damaged: {error}") from error

    def _record(self, number: int, head: bytes, stream: Any) -> bytes:
        where = f"{self.path}: row {number}"
        length, check = HEAD.unpack(head) if len(head) == HEAD.size else (0, None)
        if check != self._masked(head[:8]):
            raise DataError(f"{where}: the checksum of the record's length is wrong; is it a TFRecord file?")
        contents = stream.read(length) if length < MOST_RECORD_BYTES else b""
        foot = stream.read(FOOT.size)
        if len(contents) != length or len(foot) != FOOT.size:
            raise DataError(f"{where}: the file is truncated, expected a record of {length} bytes")
        if FOOT.unpack(foot)[0] != self._masked(contents):
            raise DataError(f"{where}: the checksum of the record is wrong; the file is damaged")
        return contents

    def _masked(self, contents: bytes) -> int:
        crc: int = self._crc(contents)
        return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF


def plain(file: IO[bytes]) -> Any:
    """Return the decompressed stream; compression is detected by the first bytes of the file."""
    start = file.read(12)
    file.seek(0)
    if start[:2] == b"\x1f\x8b":
        return gzip.open(file)
    # A ZLIB header is a multiple of 31; the upper bytes of the length of an uncompressed record are zeros.
    if (
        len(start) >= 2
        and start[0] == 0x78
        and int.from_bytes(start[:2], "big") % 31 == 0
        and start[4:8] != bytes(4)
    ):
        return io.BufferedReader(Inflated(file))
    return file


class Inflated(io.RawIOBase):
    """A decompressed ZLIB stream."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._inflate = zlib.decompressobj()

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; return the number of bytes, 0 at the end."""
        view = memoryview(buffer).cast("B")
        while not self._inflate.eof:
            given = self._inflate.unconsumed_tail or self._file.read(io.DEFAULT_BUFFER_SIZE)
            part = self._inflate.decompress(given, len(view))
            if part or not given:
                view[: len(part)] = part
                return len(part)
        return 0

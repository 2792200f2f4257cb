"""Counts the operators of an ONNX file and finds its external weight files, by walking its protobuf encoding.

The `onnx` package is not a dependency of the runtime, and parsing a model of gigabytes for its names would
copy its weights. The walk reads little more than the headers of the fields that it skips
(https://onnx.ai/onnx/repo-docs/IR.html, https://protobuf.dev/programming-guides/encoding).
"""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from kerve.runtime.errors import ArtifactError

__all__ = ["count_operators", "external_data"]

# Field numbers of onnx.proto.
MODEL_GRAPH = 7
GRAPH_NODE = 1
NODE_OP_TYPE, NODE_ATTRIBUTE, NODE_DOMAIN = 4, 5, 7
ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS = 6, 11
TENSOR_EXTERNAL_DATA = 13
ENTRY_KEY, ENTRY_VALUE = 1, 2
# Fields that lead to tensors, by kind of message, with the kind of the submessage; other fields are skipped.
MODEL, FUNCTION, GRAPH, NODE, ATTRIBUTE, SPARSE, TENSOR = range(7)
BELOW = {
    MODEL: {7: GRAPH, 25: FUNCTION},
    FUNCTION: {7: NODE},
    GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
    SPARSE: {1: TENSOR, 2: TENSOR},
}


# Bytes that are read at a time: enough for many nodes, and little of a weight that is skipped.
WINDOW = 1 << 15


class Contents:
    """The bytes of a file, read on access. If it is truncated meanwhile, as by a copy over it, access raises
    IndexError; with a memory map it would kill the process (SIGBUS).
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._start, self._window = 0, b""
        self.size = os.fstat(descriptor).st_size

    def byte(self, position: int) -> int:
        """Return one byte."""
        within = position - self._start
        if not 0 <= within < len(self._window):
            self._start, self._window, within = position, os.pread(self._descriptor, WINDOW, position), 0
        return self._window[within]

    def part(self, span: "Span") -> bytes:
        """Return the contents of a field."""
        begin, end = span.start - self._start, span.end - self._start
        if begin >= 0 and end <= len(self._window):
            return self._window[begin:end]
        return os.pread(self._descriptor, min(span.end, self.size) - span.start, span.start)


class Span(NamedTuple):
    """A length-delimited field: its number and the position of its contents."""

    number: int
    start: int
    end: int


def count_operators(file: Path) -> Counter[str]:
    """Return the count of each operator in a model, subgraphs included, as `Conv` or `com.example.Op`."""
    counts: Counter[str] = Counter()
    with opened(file) as data:
        for span in spans(data, 0, data.size):
            if span.number == MODEL_GRAPH:
                count_graph(data, span, counts)
    return counts


def external_data(file: Path) -> set[str]:
    """Return the locations of a model's external data files, as written in the model."""
    found: set[str] = set()
    with opened(file) as data:
        collect_locations(data, MODEL, Span(0, 0, data.size), found)
    return found


@contextmanager
def opened(file: Path) -> Iterator[Contents]:
    """Open a model's file for reading; errors in its contents are raised as ArtifactError."""
    try:
        with file.open("rb", buffering=0) as stream:
            contents = Contents(stream.fileno())
            if not contents.size:
                raise ValueError("it is empty")
            yield contents
    except (IndexError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise ArtifactError(f"{file} is not an ONNX model: {error}") from error


def collect_locations(data: Contents, kind: int, message: Span, found: set[str]) -> None:
    """Add the locations named in a message and below it."""
    for field in spans(data, message.start, message.end):
        if kind == TENSOR:
            if field.number == TENSOR_EXTERNAL_DATA:
                texts = {part.number: data.part(part) for part in spans(data, field.start, field.end)}
                if texts.get(ENTRY_KEY) == b"location":
                    found.add(texts.get(ENTRY_VALUE, b"").decode())
        elif (below := BELOW[kind].get(field.number)) is not None:
            collect_locations(data, below, field, found)


def count_graph(data: Contents, graph: Span, counts: Counter[str]) -> None:
    """Add the nodes of a graph."""
    for node in spans(data, graph.start, graph.end):
        if node.number == GRAPH_NODE:
            count_node(data, node, counts)


def count_node(data: Contents, node: Span, counts: Counter[str]) -> None:
    """Add a node, and those of the graphs in its attributes."""
    op_type = domain = ""
    for field in spans(data, node.start, node.end):
        if field.number == NODE_OP_TYPE:
            op_type = data.part(field).decode()
        elif field.number == NODE_DOMAIN:
            domain = data.part(field).decode()
        elif field.number == NODE_ATTRIBUTE:
            for inner in spans(data, field.start, field.end):
                if inner.number in (ATTRIBUTE_GRAPH, ATTRIBUTE_GRAPHS):
                    count_graph(data, inner, counts)
    counts[op_type if domain in ("", "ai.onnx") else f"{domain}.{op_type}"] += 1


def spans(data: Contents, position: int, end: int) -> Iterator[Span]:
    """Yield the length-delimited fields of a message; skip the others."""
    while position < end:
        key, position = varint(data, position)
        match key & 7:
            case 0:  # varint
                _, position = varint(data, position)
            case 1:  # 64 bits
                position += 8
            case 2:  # length-delimited
                length, position = varint(data, position)
                yield Span(key >> 3, position, position + length)
                position += length
            case 5:  # 32 bits
                position += 4
            case other:
                raise ValueError(f"wire type {other} at byte {position}")
    if position != end:
        raise ValueError(f"a field ends at byte {position}, its message at {end}")


def varint(data: Contents, position: int) -> tuple[int, int]:
    """Return a number and the position after it."""
    value = shift = 0
    while True:
        byte = data.byte(position)
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError(f"a number longer than 10 bytes at byte {position}")

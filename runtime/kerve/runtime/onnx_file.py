"""Counts the operators of an ONNX file, and finds the files it keeps weights in, by walking its protobuf
encoding.

The `onnx` package is no dependency of the runtime, and to parse a model of gigabytes for the names in it
would copy its weights. The walk reads the headers of what it passes over and little else
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
# Where tensors are found below a message of each kind, as (field, kind below); what is not here is not
# entered.
MODEL, FUNCTION, GRAPH, NODE, ATTRIBUTE, SPARSE, TENSOR = range(7)
BELOW = {
    MODEL: {7: GRAPH, 25: FUNCTION},
    FUNCTION: {7: NODE},
    GRAPH: {1: NODE, 5: TENSOR, 15: SPARSE},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH, 22: SPARSE, 23: SPARSE},
    SPARSE: {1: TENSOR, 2: TENSOR},
}


# Bytes that are read at a time: the names of many nodes, and little of a weight that is passed over.
WINDOW = 1 << 15


class Contents:
    """The bytes of a file, read where they are looked at. One that is cut off meanwhile, as by a copy over
    it, raises IndexError; a mapping would end the process (SIGBUS).
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
    """A length-delimited field: its number and where its contents lie."""

    number: int
    start: int
    end: int


def count_operators(file: Path) -> Counter[str]:
    """Return how often each operator stands in a model, subgraphs included, as `Conv` or `com.example.Op`."""
    counts: Counter[str] = Counter()
    with opened(file) as data:
        for span in spans(data, 0, data.size):
            if span.number == MODEL_GRAPH:
                count_graph(data, span, counts)
    return counts


def external_data(file: Path) -> set[str]:
    """Return the locations of the files in which a model keeps tensors, as they stand in it."""
    found: set[str] = set()
    with opened(file) as data:
        collect_locations(data, MODEL, Span(0, 0, data.size), found)
    return found


@contextmanager
def opened(file: Path) -> Iterator[Contents]:
    """Give the contents of a model's file; ArtifactError for what is wrong with them."""
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

"""Write ONNX files without copying the weights: `write`.

protobuf builds a message from the graph and bytes from the message: two more copies of the weights. Here the
arrays are written to the file directly, between the bytes that protobuf serializes for the rest. The result
is identical: fields in the order of their numbers (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

__all__ = ["write"]

#: Tensors of fewer bytes are serialized by protobuf, with a copy.
_LARGE_BYTES = 1 << 12

#: The wire type of length-delimited fields.
_LENGTH_DELIMITED = 2

#: Tensors that hold their elements in memory.
_Weights = ir.Tensor[Any] | ir.serde.TensorProtoTensor

#: A piece of a file: bytes, or a tensor whose bytes are written there.
_Piece = bytes | _Weights


def write(model: ir.Model, path: Path) -> None:
    """Write a model to a file as `onnx_ir.save` does, byte for byte.

    External weights stay external. protobuf cannot read files of more than 2 GiB.
    """
    large = _large(model.graph)
    with _without(model.graph, large):
        proto = ir.to_proto(model)
    initializers: list[_Piece] = []
    for each in proto.graph.initializer:
        initializers += _field(proto.graph, "initializer", _tensor(each, large.get(each.name)))
    graph = _field(proto, "graph", _between(proto.graph, "initializer", initializers))
    with path.open("wb") as file:
        for piece in _between(proto, "graph", graph):
            file.write(piece if isinstance(piece, bytes) else _raw(piece))


def _raw(tensor: _Weights) -> Any:
    """Return a tensor's bytes in ONNX's `raw_data` layout, without a copy unless they must be packed."""
    if tensor.dtype.bitwidth < 8 or sys.byteorder != "little":
        return tensor.tobytes()
    return np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8)


def _large(graph: ir.Graph) -> dict[str, _Weights]:
    tensors = {name: value.const_value for name, value in graph.initializers.items()}
    return {
        name: tensor
        for name, tensor in tensors.items()
        if isinstance(tensor, ir.Tensor | ir.serde.TensorProtoTensor)
        and tensor.dtype != ir.DataType.STRING
        and tensor.nbytes >= _LARGE_BYTES
    }


@contextmanager
def _without(graph: ir.Graph, large: Mapping[str, _Weights]) -> Iterator[None]:
    """Temporarily replace the contents of some initializers with empty tensors."""
    nothing = ir.tensor(np.empty(0, np.uint8))
    try:
        for name, tensor in large.items():
            graph.initializers[name].const_value = ir.LazyTensor(
                lambda: nothing,
                tensor.dtype,
                tensor.shape,
                name=name,
                doc_string=tensor.doc_string,
                metadata_props=tensor.metadata_props,
            )
        yield
    finally:
        for name, tensor in large.items():
            graph.initializers[name].const_value = tensor


def _tensor(proto: Any, content: _Weights | None) -> list[_Piece]:
    if content is None:
        return [proto.SerializeToString()]
    return _between(proto, "raw_data", _field(proto, "raw_data", [content]))


def _between(message: Any, field: str, pieces: Sequence[_Piece]) -> list[_Piece]:
    """Serialize a message, with the given pieces in the place of one field."""
    number = message.DESCRIPTOR.fields_by_name[field].number
    before, behind = copy.deepcopy(message), copy.deepcopy(message)
    for each, _ in message.ListFields():
        if each.number >= number:
            before.ClearField(each.name)
        if each.number <= number:
            behind.ClearField(each.name)
    return [before.SerializeToString(), *pieces, behind.SerializeToString()]


def _field(message: Any, name: str, content: Sequence[_Piece]) -> list[_Piece]:
    """Prepend the tag and the length to a field's content."""
    number = message.DESCRIPTOR.fields_by_name[name].number
    length = sum(len(piece) if isinstance(piece, bytes) else piece.nbytes for piece in content)
    return [_varint(number << 3 | _LENGTH_DELIMITED) + _varint(length), *content]


def _varint(number: int) -> bytes:
    """Encode a number as a varint: 7 bits per byte, lowest first; the 8th bit marks that more follow."""
    low, more = number & 0x7F, number >> 7
    return bytes([low | 0x80]) + _varint(more) if more else bytes([low])

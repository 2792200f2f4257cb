"""What values an input may take: ids below a vocabulary's size, keys of a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

__all__ = ["Domain", "domain_of"]

#: Operators that hand values on to input 0's consumers unchanged, or among others.
_TRANSPARENT = frozenset(
    {
        "Cast",
        "Identity",
        "Reshape",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Transpose",
        "Slice",
        "Expand",
        "Concat",
    }
    | {"Split", "Gather", "Clip", "Where", "StringNormalizer", "StringSplit"}
)


@dataclass(frozen=True)
class Domain:
    """What is known of the values that an input may take."""

    #: Ids run from 0 to this number, exclusive.
    size: int | None = None
    #: Words that the model knows.
    words: tuple[str, ...] = ()
    #: Numbers that the model looks up.
    numbers: tuple[int, ...] = ()


def domain_of(value: ir.Value) -> Domain:
    """Return what the graph says about the values that `value` may take."""
    sizes: list[int] = []
    words: list[str] = []
    numbers: list[int] = []
    for node, index in _readers(value, set()):
        if node.op_type == "Gather" and index == 1:
            sizes += _rows(node)
        elif node.op_type == "OneHot" and index == 0:
            sizes += _depth(node)
        elif node.op_type == "LabelEncoder":
            words += _words(node)
            numbers += _numbers(node)
    return Domain(min(sizes) if sizes else None, tuple(words), tuple(numbers))


def _readers(value: ir.Value, seen: set[ir.Value]) -> Iterator[tuple[ir.Node, int]]:
    """Every use of a value, also behind operators that leave values as they are."""
    seen.add(value)
    for node, index in value.uses():
        yield node, index
        if node.op_type in _TRANSPARENT and not (node.op_type == "Gather" and index == 1):
            for output in node.outputs:
                if output not in seen:
                    yield from _readers(output, seen)


def _rows(gather: ir.Node) -> list[int]:
    data = gather.inputs[0]
    if data is None or data.shape is None:
        return []
    axis = gather.attributes["axis"].as_int() if "axis" in gather.attributes else 0
    size = data.shape[axis]
    return [size] if isinstance(size, int) else []


def _depth(one_hot: ir.Node) -> list[int]:
    depth = one_hot.inputs[1]
    if depth is None or depth.const_value is None:
        return []
    return [int(depth.const_value.numpy().reshape(-1)[0])]


def _words(encoder: ir.Node) -> list[str]:
    keys = encoder.attributes.get("keys_strings")
    return [] if keys is None else [str(key) for key in keys.as_strings()]


def _numbers(encoder: ir.Node) -> list[int]:
    keys = encoder.attributes.get("keys_int64s")
    return [] if keys is None else [int(key) for key in keys.as_ints()]

"""The values that an input may take: ids below a vocabulary's size, keys of a table."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from kerve.compiler.traversal import reachable
from kerve.compiler.verification.intervals import UNBOUNDED, Interval, defined_interval

__all__ = ["Domain", "domain_of"]

#: Operators whose outputs contain values of their inputs, unchanged or among others.
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


#: Inputs that are sizes and counts: large numbers there exhaust memory or time, in the source as well.
_EXTENTS = frozenset(
    {
        ("ConstantOfShape", 0),
        ("Expand", 1),
        ("GRU", 4),
        ("LSTM", 4),
        ("OneHot", 1),
        ("Pad", 1),
        ("RNN", 4),
        ("Range", 0),
        ("Range", 1),
        ("Range", 2),
        ("Reshape", 1),
        ("Resize", 3),
        ("Slice", 1),
        ("Slice", 2),
        ("Split", 1),
        ("Tile", 1),
        ("TopK", 1),
        ("Trilu", 1),
    }
)

#: Operators whose output depends only on the shape of their input.
_SIZING = frozenset({"Shape", "Size"})

#: Operators whose number of iterations may depend on values.
_LOOPS = frozenset({"Loop", "Scan"})


@dataclass(frozen=True)
class Domain:
    """What is known about the values that an input may take."""

    #: Ids range from 0 to this number, exclusive.
    size: int | None = None
    #: Whether ids are row numbers of a table, which must exist.
    row: bool = False
    #: Whether sizes, counts or loops depend on it.
    extent: bool = False
    #: Words in the model's vocabulary.
    words: tuple[str, ...] = ()
    #: Numbers that the model looks up.
    numbers: tuple[int, ...] = ()
    #: The number that the model compares it with: usually the padding of masked steps.
    padding: float | None = None
    #: Numbers in which casts to small integers are defined.
    interval: Interval = UNBOUNDED


def domain_of(value: ir.Value) -> Domain:
    """Infer from the graph what values `value` may take."""
    sizes: list[int] = []
    words: list[str] = []
    numbers: list[int] = []
    row, padding = False, None
    for node, index in _readers(value):
        if node.op_type == "Gather" and index == 1:
            row = True
            sizes += _rows(node)
        elif node.op_type == "OneHot" and index == 0:
            sizes += _depth(node)
        elif node.op_type == "LabelEncoder":
            words += _words(node)
            numbers += _numbers(node)
        elif node.op_type == "Equal" and padding is None:
            padding = _number(node.inputs[1 - index])
    size = min(sizes) if sizes else None
    return Domain(
        size, row, _is_extent(value), tuple(words), tuple(numbers), padding, defined_interval(value)
    )


def _readers(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Yield every use of a value, including those after operators that pass values through."""
    seen, waiting = {value}, [iter(value.uses())]
    while waiting:
        use = next(waiting[-1], None)
        if use is None:
            waiting.pop()
            continue
        yield use
        node, index = use
        if node.op_type in _TRANSPARENT and not (node.op_type == "Gather" and index == 1):
            reached = [output for output in node.outputs if output not in seen]
            seen.update(reached)
            waiting += [iter(output.uses()) for output in reversed(reached)]


def _is_extent(value: ir.Value) -> bool:
    """Return whether memory or time depends on the value itself or on a value computed from it.

    Uses of a captured value in a subgraph are not followed, but assumed to be such.
    """
    return any(
        (node.op_type, index) in _EXTENTS or node.op_type in _LOOPS or node.graph is not value.graph
        for each in reachable([value], _computed_from)
        for node, index in each.uses()
    )


def _computed_from(value: ir.Value) -> Iterator[ir.Value]:
    for node, _ in value.uses():
        if node.op_type not in _SIZING:  # which depend on sizes only
            yield from node.outputs


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


def _number(value: ir.Value | None) -> float | None:
    """Return the number of a scalar constant; None for other values."""
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    array = value.const_value.numpy()
    return None if array.dtype.kind not in "iuf" else float(array.reshape(-1)[0])


def _words(encoder: ir.Node) -> list[str]:
    keys = encoder.attributes.get("keys_strings")
    return [] if keys is None else [str(key) for key in keys.as_strings()]


def _numbers(encoder: ir.Node) -> list[int]:
    keys = encoder.attributes.get("keys_int64s")
    return [] if keys is None else [int(key) for key in keys.as_ints()]

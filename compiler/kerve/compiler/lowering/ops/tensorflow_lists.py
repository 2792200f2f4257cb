"""Operators of TensorFlow on lists of tensors (`lists.py`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering import list_shapes
from kerve.compiler.lowering.lists import TensorList, joined, put, resized, scalar, vector
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import Handler, Handlers
from kerve.compiler.lowering.tracing import UntraceableError

HANDLERS = Handlers()

_Attributes = Mapping[str, Any]


def _new(attributes: _Attributes, size: ir.Value) -> TensorList:
    dims = attributes.get(list_shapes.DIMS)
    known_dims = None if dims is None else [None if each < 0 else each for each in dims]
    return TensorList(ir.DataType(attributes["element_dtype"]), known_dims, size)


def _set(g: Lowering, attributes: _Attributes, x: TensorList, index: ir.Value, item: ir.Value) -> TensorList:
    place = vector(g, index)
    if attributes.get("resize_if_index_out_of_bounds"):
        beyond = g.op.Add(place, g.constant(np.ones(1, np.int64), "one"))
        x = resized(g, x, g.op.Max(x.length(g), beyond))
    return put(g, x, place, g.op.Unsqueeze(item, [0]))


def _filled(g: Lowering, x: TensorList) -> ir.Value:
    """Return the tensor of a list for reading: zeros if none was written and the element shape is known."""
    if x.items is None and (x.dims is None or None in x.dims):
        raise UntraceableError("an element of a list is read that was never written")
    return x.tensor(g)


def _get(g: Lowering, _: _Attributes, x: TensorList, index: ir.Value, *_shape: ir.Value) -> ir.Value:
    return g.op.Gather(_filled(g, x), scalar(g, index), axis=0)


def _gather(g: Lowering, _: _Attributes, x: TensorList, places: ir.Value, *_shape: ir.Value) -> ir.Value:
    return g.op.Gather(_filled(g, x), places, axis=0)


def _stack(g: Lowering, _: _Attributes, x: TensorList, *_shape: ir.Value) -> ir.Value:
    return _filled(g, x)


def _concat(g: Lowering, _: _Attributes, x: TensorList, *_shapes: ir.Value) -> Any:
    """Concatenate the elements along their own first axis; return their lengths, too."""
    items = _filled(g, x)
    if items.shape is None or len(items.shape) < 2:
        raise UntraceableError("elements of a list are concatenated that are scalars or of unknown rank")
    whole = g.op.Reshape(items, g.op.Concat([-1], g.op.Shape(items, start=2), axis=0))
    whole.type, whole.shape = items.type, ir.Shape([None, *items.shape[2:]])
    return whole, g.op.Expand(g.op.Shape(items, start=1, end=2), g.op.Shape(items, start=0, end=1))


def _scatter(
    g: Lowering, _: _Attributes, items: ir.Value, places: ir.Value, _shape: ir.Value, count: ir.Value
) -> TensorList:
    places = g.cast(places, "int64")
    last = g.op.Reshape(g.op.ReduceMax(places, keepdims=0), [1])
    beyond = g.op.Add(last, g.constant(np.ones(1, np.int64), "one"))
    assert items.dtype is not None
    x = TensorList(items.dtype, None, g.op.Max(vector(g, count), beyond))
    return put(g, x, places, items)


def _push(g: Lowering, _: _Attributes, x: TensorList, item: ir.Value) -> TensorList:
    if x.items is None:
        one = g.constant(np.ones(1, np.int64), "one")
        x = TensorList(x.dtype, x.dims, g.op.Add(x.length(g), one))
        return put(g, x, g.op.Sub(x.length(g), one), g.op.Unsqueeze(item, [0]))
    grown = resized(g, x, g.op.Add(x.length(g), g.constant(np.ones(1, np.int64), "one")))
    return put(g, grown, x.length(g), g.op.Unsqueeze(item, [0]))


def _pop(g: Lowering, _: _Attributes, x: TensorList, *_shape: ir.Value) -> tuple[TensorList, ir.Value]:
    items = _filled(g, x)
    rest = g.op.Slice(items, [0], [-1], [0])
    rest.type, rest.shape = items.type, None if items.shape is None else ir.Shape([None, *items.shape[1:]])
    return TensorList.of(rest), g.op.Gather(items, -1, axis=0)


_HANDLERS: dict[str, Handler] = {
    "EmptyTensorList": lambda g, attributes, *_: _new(attributes, g.constant(np.zeros(1, np.int64), "none")),
    "TensorListConcatLists": lambda g, _, x, y: joined(g, [_filled(g, each) for each in (x, y)]),
    "TensorListConcatV2": _concat,
    "TensorListFromTensor": lambda _g, _, tensor, _shape: TensorList.of(tensor),
    "TensorListGather": _gather,
    "TensorListGetItem": _get,
    "TensorListLength": lambda g, _, x: g.cast(g.op.Reshape(x.length(g), g.shape([])), "int32"),
    "TensorListPopBack": _pop,
    "TensorListPushBack": _push,
    "TensorListReserve": lambda g, attributes, _shape, count: _new(attributes, vector(g, count)),
    "TensorListResize": lambda g, _, x, size: resized(g, x, vector(g, size)),
    "TensorListScatterIntoExistingList": lambda g, _, x, items, places: put(
        g, x, g.cast(places, "int64"), items
    ),
    "TensorListScatterV2": _scatter,
    "TensorListSetItem": _set,
    "TensorListStack": _stack,
}

#: Under the names that `custom_handlers` gives them.
for _name, _handler in _HANDLERS.items():
    HANDLERS.add(f"tensorflow.{_name.replace('TensorList', 'List')}", _handler)

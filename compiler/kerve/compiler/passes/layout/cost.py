"""What an assignment of layouts costs."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import onnx_ir as ir

from kerve.compiler.passes.layout.nets import Net, Reader
from kerve.compiler.passes.layout.permutation import (
    Perm,
    compose,
    identity,
    inverse,
    is_identity,
    keeps_order,
)
from kerve.compiler.passes.layout.placement import Placement
from kerve.compiler.passes.queries import elements, is_constant, shape_dims

__all__ = ["TRANSPOSE", "conversion", "stored", "total", "wanted"]

#: One Transpose more outweighs any number of elements: the number of Transposes never grows.
TRANSPOSE = 1 << 48

#: Only axes of size one move: a Reshape, which copies nothing.
_RESHAPE = 1

#: The nodes that work in their other layout.
Moved = Mapping[ir.Node, Placement]


def stored(net: Net, moved: Moved) -> Perm:
    """Return the permutation under which the tensor is stored."""
    producer = net.tensor.producer()
    placement = None if producer is None else moved.get(producer)
    own = None if placement is None else placement.outputs[net.tensor.index() or 0]
    return identity(len(shape_dims(net.tensor))) if own is None else own


def wanted(reader: Reader, moved: Moved) -> Perm:
    """Return the permutation under which a reader takes the tensor."""
    placement = None if reader.node is None else moved.get(reader.node)
    own = None if placement is None else placement.inputs[reader.index]
    return reader.perm if own is None else compose(reader.perm, own)


def conversion(net: Net, have: Perm, want: Perm) -> int:
    """Return what it costs to offer the tensor under `want` when it is stored under `have`."""
    change = compose(inverse(have), want)
    if is_identity(change) or is_constant(net.tensor):
        return 0
    dims = shape_dims(net.tensor)
    if keeps_order(change, [dims[axis] for axis in have]):
        return _RESHAPE
    return TRANSPOSE + elements(net.tensor)


def total(nets: Collection[Net], moved: Moved) -> int:
    """Return the whole cost of an assignment."""
    cost = sum(placement.cost for placement in moved.values())
    for net in nets:
        have = stored(net, moved)
        cost += sum(conversion(net, have, want) for want in {wanted(reader, moved) for reader in net.readers})
    return cost

"""The cost of an assignment of layouts."""

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

#: One Transpose outweighs any number of elements, so that the number of Transposes never grows.
TRANSPOSE = 1 << 48

#: Cost if only axes of size one move: this is a Reshape, which copies nothing.
_RESHAPE = 1

#: The nodes in their other layout, with their placements.
Moved = Mapping[ir.Node, Placement]


def stored(net: Net, moved: Moved) -> Perm:
    """Return the permutation under which the tensor is stored."""
    producer = net.tensor.producer()
    placement = None if producer is None else moved.get(producer)
    own = None if placement is None else placement.outputs[net.tensor.index() or 0]
    return identity(len(shape_dims(net.tensor))) if own is None else own


def wanted(reader: Reader, moved: Moved) -> Perm:
    """Return the permutation under which a reader requires the tensor."""
    placement = None if reader.node is None else moved.get(reader.node)
    own = None if placement is None else placement.inputs[reader.index]
    return reader.perm if own is None else compose(reader.perm, own)


def conversion(net: Net, have: Perm, want: Perm) -> int:
    """Return the cost of providing the tensor under `want` if it is stored under `have`."""
    change = compose(inverse(have), want)
    if is_identity(change) or is_constant(net.tensor):
        return 0
    dims = shape_dims(net.tensor)
    if keeps_order(change, [dims[axis] for axis in have]):
        return _RESHAPE
    return TRANSPOSE + elements(net.tensor)


def total(nets: Collection[Net], moved: Moved) -> int:
    """Return the total cost of an assignment."""
    cost = sum(placement.cost for placement in moved.values())
    for net in nets:
        have = stored(net, moved)
        cost += sum(conversion(net, have, want) for want in {wanted(reader, moved) for reader in net.readers})
    return cost

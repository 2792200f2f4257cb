"""The tensors of a graph with their readers, directly or through Transposes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx_ir as ir

from kerve.compiler.passes.layout.permutation import Perm, compose, identity, perm_of
from kerve.compiler.passes.queries import is_constant, is_op, rank_of

__all__ = ["Net", "Reader", "is_transpose", "nets_of"]


@dataclass(frozen=True)
class Reader:
    """A reader of `Transpose(tensor, perm)`: an input of a node or, if that is None, a graph output."""

    node: ir.Node | None
    index: int
    perm: Perm


@dataclass
class Net:
    """A tensor that is not the result of a Transpose of the graph, and its readers."""

    tensor: ir.Value
    readers: list[Reader] = field(default_factory=list)


def is_transpose(node: ir.Node | None) -> bool:
    """Whether the node only reorders axes."""
    return is_op(node, "Transpose")


def nets_of(graph: ir.Graph) -> list[Net]:
    """Return the nets of all tensors of known rank that this graph computes or borrows, in its order."""
    return [_net(graph, tensor) for tensor in _tensors(graph)]


def _tensors(graph: ir.Graph) -> Iterator[ir.Value]:
    seen: set[ir.Value] = set()
    for value in (*graph.inputs, *_borrowed(graph), *_made(graph)):
        if value not in seen and rank_of(value) is not None:
            seen.add(value)
            yield value


def _borrowed(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield constants that this graph transposes, and values of outer graphs that it reads."""
    for node in graph:
        for value in node.inputs:
            if value is None:
                continue
            if is_transpose(node) if is_constant(value) else value.graph is not graph:
                yield value


def _made(graph: ir.Graph) -> Iterator[ir.Value]:
    for node in graph:
        if not is_transpose(node):
            yield from node.outputs


def _net(graph: ir.Graph, tensor: ir.Value) -> Net:
    net = Net(tensor)
    constant = is_constant(tensor)
    pending = [(tensor, identity(rank_of(tensor) or 0))]
    while pending:
        value, perm = pending.pop()
        for node, index in value.uses():
            if is_transpose(node) and node.graph is graph:
                pending.append((node.outputs[0], compose(perm, perm_of(node))))
            elif value is not tensor or (not constant and graph in (tensor.graph, node.graph)):
                net.readers.append(Reader(node, index, perm))
        if value.is_graph_output() and value.graph is graph:
            outputs = enumerate(graph.outputs)
            net.readers.extend(Reader(None, place, perm) for place, output in outputs if output is value)
    return net

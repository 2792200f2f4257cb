"""What a graph holds: bytes by Keras layer, operators, shapes as people write them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir

from kerve.compiler.passes.queries import LAYER_KEY, is_constant

__all__ = [
    "LayerSize",
    "bodies_of",
    "count_operators",
    "layer_sizes",
    "show_bytes",
    "show_shape",
    "weights_of",
    "with_bodies",
]


@dataclass(frozen=True)
class LayerSize:
    """A Keras layer as it stands in the graph."""

    #: Its path; empty for what belongs to none.
    layer: str
    operators: Counter[str]
    #: Elements and bytes of its constants; one that several layers read is counted at the first.
    elements: int
    bytes: int


def layer_sizes(graph: ir.Graph) -> list[LayerSize]:
    """Return all layers, in the order of the graph."""
    nodes: dict[str, list[ir.Node]] = {}
    for node in graph:
        nodes.setdefault(node.metadata_props.get(LAYER_KEY, ""), []).append(node)
    counted: set[ir.Value] = set()
    sizes = []
    for layer, members in nodes.items():
        weights = {value: size for value, size in weights_of(members).items() if value not in counted}
        counted |= weights.keys()
        elements = sum(value.const_value.size for value in weights if value.const_value is not None)
        sizes.append(LayerSize(layer, count_operators(members), elements, sum(weights.values())))
    return sizes


def weights_of(nodes: Iterable[ir.Node]) -> dict[ir.Value, int]:
    """Return the constants that nodes read, also in their subgraphs, with their bytes."""
    return {
        value: value.const_value.nbytes
        for node in with_bodies(nodes)
        for value in node.inputs
        if value is not None and is_constant(value) and value.const_value is not None
    }


def count_operators(nodes: Iterable[ir.Node]) -> Counter[str]:
    """Return how often each operator stands there, subgraphs included, as `Conv` or `com.example.Op`."""
    return Counter(
        node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        for node in with_bodies(nodes)
    )


def with_bodies(nodes: Iterable[ir.Node]) -> Iterator[ir.Node]:
    """Each node, followed by those of its subgraphs."""
    for node in nodes:
        yield node
        for body in bodies_of(node):
            yield from with_bodies(body)


def bodies_of(node: ir.Node) -> Iterator[ir.Graph]:
    """The subgraphs of a node."""
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def show_shape(shape: ir.Shape | None) -> str:
    """Return a shape as `batch × 8 × 8 × 1`."""
    if shape is None:
        return "any shape"
    return " × ".join(str(dim) if isinstance(dim, int) else dim.value or "?" for dim in shape) or "scalar"


def show_bytes(size: float) -> str:
    """Return a number of bytes with a unit that suits it."""
    for unit in ("bytes", "KB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"

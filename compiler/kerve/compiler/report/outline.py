"""Conversion of a graph of ONNX nodes to a graph of Keras layers.

Nodes have the path of their layer. Below a path, connected nodes of one layer form one part: a layer that is
called twice forms two. Parts that would form a cycle (a pass may have merged nodes of two layers) are merged,
so that the parts have a topological order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import onnx_ir as ir

from kerve.compiler.passes.queries import LAYER_KEY, is_constant
from kerve.compiler.report.ordering import condense_cycles, connected_components, topological_order
from kerve.compiler.report.sizes import bodies_of, count_operators, show_shape, weights_of, with_bodies

__all__ = ["Level", "Part", "inside", "whole"]

#: The most entries of a part; if there are more, they are drawn as one.
_ENTRIES = 4


@dataclass(frozen=True, eq=False)
class Part:
    """A layer, several merged layers, or an input or output."""

    name: str
    nodes: tuple[ir.Node, ...] = ()
    #: "layer"; "input" or "output" of the model; "entry" or "exit" of a level below it.
    role: str = "layer"
    #: The shape of an input or an output.
    shape: str = ""
    #: The names of all its layers.
    names: tuple[str, ...] = ()
    #: Its path if it is one layer, which may have sublayers.
    path: str | None = None

    @cached_property
    def operators(self) -> Counter[str]:
        """The number of nodes by operator, in order of appearance."""
        return count_operators(self.nodes)

    @cached_property
    def opens(self) -> bool:
        """Whether it has sublayers."""
        below = f"{self.path}/"
        return self.path is not None and any(
            node.metadata_props.get(LAYER_KEY, "").startswith(below) for node in self.nodes
        )

    @cached_property
    def weights(self) -> int:
        """The bytes of the constants that it reads."""
        return sum(weights_of(self.nodes).values())

    @cached_property
    def result(self) -> str:
        """The shape of its last node's output."""
        return show_shape(self.nodes[-1].outputs[0].shape) if self.nodes else self.shape

    @cached_property
    def given(self) -> frozenset[ir.Value]:
        """All outputs of its nodes."""
        return frozenset(value for node in self.nodes for value in node.outputs)

    @cached_property
    def taken(self) -> dict[ir.Value, None]:
        """The values, except constants, that its nodes and their subgraphs read from outside; ordered."""
        inner: set[ir.Value] = set()
        for node in with_bodies(self.nodes):
            inner.update(node.outputs, *(body.inputs for body in bodies_of(node)))
        return dict.fromkeys(value for value in _read(self.nodes) if value not in inner)


@dataclass
class Level:
    """Parts in topological order, and edges from a part to its readers, by index."""

    parts: list[Part]
    edges: set[tuple[int, int]] = field(default_factory=set)

    def predecessors(self) -> list[list[int]]:
        """Return for each part the parts that it reads, in order."""
        found: list[list[int]] = [[] for _ in self.parts]
        for source, target in sorted(self.edges):
            found[target].append(source)
        return found

    def successors(self) -> list[list[int]]:
        """Return for each part the parts that read it, in order."""
        found: list[list[int]] = [[] for _ in self.parts]
        for source, target in sorted(self.edges):
            found[source].append(target)
        return found

    def grouped(self, groups: Sequence[tuple[Part, Sequence[int]]]) -> Level:
        """Return a level of new parts, each given with the indexes of the parts that it replaces."""
        home = {index: number for number, (_, group) in enumerate(groups) for index in group}
        edges = {(home[a], home[b]) for a, b in self.edges if home[a] != home[b]}
        return Level([part for part, _ in groups], edges)

    def segment(self, indexes: range) -> Level:
        """Return some parts as a separate level, with entries and an exit."""
        number = {index: position for position, index in enumerate(indexes)}
        sources = dict.fromkeys(a for a, b in sorted(self.edges) if b in number and a not in number)
        entries = [[number[b] for a, b in self.edges if a == source and b in number] for source in sources]
        exits = [number[a] for a, b in self.edges if a in number and b not in number]
        inner = {(number[a], number[b]) for a, b in self.edges if a in number and b in number}
        return Level([self.parts[index] for index in indexes], inner).between(entries, exits)

    def between(self, entries: Sequence[Iterable[int]], exits: Iterable[int]) -> Level:
        """Add entries, each read by the given parts, and one exit, which reads the given parts."""
        if len(entries) > _ENTRIES:
            entries = [[index for entry in entries for index in entry]]
        shift, last = len(entries), len(entries) + len(self.parts)
        edges = {(a + shift, b + shift) for a, b in self.edges}
        edges |= {(number, index + shift) for number, entry in enumerate(entries) for index in entry}
        ends = {(index + shift, last) for index in exits}
        return Level(
            [
                *(Part("", role="entry") for _ in entries),
                *self.parts,
                *([Part("", role="exit")] if ends else ()),
            ],
            edges | ends,
        )


def whole(graph: ir.Graph) -> Level:
    """Return the model: inputs, top layers, outputs."""
    inner = _below(list(graph), "")
    inputs = [value for value in graph.inputs if not value.is_initializer()]
    first, last = len(inputs), len(inputs) + len(inner.parts)
    owner = {value: index for index, value in enumerate(inputs)}
    owner |= {value: first + index for index, part in enumerate(inner.parts) for value in part.given}
    edges = {
        (owner[value], first + index)
        for index, part in enumerate(inner.parts)
        for value in part.taken
        if value in owner
    }
    edges |= {(owner[value], last + number) for number, value in enumerate(graph.outputs) if value in owner}
    ends = [_end(value, "input") for value in inputs], [_end(value, "output") for value in graph.outputs]
    return Level([*ends[0], *inner.parts, *ends[1]], edges)


def inside(part: Part) -> Level:
    """Return the layers below a part, with its entries and its exit."""
    level, own = _below(part.nodes, part.path or ""), set(with_bodies(part.nodes))
    entries = [
        [index for index, each in enumerate(level.parts) if value in each.taken] for value in part.taken
    ]
    exits = [
        index
        for index, each in enumerate(level.parts)
        if any(
            value.is_graph_output() or any(user not in own for user, _ in value.uses())
            for value in each.given
        )
    ]
    return level.between(entries, exits)


def _below(nodes: Sequence[ir.Node], path: str) -> Level:
    """Return the layers directly below a path; a node that belongs to none of them is a separate part."""
    keys = [_key(node, path) for node in nodes]
    home = {output: index for index, node in enumerate(nodes) for output in node.outputs}
    links = [
        (home[value], index)
        for index, node in enumerate(nodes)
        for value in _read([node])
        if value in home and home[value] != index
    ]
    group = connected_components(
        len(nodes), ((a, b) for a, b in links if keys[a] is not None and keys[a] == keys[b])
    )
    group = condense_cycles(group, links)
    edges = {(group[a], group[b]) for a, b in links if group[a] != group[b]}
    members: dict[int, list[int]] = {root: [] for root in topological_order(group, edges)}
    for index, root in enumerate(group):
        members[root].append(index)
    number = {root: position for position, root in enumerate(members)}
    parts = [
        _part([nodes[index] for index in each], [keys[index] for index in each], path)
        for each in members.values()
    ]
    return Level(parts, {(number[a], number[b]) for a, b in edges})


def _end(value: ir.Value, role: str) -> Part:
    return Part(str(value.name), role=role, shape=show_shape(value.shape), names=(str(value.name),))


def _part(nodes: list[ir.Node], keys: list[str | None], path: str) -> Part:
    names = tuple(dict.fromkeys(key or node.op_type for key, node in zip(keys, nodes, strict=True)))
    layer = keys[0] if len(names) == 1 else None
    below = None if layer is None else f"{path}/{layer}" if path else layer
    return Part(names[0], tuple(nodes), names=names, path=below)


def _key(node: ir.Node, path: str) -> str | None:
    """Return the name of a node's layer directly below a path, or None."""
    layer = node.metadata_props.get(LAYER_KEY, "")
    rest = layer.removeprefix(f"{path}/") if path else layer
    return None if not rest or layer == path else rest.partition("/")[0]


def _read(nodes: Iterable[ir.Node]) -> Iterable[ir.Value]:
    for node in with_bodies(nodes):
        yield from (value for value in node.inputs if value is not None and not is_constant(value))

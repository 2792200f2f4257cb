"""Find the inputs of guessed type that are identifiers: integers used for lookups.

Of a call of a subclassed model Keras records shapes, not types, so its inputs are first assumed to be floats.
An Embedding casts its input to integers; if a graph only casts an input to integers (and compares it, as
`mask_zero` does), the input is meant to be integers.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

import keras
import onnx_ir as ir

from kerve.compiler.lowering.signature import Arguments, InputSpec
from kerve.compiler.traversal import reachable

__all__ = ["with_all_integers", "with_integer_ids"]

#: The type to which Keras casts identifiers.
_DTYPE = "int32"

#: Operators whose result holds unchanged elements of these operands (None: of any).
_MOVES: dict[str, tuple[int, ...] | None] = {
    **dict.fromkeys(("Clip", "Concat", "Max", "Min"), None),
    **dict.fromkeys(("Expand", "Flatten", "Identity", "Reshape", "Slice", "Split", "Squeeze"), (0,)),
    **dict.fromkeys(("Gather", "GatherElements", "GatherND", "Tile", "Transpose", "Unsqueeze"), (0,)),
    "Pad": (0, 2),
    "Where": (1, 2),
}

#: Operators whose result is the same for an integer and for the float equal to it.
_ASKS = frozenset({"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Shape", "Size"})


def with_integer_ids(arguments: Arguments, graph: ir.Graph) -> Arguments:
    """Return the arguments, with guessed floats replaced by integers where the graph uses them as such."""
    return _with_integers(arguments, {str(value.name) for value in graph.inputs if _identifies(value)})


def with_all_integers(arguments: Arguments) -> Arguments:
    """Return the arguments, with all guessed floats replaced by integers."""
    return _with_integers(arguments, {spec.name for spec in keras.tree.flatten(arguments)})


def _with_integers(arguments: Arguments, names: Collection[str]) -> Arguments:
    def settled(spec: InputSpec) -> InputSpec:
        return replace(spec, dtype=_DTYPE) if spec.guessed and spec.name in names else spec

    result: Arguments = keras.tree.map_structure(settled, arguments)
    return result


def _identifies(value: ir.Value) -> bool:
    """Whether each use of an input is a cast to integers (at least one), a move or an operator in `_ASKS`."""
    casts = 0
    for each in reachable([value], _moved):
        if each.is_graph_output():
            return False
        for use in each.uses():
            if _casts_to_integer(use.node):
                casts += 1
            elif not _moves(*use) and use.node.op_type not in _ASKS:
                return False
    return casts > 0


def _casts_to_integer(node: ir.Node) -> bool:
    return node.op_type == "Cast" and ir.DataType(node.attributes["to"].as_int()).is_integer()


def _moves(node: ir.Node, position: int) -> bool:
    return node.op_type in _MOVES and position in (_MOVES[node.op_type] or (position,))


def _moved(value: ir.Value) -> Iterator[ir.Value]:
    for use in value.uses():
        if _moves(*use):
            yield from use.node.outputs

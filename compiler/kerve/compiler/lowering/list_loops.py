"""Loops that fill lists of tensors.

If each iteration of a Loop writes the element with its own index, and the list has no other use, the
elements become a scan output: ONNX Runtime concatenates those once, while a carried list is copied in each
iteration. A loop-invariant list is read from the outer graph. All others are carried as tensors and written
with ScatterND.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering.constants import constant_value
from kerve.compiler.lowering.induction import InductionAnalysis, InductionVariable, origin, provably_equal
from kerve.compiler.lowering.lists import TensorList, blank, joined, known_dims, resized, sized, vector

if TYPE_CHECKING:
    from kerve.compiler.lowering.lowering import Lowering

__all__ = ["Loop"]

_Values = dict[ir.Value, Any]

_TO_THE_FRONT, _TO_THE_END = np.iinfo(np.int64).min, np.iinfo(np.int64).max


@dataclass(frozen=True)
class _Written:
    """A list whose elements a loop writes in sequence."""

    elements: TensorList
    progression: InductionVariable
    item: ir.Value
    output: ir.Value
    resizes: bool
    #: Whether the loop ends exactly at the end of the list.
    fills: bool


class Loop:
    """Conversion of a Loop written by tf2onnx that carries lists.

    The constructor removes lists that need not be carried from the body; then the body is adopted; then
    `write` creates the node.
    """

    def __init__(self, g: Lowering, node: ir.Node, inputs: list[Any], values: _Values) -> None:
        self._g, self._node, self._values = g, node, values
        self.body = node.attributes["body"].as_graph()
        self._limits, self._initial = inputs[:2], list(inputs[2:])
        self._outputs = list(node.outputs)
        self._written: list[_Written] = []
        counting = InductionAnalysis(g, self.body, tuple(self._initial), self._outside)
        lists = [index for index, each in enumerate(self._initial) if isinstance(each, TensorList)]
        plans = {index: self._plan(counting, index) for index in lists}
        for index in reversed(lists):
            self._settle(index, plans[index])
        self.body.outputs.extend(written.item for written in self._written)

    def _outside(self, value: ir.Value) -> Any:
        if value not in self._values and value.const_value is not None:
            return self._g.constant(value.const_value.numpy(), "traced")
        return self._values.get(value, value)

    def _plan(self, counting: InductionAnalysis, index: int) -> TensorList | _Written | None:
        """Return a list that is not changed, or the writes to one; None if it is carried."""
        elements, formal = self._initial[index], self.body.inputs[2 + index]
        output = origin(self.body.outputs[1 + index])
        if output is formal:
            return cast("TensorList", elements)
        node = output.producer()
        if node is None or node.op_type != "ListSetItem" or not _is_seen_by(formal, node):
            return None
        place, item = node.inputs[1:]
        assert place is not None
        assert item is not None
        option = node.attributes.get("resize_if_index_out_of_bounds")
        resizes = option is not None and bool(option.as_int())
        progression = counting.progression(place)
        if progression is None or progression.step not in ((1,) if resizes else (1, -1)):
            return None
        fills = _grows_from_nothing(elements, progression) if resizes else False
        fills = fills or _fills(counting, progression, elements.length(self._g), self._limits[0])
        return _Written(elements, progression, item, self._outputs[index], resizes, fills)

    def _settle(self, index: int, plan: TensorList | _Written | None) -> None:
        """Carry a list as a tensor, or take it out of the loop's variables."""
        elements, formal = self._initial[index], self.body.inputs[2 + index]
        if plan is None:
            self._initial[index] = elements.tensor(self._g)
            formal.type = ir.TensorType(elements.dtype)
            formal.shape = None if elements.dims is None else ir.Shape([None, *elements.dims])
            self._values[formal] = TensorList.of(formal)
            return
        self._values[formal] = elements
        del self._initial[index]
        del self.body.inputs[2 + index]
        del self.body.outputs[1 + index]
        output = self._outputs.pop(index)
        if isinstance(plan, _Written):
            self._written.append(plan)
        else:
            self._values[output] = plan

    def write(self) -> None:
        """Create the node after its body is adopted, and record its results."""
        carried = len(self._initial)
        self._node.attributes.pop("body")
        count = carried + len(self._written)
        inputs = [*self._limits, *self._initial]
        results = self._g.append(ir.node("Loop", inputs, {"body": self.body}, num_outputs=count))
        formals, items = self.body.inputs[2:], self.body.outputs[1 + carried :]
        for output, result, formal in zip(self._outputs, results[:carried], formals, strict=True):
            if isinstance(self._values.get(formal), TensorList):
                result.type, result.shape = formal.type, formal.shape
                self._values[output] = TensorList.of(result)
            else:
                self._values[output] = result
        for written, result, item in zip(self._written, results[carried:], items, strict=True):
            result.type = ir.TensorType(written.elements.dtype)
            dims = sized(known_dims(item), written.elements.dims)
            if dims is not None:  # ONNX Runtime takes it from here if the loop has no iteration
                item.shape, result.shape = ir.Shape(dims), ir.Shape([None, *dims])
            self._values[written.output] = _placed(self._g, written, result)


def _is_seen_by(formal: ir.Value, writer: ir.Node) -> bool:
    """Whether the only use of a list in the body is one write, whose result goes to the next iteration."""
    names = [formal, *writer.outputs]
    seen = False
    while names:
        for user, place in names.pop().uses():
            if user.op_type == "Identity" and user.graph is writer.graph:
                names.append(user.outputs[0])
            elif user is not writer or place != 0 or seen:
                return False
            else:
                seen = True
    return True


def _grows_from_nothing(elements: TensorList, progression: InductionVariable) -> bool:
    size = constant_value(elements.size) if elements.items is None else None
    return size is not None and not size.any() and progression.start == 0


def _fills(
    counting: InductionAnalysis, progression: InductionVariable, length: ir.Value, trips: ir.Value | None
) -> bool:
    """Whether a loop runs exactly until the last element is written."""
    if progression.step != 1 or isinstance(progression.start, ir.Value):
        return False
    if trips is not None and not provably_equal(trips, length):
        return False
    bounds = counting.bounds()
    if not bounds or any(each.step != 1 or not provably_equal(bound, length) for each, bound in bounds):
        return False
    return max(int(each.start) for each, _ in bounds if isinstance(each.start, int)) == progression.start


def _placed(g: Lowering, written: _Written, result: ir.Value) -> TensorList:
    """Return a list with the elements that a loop wrote at their indices."""
    before, start, step = written.elements, written.progression.start, written.progression.step
    trips = g.op.Shape(result, start=0, end=1)
    none, one = (g.constant(np.array([each], np.int64), "number") for each in (0, 1))
    if step < 0:
        backwards = g.op.Slice(result, [-1], [_TO_THE_FRONT], [0], [-1])
        backwards.type, backwards.shape = result.type, result.shape
        result = backwards
    first = g.constant(np.array([start], np.int64), "start") if isinstance(start, int) else vector(g, start)
    first = g.op.Add(g.op.Sub(first, trips), one) if step < 0 else first
    head: tuple[ir.Value, ...] = ()
    if written.resizes:
        begun = g.op.Min(trips, one)  # a loop without an iteration does not resize
        before = resized(g, before, g.op.Max(before.length(g), g.op.Mul(g.op.Add(first, trips), begun)))
    if start != 0 or step < 0:
        first = g.op.Max(g.op.Min(first, before.length(g)), none)  # without an iteration it may be any number
        head = (_head(g, before, result, first),)
    tail = () if written.fills else (_tail(g, before, result, g.op.Add(first, trips)),)
    return joined(g, [*head, result, *tail])


def _head(g: Lowering, elements: TensorList, alike: ir.Value, end: ir.Value) -> ir.Value:
    """Return the elements of a list up to an index, zeros where none was written."""
    if elements.items is None:
        return blank(g, alike, end)
    return _slice(g, elements.items, g.constant(np.zeros(1, np.int64), "none"), end)


def _tail(g: Lowering, elements: TensorList, alike: ir.Value, begin: ir.Value) -> ir.Value:
    """Return the elements of a list from an index on, zeros where none was written."""
    if elements.items is None:
        none = g.constant(np.zeros(1, np.int64), "none")
        return blank(g, alike, g.op.Max(g.op.Sub(elements.length(g), begin), none))
    return _slice(g, elements.items, begin, g.constant(np.array([_TO_THE_END]), "end"))


def _slice(g: Lowering, tensor: ir.Value, begin: ir.Value, end: ir.Value) -> ir.Value:
    part = g.op.Slice(tensor, begin, end, [0])
    part.type = tensor.type
    part.shape = None if tensor.shape is None else ir.Shape([None, *tensor.shape[1:]])
    return part

"""Fuse Pads of zeros into the padding of the following convolution or pooling.

Pad(0) -> Conv                              =>  Conv(pads)
Pad(0) -> AveragePool                       =>  AveragePool(pads, count_include_pad)
Pad(0 or less, below what it pads) -> MaxPool  =>  MaxPool(pads)
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

import numpy as np
import onnx_ir as ir

from kerve.compiler.passes.explaining import ExplainedPass
from kerve.compiler.passes.queries import (
    array_of,
    attribute_int,
    attribute_ints,
    axes_of,
    input_of,
    is_op,
    rank_of,
)

__all__ = ["FusePads"]

#: Operators whose results are never negative.
_NEVER_NEGATIVE = ("Abs", "Exp", "HardSigmoid", "Relu", "Sigmoid", "Softplus", "Sqrt")


class FusePads(ExplainedPass):
    """Fuse Pads into convolutions and pooling."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fuse in every graph of the model."""
        self.notes.clear()
        modified = False
        for graph in list(model.graphs()):
            for node in graph:
                pad = (
                    node.inputs[0].producer()
                    if is_op(node, *_REFUSALS) and node.inputs[0] is not None
                    else None
                )
                if pad is None or not is_op(pad, "Pad") or pad.graph is not graph:
                    continue
                reason = _fuse(pad, node)
                modified |= reason is None
                if reason is not None:
                    self.note(node, f"does not absorb the Pad before it: {reason}")
        return ir.passes.PassResult(model, modified)


def _fuse(pad: ir.Node, node: ir.Node) -> str | None:
    """Make `node` pad its own input; return the reason if that would change the result."""
    source = pad.inputs[0]
    rank = rank_of(source)
    if source is None or rank is None:
        return "the rank of its input is not known"
    pads = _pads(pad, rank)
    value = _value(pad)
    if pads is None or value is None:
        return "it does not pad with constants"
    if np.any(pads[:, :2]):
        return "it pads the batch or the channels"
    if np.any(pads < 0):
        return "it crops"
    if node.attributes.get_string("auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return f"{node.op_type} computes its padding (auto_pad)"
    refusal = _REFUSALS[node.op_type](node, source, value, pads[:, 2:])
    if refusal is not None:
        return refusal
    own = attribute_ints(node, "pads") or [0] * (2 * (rank - 2))
    together = (np.array(own) + pads[:, 2:].reshape(-1)).tolist()
    node.attributes["pads"] = ir.AttrInt64s("pads", together)
    node.attributes.pop("auto_pad", None)
    if is_op(node, "AveragePool"):
        node.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
    node.replace_input_with(0, source)
    return None


def _pads(pad: ir.Node, rank: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]] | None:
    """Return the constant padding before (row 0) and after (row 1) each axis."""
    if pad.attributes.get_string("mode", "constant") != "constant":
        return None
    amounts, axes = array_of(pad.inputs[1]), axes_of(pad, rank, 3, default=range(rank))
    if amounts is None or axes is None:
        return None
    pads = np.zeros((2, rank), dtype=np.int64)
    pads[:, list(axes)] = amounts.reshape(2, len(axes))
    return pads


def _value(pad: ir.Node) -> float | None:
    if input_of(pad, 2) is None:
        return 0.0
    array = array_of(pad.inputs[2])
    return None if array is None else float(array.item())


Pads = np.ndarray[tuple[int, int], np.dtype[np.int64]]


def _refuse_conv(node: ir.Node, source: ir.Value, value: float, pads: Pads) -> str | None:  # noqa: ARG001  # one signature
    return None if value == 0.0 else f"Conv pads with 0, not with {value:g}"


def _refuse_average(node: ir.Node, source: ir.Value, value: float, pads: Pads) -> str | None:
    if any(attribute_ints(node, "pads") or []) and not attribute_int(node, "count_include_pad", 0):
        return "AveragePool excludes its own padding from the mean"
    return _refuse_conv(node, source, value, pads) or _refuse_window(node, pads)


def _refuse_max(node: ir.Node, source: ir.Value, value: float, pads: Pads) -> str | None:
    if len(node.outputs) > 1:
        return "its indices would change"
    if any(attribute_ints(node, "pads") or []):
        return "MaxPool pads with -inf itself"
    if not (value == -inf or (value <= 0.0 and _never_negative(source))):
        return f"the maximum may be {value:g}, the value of the padding"
    return _refuse_window(node, pads)


def _refuse_window(node: ir.Node, pads: Pads) -> str | None:
    """Refuse a pool if a window could contain only padding, or if its size is rounded up."""
    kernel = np.array(attribute_ints(node, "kernel_shape"))
    if np.any(pads >= kernel):
        return "the padding is as wide as the window"
    return "its size is rounded up" if attribute_int(node, "ceil_mode", 0) else None


def _never_negative(value: ir.Value) -> bool:
    node = value.producer()
    if node is None:
        return False
    if is_op(node, "Clip"):
        lowest = array_of(input_of(node, 1))
        return lowest is not None and float(lowest.item()) >= 0.0
    return is_op(node, *_NEVER_NEGATIVE)


_REFUSALS: dict[str, Callable[[ir.Node, ir.Value, float, Pads], str | None]] = {
    "AveragePool": _refuse_average,
    "Conv": _refuse_conv,
    "MaxPool": _refuse_max,
}

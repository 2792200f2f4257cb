"""What tf2onnx writes, and ONNX Runtime may take, though ONNX has it otherwise."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx_ir as ir

__all__ = ["amend"]

_Inputs = list[Any]
_Values = dict[ir.Value, Any]


def amend(node: ir.Node, inputs: _Inputs, values: _Values) -> None:
    """Write a node as ONNX has it; `values` takes what is to stand for outputs that it loses."""
    if node.op_type in _AMENDMENTS:
        _AMENDMENTS[node.op_type](node, inputs, values)


def _range(node: ir.Node, *_: Any) -> None:
    """ONNX has it, too, since opset 11."""
    node.domain = ""


def _resize(_: ir.Node, inputs: _Inputs, __: _Values) -> None:
    """Scales are left out where there are sizes; tf2onnx makes them empty."""
    if len(inputs) == 4:  # the tensor, its region, scales and sizes
        inputs[2] = None


def _batch_normalization(node: ir.Node, inputs: _Inputs, values: _Values) -> None:
    """There is one output; TensorFlow's mean and variance are, at inference, what it was given."""
    if "training_mode" in node.attributes and node.attributes["training_mode"].as_int():
        return
    statistics = inputs[3:5]
    for index, output in enumerate(node.outputs[1:]):
        values[output] = statistics[index % 2]
        for user, position in tuple(output.uses()):
            user.replace_input_with(position, statistics[index % 2])
    node.resize_outputs(1)


_AMENDMENTS: Mapping[str, Callable[[ir.Node, _Inputs, _Values], None]] = {
    "BatchNormalization": _batch_normalization,
    "Range": _range,
    "Resize": _resize,
}

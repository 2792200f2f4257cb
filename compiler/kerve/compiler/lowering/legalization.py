"""Correction of nodes that tf2onnx writes and ONNX Runtime may accept, but that are not valid ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering.constants import constant_value
from kerve.compiler.lowering.slices import may_begin_before, span

if TYPE_CHECKING:
    from kerve.compiler.lowering.lowering import Lowering

__all__ = ["legalize"]

_Inputs = list[Any]
_Values = dict[ir.Value, Any]

_FROM_THE_END, _TO_THE_FRONT = np.iinfo(np.int64).max, np.iinfo(np.int64).min

#: The mask of a float's sign bit.
_SIGN = np.iinfo(np.int32).min

_WHOLE = frozenset({ir.DataType.INT32, ir.DataType.INT64})


def legalize(g: Lowering, node: ir.Node, inputs: _Inputs, values: _Values) -> None:
    """Make a node valid ONNX; replacements of outputs that it loses are added to `values`."""
    if node.op_type in _AMENDMENTS:
        _AMENDMENTS[node.op_type](g, node, inputs, values)


def _range(_: Lowering, node: ir.Node, *__: Any) -> None:
    """Move it to ONNX's own domain, which has it since opset 11."""
    node.domain = ""


def _resize(_: Lowering, __: ir.Node, inputs: _Inputs, ___: _Values) -> None:
    """Omit the scales where sizes are given; tf2onnx passes an empty tensor."""
    if len(inputs) == 4:  # the tensor, its region, scales and sizes
        inputs[2] = None


def _batch_normalization(g: Lowering, node: ir.Node, inputs: _Inputs, values: _Values) -> None:
    """Keep one output; at inference, TensorFlow's mean and variance outputs equal the inputs."""
    if "training_mode" in node.attributes and node.attributes["training_mode"].as_int():
        return
    mean, variance = inputs[3:5]
    unspecified = g.constant(np.zeros(0, np.float32), "reserved")
    others = (mean, variance, mean, variance, unspecified)
    for output, value in zip(node.outputs[1:], others, strict=False):
        values[output] = value
        for user, position in tuple(output.uses()):
            user.replace_input_with(position, value)
    node.resize_outputs(1)


def _bitcast(_: Lowering, node: ir.Node, *__: Any) -> None:
    """Replace a bitcast, which ONNX lacks, if only the sign bit is used (as in Keras's `argmax`)."""
    users = [user for user, _ in node.outputs[0].uses()]
    if not users or not all(map(_masks_all_but_the_sign, users)):
        return
    node.op_type = "SignBit"
    for user in users:
        user.op_type, user.domain = "Identity", ""
        user.replace_input_with(0, node.outputs[0])
        user.resize_inputs(1)


def _masks_all_but_the_sign(node: ir.Node) -> bool:
    constants = [
        value.const_value for value in node.inputs if value is not None and value.const_value is not None
    ]
    return node.op_type == "BitwiseAnd" and [each.numpy().tolist() for each in constants] == [_SIGN]


def _order(g: Lowering, _: ir.Node, inputs: _Inputs, __: _Values) -> None:
    """Cast operands of different types to INT64: ONNX's loop counter is INT64, TensorFlow's may not be."""
    if len({each.dtype for each in inputs}) > 1 and all(each.dtype in _WHOLE for each in inputs):
        inputs[:] = [g.cast(each, "int64") for each in inputs]


def _random(_: Lowering, node: ir.Node, *__: Any) -> None:
    """Remove the seed 0: in TensorFlow it means none, in ONNX all operators with it draw the same numbers."""
    if "seed" in node.attributes and not node.attributes["seed"].as_float():
        del node.attributes["seed"]


def _slice(g: Lowering, _: ir.Node, inputs: _Inputs, __: _Values) -> None:
    """Make a backward slice that begins before the first element empty, as in TensorFlow."""
    given = [x.const_value.numpy() for x in inputs[1:] if x is not None and x.const_value is not None]
    if len(given) < 4:
        return
    starts, stops, axes, steps = (each.astype(np.int64) for each in given)
    backwards = [slice(*each) for each in zip(starts.tolist(), stops.tolist(), steps.tolist(), strict=True)]
    places = [place for place, part in enumerate(backwards) if may_begin_before(part)]
    if not places:
        return
    spans = [span(backwards[place]) for place in places]
    inputs[0] = g.op.Slice(
        inputs[0], [each.start for each in spans], [each.stop for each in spans], axes[places].tolist()
    )
    starts[places], stops[places] = _FROM_THE_END, _TO_THE_FRONT
    inputs[1:] = [g.constant(each, "traced") for each in (starts, stops, axes, steps)]


def _conv(_: Lowering, node: ir.Node, *__: Any) -> None:
    """Replace `auto_pad`, which ONNX Runtime rejects with dilations, by the fixed padding of stride 1."""
    attributes = node.attributes
    holes = [size - 1 for size in attributes["dilations"].as_ints()] if "dilations" in attributes else [0]
    if attributes.get_string("auto_pad", "NOTSET") != "SAME_UPPER" or not any(holes):
        return
    if any(stride > 1 for stride in attributes.get_ints("strides", [1])):
        raise ConversionError(
            "ONNX Runtime has no automatic padding for a convolution with strides and dilations"
        )
    reach = [
        (size - 1) * (hole + 1)
        for size, hole in zip(attributes["kernel_shape"].as_ints(), holes, strict=True)
    ]
    pads = [each // 2 for each in reach] + [each - each // 2 for each in reach]
    attributes.pop("auto_pad")
    attributes["pads"] = ir.AttrInt64s("pads", pads)


def _conv_transpose(_: Lowering, node: ir.Node, *__: Any) -> None:
    """Turn negative padding, as tf2onnx writes for extra output rows of TensorFlow, into `output_padding`."""
    if "pads" not in node.attributes:
        return
    pads = np.reshape(node.attributes["pads"].as_ints(), (2, -1))
    missing = np.maximum(-pads.sum(0), 0)
    if missing.any():
        node.attributes["pads"] = ir.AttrInt64s("pads", np.where(missing, 0, pads).ravel().tolist())
        node.attributes["output_padding"] = ir.AttrInt64s("output_padding", missing.tolist())


def _transpose(_: Lowering, node: ir.Node, inputs: _Inputs, __: _Values) -> None:
    """Make the permutation an attribute; tf2onnx leaves one that it cannot evaluate as a second input."""
    if len(inputs) > 1:
        order = constant_value(inputs[1])
        if order is None:
            raise ConversionError("ONNX cannot transpose axes in an order that is computed from the inputs")
        node.attributes["perm"] = ir.AttrInt64s("perm", order.tolist())
        del inputs[1:]
        node.resize_inputs(1)


_AMENDMENTS: Mapping[str, Callable[[Lowering, ir.Node, _Inputs, _Values], None]] = {
    "BatchNormalization": _batch_normalization,
    "Bitcast": _bitcast,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    **dict.fromkeys(("Greater", "Less"), _order),
    **dict.fromkeys(("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"), _random),
    "Range": _range,
    "Resize": _resize,
    "Slice": _slice,
    "Transpose": _transpose,
}

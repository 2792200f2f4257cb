"""Operations that trade space for depth: blocks of pixels as channels, sliding windows as columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import operand, rank, write
from kerve.compiler.lowering.registry import Handler, Handlers

HANDLERS = Handlers()


def _blocks(onnx_op: str) -> Handler:
    def handler(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
        last = operation.data_format == "channels_last"
        x = g.op.Transpose(x, perm=[0, 3, 1, 2]) if last else x
        x = write(g, onnx_op, x, blocksize=operation.block_size)
        return g.op.Transpose(x, perm=[0, 2, 3, 1]) if last else x

    return handler


HANDLERS.add("nn.DepthToSpace", _blocks("DepthToSpace"))
HANDLERS.add("nn.SpaceToDepth", _blocks("SpaceToDepth"))


def _pair(x: Any) -> list[int]:
    return [x, x] if isinstance(x, int) else list(x)


@HANDLERS.register("nn.Unfold")
def unfold(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Sliding windows of `[n, c, h, w]` as columns: a convolution with an identity matrix."""
    assert x.shape is not None
    channels = x.shape[1]
    if not isinstance(channels, int):
        raise g.refuse("it unfolds an image whose number of channels is not known", "fix the channels")
    kernel = _pair(operation.kernel_size)
    depth = channels * kernel[0] * kernel[1]
    identity = np.eye(depth).reshape(depth, channels, *kernel)
    patches = g.op.Conv(
        x,
        operand(g, identity, g.output_dtype),
        kernel_shape=kernel,
        dilations=_pair(operation.dilation),
        pads=_pair(operation.padding) * 2,
        strides=_pair(operation.stride),
    )
    return g.op.Reshape(patches, [0, depth, -1])


@HANDLERS.register("nn.Fold")
def fold(g: Lowering, operation: Any, x: ir.Value) -> ir.Value:
    """Columns added up as sliding windows of an image."""
    assert rank(x) == 3
    return g.op.Col2Im(
        x,
        _pair(operation.output_size),
        _pair(operation.kernel_size),
        dilations=_pair(operation.dilation),
        pads=_pair(operation.padding) * 2,
        strides=_pair(operation.stride),
    )

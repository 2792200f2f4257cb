"""Deduplicate shapes, axes and scalar constants."""

from __future__ import annotations

import onnx_ir as ir

from kerve.compiler.passes.queries import is_constant

__all__ = ["ShareConstants"]

#: Types of sizes and axes. Equal weights are not shared: each has the name of a Keras variable.
_COUNTING = (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.BOOL)

_LARGEST = 1 << 10


class ShareConstants(ir.passes.InPlacePass):
    """Replace equal small constants of the main graph by one."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Share the constants of the model."""
        first: dict[tuple[ir.DataType, tuple[object, ...], bytes], ir.Value] = {}
        modified = False
        for name, value in list(model.graph.initializers.items()):
            tensor = value.const_value
            if tensor is None or not is_constant(value) or value.is_graph_output() or not _is_plain(tensor):
                continue
            known = first.setdefault((tensor.dtype, tuple(tensor.shape), tensor.tobytes()), value)
            if known is not value:
                value.replace_all_uses_with(known)
                del model.graph.initializers[name]
                modified = True
        return ir.passes.PassResult(model, modified)


def _is_plain(tensor: ir.TensorProtocol) -> bool:
    if tensor.dtype == ir.DataType.STRING:
        return False
    return tensor.size <= _LARGEST and (tensor.dtype in _COUNTING or len(tensor.shape) == 0)

"""An editor for quantized graphs, based on that of the passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.passes.editing import Editor
from kerve.compiler.passes.queries import LAYER_KEY, array_of
from kerve.compiler.precision import integers

__all__ = ["Bytes", "Writer"]


class Bytes(NamedTuple):
    """A constant in int8: `real = integers * scale`, with scales along one axis."""

    integers: ir.Value
    scale: ir.Value
    zero_point: ir.Value
    #: The elements of `scale`.
    scales: NDArray[np.float32]


class Writer(Editor):
    """An editor that quantizes constants and creates nodes with several outputs."""

    def bytes_of(
        self, constant: ir.Value, axes: tuple[int, ...], least: NDArray[np.float32] | None = None
    ) -> Bytes:
        """Add a float32 constant as int8; `axes` are those that share a scale."""
        array = array_of(constant)
        assert array is not None
        quantized, scale = integers.per_channel(array, axes, least)
        scales, name = scale.reshape(-1), constant.name
        return Bytes(
            self.constant(quantized, f"{name}:int8"),
            self.constant(scales, f"{name}:scale"),
            self.constant(np.zeros(len(scales), np.int8), f"{name}:zero_point"),
            scales,
        )

    def several(
        self,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        dtypes: Sequence[ir.DataType],
        *,
        at: ir.Node,
        domain: str = "",
        attributes: Mapping[str, Any] | None = None,
    ) -> Sequence[ir.Value]:
        """Insert a node with several outputs before `at`, as part of the same layer."""
        outputs = [ir.Value(type=ir.TensorType(dtype)) for dtype in dtypes]
        node = ir.node(op_type, inputs, attributes=attributes, domain=domain, outputs=outputs)
        if LAYER_KEY in at.metadata_props:
            node.metadata_props[LAYER_KEY] = at.metadata_props[LAYER_KEY]
        at.prepend(node)
        return outputs

    def set_apart(self, value: ir.Value) -> None:
        """Insert a Sum with one input, an identity, between a value and its readers.

        ONNX Runtime fuses a clamp with the preceding product, and leaves the product in float32 unless the
        clamp's result is quantized. It does not fuse a Sum.
        """
        readers, at = value.uses(), value.producer()
        assert at is not None
        total = self.node("Sum", (value,), at=at, dtype=value.dtype, shape=value.shape)
        for node, index in readers:
            node.replace_input_with(index, total)

    def supersede(self, old: ir.Value, new: ir.Value) -> None:
        """Replace `old` by `new`, which takes its name."""
        name = old.name
        self.replace(old, new)
        if not new.is_graph_output():
            old.name, new.name = None, name

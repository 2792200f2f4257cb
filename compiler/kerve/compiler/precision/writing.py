"""Writing quantized graphs: on top of what passes do to a graph."""

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
    """A constant in signed bytes: `real = integers * scale`, the scales along one axis."""

    integers: ir.Value
    scale: ir.Value
    zero_point: ir.Value
    #: The elements of `scale`.
    scales: NDArray[np.float32]


class Writer(Editor):
    """An editor that quantizes constants and writes nodes of several outputs."""

    def bytes_of(
        self, constant: ir.Value, axes: tuple[int, ...], least: NDArray[np.float32] | None = None
    ) -> Bytes:
        """Enter a float32 constant as signed bytes; `axes` are those that one scale is for."""
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
        """Write a node of several outputs before `at`, as part of the same layer."""
        outputs = [ir.Value(type=ir.TensorType(dtype)) for dtype in dtypes]
        node = ir.node(op_type, inputs, attributes=attributes, domain=domain, outputs=outputs)
        if LAYER_KEY in at.metadata_props:
            node.metadata_props[LAYER_KEY] = at.metadata_props[LAYER_KEY]
        at.prepend(node)
        return outputs

    def set_apart(self, value: ir.Value) -> None:
        """Let all readers of a value read a Sum of it alone, which is the value.

        ONNX Runtime takes a clamp that follows a product for a part of it, and leaves the product in float32
        unless the clamp's result is rounded in turn. A Sum it takes for what it is.
        """
        readers, at = value.uses(), value.producer()
        assert at is not None
        total = self.node("Sum", (value,), at=at, dtype=value.dtype, shape=value.shape)
        for node, index in readers:
            node.replace_input_with(index, total)

    def supersede(self, old: ir.Value, new: ir.Value) -> None:
        """Let `new` take the place of `old`, and its name."""
        name = old.name
        self.replace(old, new)
        if not new.is_graph_output():
            old.name, new.name = None, name

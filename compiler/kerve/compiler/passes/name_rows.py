"""Name the first dimension of outputs as the batch, as in Keras, where shape inference did not find it.

This pass runs last: no other pass may treat dimensions as equal that are only assumed to be.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

from kerve.compiler.passes.queries import BATCH

__all__ = ["NameRows", "name_apart"]


class NameRows(ir.passes.InPlacePass):
    """Name the dynamic first axis of outputs as the batch, unless an input has another number of rows."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Name the first axes of the outputs."""
        inputs = [value for value in model.graph.inputs if value.shape]
        taken = {dim.value for value in inputs for dim in value.shape or () if not isinstance(dim, int)}
        is_batched = all(_rows(value) in (None, BATCH) for value in inputs)
        unnamed = [
            value for value in model.graph.outputs if _is_open(value) and _rows(value) not in {*taken, BATCH}
        ]
        if is_batched:
            for value in unnamed:
                _name(value, BATCH)
        return ir.passes.PassResult(model, is_batched and bool(unnamed))


def name_apart(model: ir.Model, outputs: Collection[str]) -> bool:
    """Rename the first axis of outputs whose number of rows turned out not to be the batch size."""
    apart = [value for value in model.graph.outputs if value.name in outputs and _rows(value) == BATCH]
    for value in apart:
        _name(value, f"{value.name}_0")
    return bool(apart)


def _is_open(value: ir.Value) -> bool:
    return value.shape is not None and len(value.shape) > 0 and not isinstance(value.shape[0], int)


def _rows(value: ir.Value) -> str | None:
    """Return the name of a dynamic first axis."""
    first = value.shape[0] if value.shape else None
    return None if first is None or isinstance(first, int) else first.value


def _name(value: ir.Value, name: str) -> None:
    value.shape = ir.Shape([name, *(value.shape or ())[1:]])

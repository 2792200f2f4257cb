"""Embedding tables in int8: rows are looked up as integers and dequantized."""

from __future__ import annotations

import onnx_ir as ir

from kerve.compiler.passes.queries import attribute_int, is_constant, is_op, rank_of
from kerve.compiler.precision.writing import Writer

__all__ = ["quantize_tables"]


def quantize_tables(graph: ir.Graph, writer: Writer) -> None:
    """Quantize every float32 table that is only read by lookups, with a scale per column."""
    for table in list(graph.initializers.values()):
        if not _is_table(table):
            continue
        quantized = writer.bytes_of(table, (0,))
        for gather, _ in table.uses():
            result = gather.outputs[0]
            rows = writer.node(
                "Gather",
                (quantized.integers, gather.inputs[1]),
                at=gather,
                dtype=ir.DataType.INT8,
                shape=result.shape,
            )
            real = writer.node(
                "DequantizeLinear",
                (rows, quantized.scale, quantized.zero_point),
                at=gather,
                attributes={"axis": -1},
                dtype=ir.DataType.FLOAT,
                shape=result.shape,
            )
            writer.supersede(result, real)


def _is_table(value: ir.Value) -> bool:
    return (
        value.dtype == ir.DataType.FLOAT
        and rank_of(value) == 2
        and is_constant(value)
        and not value.is_graph_output()
        and bool(value.uses())
        and all(
            is_op(node, "Gather") and index == 0 and attribute_int(node, "axis", 0) == 0
            for node, index in value.uses()
        )
    )

"""Masks of recurrent layers, without a loop.

ONNX's recurrent operators support sequences that end early, not sequences with gaps. So the steps that a mask
keeps are moved to the front of their row, the operator runs on that many steps, and its outputs are moved
back to their positions in Keras. Both moves are a Gather of rows, which replaces the Transpose between
Keras's [batch, time, ...] and ONNX's [time, batch, ...].
"""

from __future__ import annotations

from functools import cached_property

import onnx_ir as ir

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.symbol import static_shape

__all__ = ["SequenceMask"]


class SequenceMask:
    """The steps of each row that a mask [batch, time] keeps."""

    def __init__(self, g: Lowering, mask: ir.Value) -> None:
        self._g = g
        self._mask = g.cast(mask, ir.DataType.BOOL)
        self._kept = g.cast(self._mask, ir.DataType.INT64)
        #: Index of a kept step among the kept steps of its row; for other steps, of the
        #: previous kept step.
        self.latest = g.op.Sub(g.op.CumSum(self._kept, 1), 1)

    @cached_property
    def lengths(self) -> ir.Value:
        """Number of kept steps of each row: INT32 [batch], as the operators require."""
        g = self._g
        return g.op.ReduceSum(g.cast(self._mask, ir.DataType.INT32), [1], keepdims=0)

    @cached_property
    def any(self) -> ir.Value:
        """Whether any step of each row is kept: BOOL [batch, 1]."""
        return self._g.op.Unsqueeze(self._g.op.Greater(self.lengths, 0), [1])

    @property
    def column(self) -> ir.Value:
        """Which steps of each row are kept: BOOL [batch, time, 1]."""
        return self._g.op.Unsqueeze(self._mask, [2])

    def step(self, index: int) -> ir.Value:
        """Return whether one step of each row is kept: BOOL [batch, 1]."""
        return self._g.op.Gather(self._mask, [index], axis=1)

    @cached_property
    def next(self) -> ir.Value:
        """Index of a kept step among those of its row; for other steps, of the next kept step."""
        return self._g.op.Add(self.latest, self._g.op.Sub(1, self._kept))

    @cached_property
    def only(self) -> ir.Value:
        """Index of a kept step among those of its row; for other steps, -1."""
        return self._g.op.Where(self._mask, self.latest, -1)

    def pack(self, sequences: ir.Value) -> ir.Value:
        """Convert [batch, time, features] to [time, batch, features], with each row's kept steps first."""
        g = self._g
        rows = g.op.Reshape(g.op.Range(0, g.op.Size(self._mask), 1), g.op.Shape(self._mask))
        rest = g.op.CumSum(g.op.Sub(self._kept, 1), 1)  # -1, -2: from the end
        place = g.op.Where(self._mask, self.latest, rest)
        order = g.op.ScatterElements(rows, place, rows, axis=1)
        return g.op.Gather(self._flat(sequences), g.op.Transpose(order, perm=[1, 0]))

    def unpack(self, outputs: ir.Value, positions: ir.Value) -> ir.Value:
        """Convert an operator's [time, directions, batch, units] to [batch, time, directions, units].

        `positions` [batch, time] are indices of a row's kept steps. Indices of no kept step, -1 or the
        length, select zeros, which the operators write after the end of a row: these exist, since a row with
        such positions has steps that are not kept.
        """
        g = self._g
        directions = static_shape(outputs)[1]
        assert directions is not None
        rows = g.op.Mul(g.op.Shape(self._mask, start=0, end=1), directions)  # of one step
        first = g.op.Reshape(g.op.Range(0, g.op.Squeeze(rows), 1), [directions, -1])
        index = g.op.Add(
            g.op.Unsqueeze(g.op.Mul(positions, rows), [2]),
            g.op.Unsqueeze(g.op.Transpose(first, perm=[1, 0]), [1]),
        )
        return g.op.Gather(self._flat(outputs), index)

    def _flat(self, x: ir.Value) -> ir.Value:
        features = static_shape(x)[-1]
        assert features is not None
        return self._g.op.Reshape(x, [-1, features])

"""Masks of recurrent layers, without a loop.

ONNX's recurrent operators know sequences that end early, not sequences with holes. So the steps that a
mask keeps are moved to the front of their row, the operator runs on that many steps, and its outputs are
moved back to where Keras has them. Both moves are a Gather of rows, which stands in the place of the
Transpose between Keras's [batch, time, ...] and ONNX's [time, batch, ...].
"""

from __future__ import annotations

from functools import cached_property

import onnx_ir as ir

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.symbol import static_shape

__all__ = ["SequenceMask"]


class SequenceMask:
    """The steps that a mask [batch, time] keeps of each row."""

    def __init__(self, g: Lowering, mask: ir.Value) -> None:
        self._g = g
        self._mask = g.cast(mask, ir.DataType.BOOL)
        self._kept = g.cast(self._mask, ir.DataType.INT64)
        #: Where a kept step stands among the kept steps of its row; at another, where the last one stands.
        self.latest = g.op.Sub(g.op.CumSum(self._kept, 1), 1)

    @cached_property
    def lengths(self) -> ir.Value:
        """How many steps are kept of each row: INT32 [batch], as the operators want it."""
        g = self._g
        return g.op.ReduceSum(g.cast(self._mask, ir.DataType.INT32), [1], keepdims=0)

    @cached_property
    def any(self) -> ir.Value:
        """Whether any step is kept of each row: BOOL [batch, 1]."""
        return self._g.op.Unsqueeze(self._g.op.Greater(self.lengths, 0), [1])

    @property
    def column(self) -> ir.Value:
        """Which steps are kept of each row: BOOL [batch, time, 1]."""
        return self._g.op.Unsqueeze(self._mask, [2])

    def step(self, index: int) -> ir.Value:
        """Return whether one step of each row is kept: BOOL [batch, 1]."""
        return self._g.op.Gather(self._mask, [index], axis=1)

    @cached_property
    def next(self) -> ir.Value:
        """Where a kept step stands among those of its row; at another, where the next one stands."""
        return self._g.op.Add(self.latest, self._g.op.Sub(1, self._kept))

    @cached_property
    def only(self) -> ir.Value:
        """Where a kept step stands among those of its row; at another, -1."""
        return self._g.op.Where(self._mask, self.latest, -1)

    def pack(self, sequences: ir.Value) -> ir.Value:
        """Return [time, batch, features] of [batch, time, features], each row's kept steps first."""
        g = self._g
        rows = g.op.Reshape(g.op.Range(0, g.op.Size(self._mask), 1), g.op.Shape(self._mask))
        rest = g.op.CumSum(g.op.Sub(self._kept, 1), 1)  # -1, -2: from the end
        place = g.op.Where(self._mask, self.latest, rest)
        order = g.op.ScatterElements(rows, place, rows, axis=1)
        return g.op.Gather(self._flat(sequences), g.op.Transpose(order, perm=[1, 0]))

    def unpack(self, outputs: ir.Value, positions: ir.Value) -> ir.Value:
        """Return [batch, time, directions, units] of an operator's [time, directions, batch, units].

        `positions` [batch, time] says which of a row's kept steps to take. One that is no kept step, -1 or
        the length, stands for zeros, which the operators write after the end of a row: there is room for
        them, since a row with such positions has steps that are not kept.
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

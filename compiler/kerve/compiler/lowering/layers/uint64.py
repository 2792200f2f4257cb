"""Unsigned 64-bit arithmetic with wraparound, and texts as bytes, for hash functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering.layers.characters import utf8
from kerve.compiler.lowering.lowering import Lowering

__all__ = ["ByteStrings", "UInt64Tensor"]

#: The longest decimal text of a 64-bit integer: a sign and 19 digits.
_LONGEST_INTEGER = 20
#: Number of zeros after a text, so that bytes can be read beyond its end.
_BEHIND_INTEGER, _BEHIND_STRING = 4, 64


class UInt64Tensor:
    """A tensor of 64-bit words, with the arithmetic of unsigned integers in C."""

    def __init__(self, g: Lowering, value: ir.Value) -> None:
        self.g, self.value = g, value

    def __add__(self, other: UInt64Tensor | int) -> UInt64Tensor:
        return UInt64Tensor(self.g, self.g.op.Add(self.value, self._operand(other)))

    def __mul__(self, other: UInt64Tensor | int) -> UInt64Tensor:
        return UInt64Tensor(self.g, self.g.op.Mul(self.value, self._operand(other)))

    def __mod__(self, other: UInt64Tensor | int) -> UInt64Tensor:
        return UInt64Tensor(self.g, self.g.op.Mod(self.value, self._operand(other)))

    def __xor__(self, other: UInt64Tensor | int) -> UInt64Tensor:
        return UInt64Tensor(self.g, self.g.op.BitwiseXor(self.value, self._operand(other)))

    def __and__(self, other: UInt64Tensor | int) -> UInt64Tensor:
        return UInt64Tensor(self.g, self.g.op.BitwiseAnd(self.value, self._operand(other)))

    def __rshift__(self, count: int) -> UInt64Tensor:
        return UInt64Tensor(self.g, self.g.op.BitShift(self.value, self._operand(count), direction="RIGHT"))

    def __lshift__(self, count: int) -> UInt64Tensor:
        return UInt64Tensor(self.g, self.g.op.BitShift(self.value, self._operand(count), direction="LEFT"))

    def rotated(self, right: int) -> UInt64Tensor:
        """Return the words rotated to the right."""
        return (self >> right) ^ (self << (64 - right))

    def where(self, condition: ir.Value, other: UInt64Tensor) -> UInt64Tensor:
        """Return these words where the condition holds, `other` elsewhere."""
        return UInt64Tensor(self.g, self.g.op.Where(condition, self.value, other.value))

    def _operand(self, other: UInt64Tensor | int) -> ir.Value | int:
        return other.value if isinstance(other, UInt64Tensor) else other % 2**64


@dataclass(frozen=True)
class ByteStrings:
    """Texts as bytes: INT64 [texts, bytes], padded with zeros, and their lengths [texts, 1]."""

    g: Lowering
    bytes: ir.Value
    length: ir.Value
    #: Upper bound of the lengths; None if there is none.
    longest: int | None

    @staticmethod
    def of(g: Lowering, x: ir.Value) -> ByteStrings:
        """Return the texts of strings [texts], or the decimal texts of integers."""
        if x.dtype != ir.DataType.STRING:
            return _decimal(g, g.cast(x, "int64"))
        return ByteStrings(g, *utf8(g, x, _BEHIND_STRING), longest=None)

    def word(self, offset: int | ir.Value, count: int = 8) -> UInt64Tensor:
        """Return `count` bytes from an offset on (from the end if negative) as little-endian words."""
        op, steps = self.g.op, np.arange(count)
        if isinstance(offset, int) and offset >= 0:
            chosen = op.Gather(self.bytes, self.g.constant(offset + steps), axis=1)
        else:
            start = op.Add(self.length, offset) if isinstance(offset, int) else offset
            places = op.Max(op.Add(start, self.g.constant(steps)), 0)
            chosen = op.GatherElements(self.bytes, places, axis=1)
        weights = self.g.constant((np.uint64(256) ** steps.astype(np.uint64)).view(np.int64))
        return UInt64Tensor(
            self.g, self.g.cast(op.MatMul(chosen, weights), "uint64")
        )  # ReduceSum uses doubles

    def size(self) -> UInt64Tensor:
        """Return the lengths as words [texts]."""
        return UInt64Tensor(self.g, self.g.cast(self._flat_length(), "uint64"))

    def longer_than(self, count: int) -> ir.Value:
        """Return which texts have more than `count` bytes."""
        return self.g.op.Greater(self._flat_length(), count)

    def _flat_length(self) -> ir.Value:
        return self.g.op.Squeeze(self.length, [1])


def _decimal(g: Lowering, x: ir.Value) -> ByteStrings:
    op = g.op
    negative = op.Less(op.Unsqueeze(x, [1]), 0)
    unsigned = op.Unsqueeze(g.cast(x, "uint64"), [1])
    magnitude = op.Where(negative, op.Sub(g.constant(np.uint64(0)), unsigned), unsigned)
    powers = g.constant(np.array([10**place for place in range(_LONGEST_INTEGER)], np.uint64), "powers")
    above = op.Div(magnitude, powers)
    figures = op.Add(g.cast(op.Mod(above, g.constant(np.uint64(10))), "int64"), ord("0"))
    digits = op.Max(op.ReduceSum(g.cast(g.cast(above, "bool"), "int64"), [1], keepdims=1), 1)
    length = op.Add(digits, g.cast(negative, "int64"))
    columns = g.constant(np.arange(_LONGEST_INTEGER + _BEHIND_INTEGER))
    places = op.Sub(op.Sub(length, 1), columns)  # of the digits, from left to right
    signed = op.Where(
        op.Equal(places, digits), ord("-"), op.GatherElements(figures, op.Max(places, 0), axis=1)
    )
    return ByteStrings(g, op.Where(op.Less(places, 0), 0, signed), length, _LONGEST_INTEGER)

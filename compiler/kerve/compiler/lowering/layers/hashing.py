"""Hashing and HashedCrossing of integers: TensorFlow's string hashes, computed on decimal digits.

Keras hashes a number by the text that stands for it. ONNX has no operator that looks into a string, but
the characters of an integer follow from divisions, and the hashes from 64-bit arithmetic that wraps around.
Sources: FarmHash's `farmhashna::Hash64`, SipHash-2-4, and `FingerprintCat64` of TensorFlow.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.layers.encoding import encode, refuse_sparse
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import rank
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.symbol import static_shape

__all__ = ["HANDLERS", "bucket"]

HANDLERS = Handlers()

#: The longest decimal text of a 64-bit integer has a sign and 19 digits; one place more is never used.
_PLACES = 21

_K0, _K1, _K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F
_CROSS_KEY, _CROSS_FACTOR = 0xDECAFCAFFE, 0xC6A4A7935BD1E995
_SIP_INITIAL = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)


@HANDLERS.register("layers.Hashing", typed=True)
def hashing(g: Lowering, layer: Any, inputs: ir.Value) -> ir.Value:
    """The bucket of each integer, encoded."""
    refuse_sparse(g, layer)
    if layer.output_mode == "one_hot" and static_shape(inputs)[-1] == 1:
        inputs = g.op.Squeeze(inputs, [-1])
    masked = layer.mask_value is not None and layer.num_bins > 1
    buckets = bucket(g, inputs, layer.num_bins - masked, layer.salt if layer.strong_hash else None)
    if masked:
        is_mask = g.op.Equal(inputs, layer.mask_value)
        buckets = g.op.Where(is_mask, g.constant(np.int64(0)), g.op.Add(buckets, 1))
    return encode(g, buckets, layer.output_mode, layer.num_bins, dtypes.to_onnx(layer.dtype))


@HANDLERS.register("layers.HashedCrossing", typed=True)
def hashed_crossing(g: Lowering, layer: Any, inputs: Sequence[ir.Value]) -> ir.Value:
    """The bucket of each combination of integers, encoded."""
    refuse_sparse(g, layer)
    crossed: Words | int = _CROSS_KEY
    for feature in inputs:
        _refuse_strings(g, feature)
        mixed = Words(g, g.cast(feature, "uint64")) * _CROSS_FACTOR
        crossed = (mixed ^ (mixed >> 47)) * _CROSS_FACTOR ^ crossed ^ _CROSS_FACTOR
        crossed = crossed * _CROSS_FACTOR
        crossed = (crossed ^ (crossed >> 47)) * _CROSS_FACTOR
        crossed = crossed ^ (crossed >> 47)
    assert isinstance(crossed, Words)
    buckets = g.cast((crossed % layer.num_bins).value, "int64")
    return encode(g, buckets, layer.output_mode, layer.num_bins, dtypes.to_onnx(layer.dtype))


def bucket(g: Lowering, x: ir.Value, buckets: int, salt: Sequence[int] | None = None) -> ir.Value:
    """Return the bucket of each number (INT64): FarmHash, or SipHash where Keras is given a salt."""
    _refuse_strings(g, x)
    if g.opset < 18:
        raise g.refuse(
            "its hash needs BitwiseXor, which came with opset 18", "compile with --opset 18 or newer"
        )
    text = _Text(g, g.cast(x, "int64"))
    hashed = _farm_hash(text) if salt is None else _sip_hash(text, salt)
    return g.cast((hashed % buckets).value, "int64")


class Words:
    """A tensor of 64-bit words, which are added, multiplied and shifted as unsigned numbers in C."""

    def __init__(self, g: Lowering, value: ir.Value) -> None:
        self.g, self.value = g, value

    def __add__(self, other: Words | int) -> Words:
        return Words(self.g, self.g.op.Add(self.value, self._operand(other)))

    def __mul__(self, other: Words | int) -> Words:
        return Words(self.g, self.g.op.Mul(self.value, self._operand(other)))

    def __xor__(self, other: Words | int) -> Words:
        return Words(self.g, self.g.op.BitwiseXor(self.value, self._operand(other)))

    def __mod__(self, other: int) -> Words:
        return Words(self.g, self.g.op.Mod(self.value, self._operand(other)))

    def __rshift__(self, count: int) -> Words:
        return Words(self.g, self.g.op.BitShift(self.value, self._operand(count), direction="RIGHT"))

    def __lshift__(self, count: int) -> Words:
        return Words(self.g, self.g.op.BitShift(self.value, self._operand(count), direction="LEFT"))

    def rotated(self, right: int) -> Words:
        """Return the words with their bits moved around to the right."""
        return (self >> right) ^ (self << (64 - right))

    def where(self, condition: ir.Value, other: Words) -> Words:
        """Return these words where the condition holds, and others elsewhere."""
        return Words(self.g, self.g.op.Where(condition, self.value, other.value))

    def _operand(self, other: Words | int) -> ir.Value:
        return other.value if isinstance(other, Words) else self.g.constant(np.uint64(other % 2**64))


class _Text:
    """The decimal text of each integer: its length, and its bytes counted from either end."""

    def __init__(self, g: Lowering, x: ir.Value) -> None:
        op, last = g.op, rank(x)
        negative = op.Unsqueeze(op.Less(x, 0), [last])
        unsigned = g.cast(x, "uint64")
        opposite = op.Sub(g.constant(np.uint64(0)), unsigned)
        magnitude = op.Unsqueeze(op.Where(op.Less(x, 0), opposite, unsigned), [last])
        powers = g.constant(np.array([10**place for place in range(20)] + [2**64 - 1], np.uint64))
        above = op.Div(magnitude, powers)
        digits = op.Max(op.ReduceSum(g.cast(g.cast(above, "bool"), "int64"), [last], keepdims=1), 1)
        sign = op.And(negative, op.Equal(g.constant(np.arange(_PLACES)), digits))
        figures = op.Add(g.cast(op.Mod(above, g.constant(np.uint64(10))), "int64"), ord("0"))
        self.g = g
        self.length = op.Add(digits, g.cast(negative, "int64"))
        self._backwards = op.Where(sign, g.constant(np.int64(ord("-"))), figures)

    def words(self, offset: int | ir.Value, count: int) -> Words:
        """Return `count` bytes from an offset on (from the end if negative), the first byte lowest."""
        op, g = self.g.op, self.g
        steps = np.arange(count)
        if isinstance(offset, int) and offset < 0:
            chosen = op.Gather(self._backwards, g.constant(-offset - 1 - steps), axis=-1)
        else:
            first = op.Sub(op.Sub(self.length, 1), offset)
            places = op.Sub(first, g.constant(steps))
            inside = op.GreaterOrEqual(places, 0)
            chosen = op.GatherElements(self._backwards, op.Max(places, 0), axis=-1)
            chosen = op.Where(inside, chosen, 0)
        weights = g.constant((np.uint64(256) ** steps.astype(np.uint64)).view(np.int64))
        return Words(g, g.cast(op.MatMul(chosen, weights), "uint64"))  # ReduceSum goes through doubles

    def size(self) -> Words:
        """Return the lengths as words."""
        return Words(self.g, self.g.cast(self._flat_length(), "uint64"))

    def at_least(self, count: int) -> ir.Value:
        """Return whether each text has so many bytes."""
        return self.g.op.GreaterOrEqual(self._flat_length(), count)

    def half(self) -> ir.Value:
        """Return the offset of the middle."""
        return self.g.op.Div(self.length, 2)

    def whole_words(self) -> ir.Value:
        """Return the offset of what does not fill a word at the end."""
        return self.g.op.Mul(self.g.op.Div(self.length, 8), 8)

    def _flat_length(self) -> ir.Value:
        return self.g.op.Squeeze(self.length, [-1])


def _farm_hash(text: _Text) -> Words:
    size = text.size()
    factor = size * 2 + _K2
    first, last, word = text.words(0, 1), text.words(-1, 1), text.words(0, 8)
    mixed = (text.words(text.half(), 1) << 8) + first
    tiny = mixed * _K2 ^ ((last << 2) + size) * _K0
    tiny = (tiny ^ (tiny >> 47)) * _K2
    short = _mix((text.words(0, 4) << 3) + size, text.words(-4, 4), factor)
    start, end = word + _K2, text.words(-8, 8)
    medium = _mix(
        end.rotated(37) * factor + start,
        (start.rotated(25) + end) * factor,
        factor,
    )
    begin, second = word * _K1, text.words(8, 8)
    tail = end * factor
    long = _mix(
        (begin + second).rotated(43) + tail.rotated(30) + text.words(-16, 8) * _K2,
        begin + (second + _K2).rotated(18) + tail,
        factor,
    )
    hashed = short.where(text.at_least(4), tiny)
    return long.where(text.at_least(17), medium.where(text.at_least(8), hashed))


def _mix(u: Words, v: Words, factor: Words) -> Words:
    a = (u ^ v) * factor
    a = a ^ (a >> 47)
    b = (v ^ a) * factor
    return (b ^ (b >> 47)) * factor


def _sip_hash(text: _Text, salt: Sequence[int]) -> Words:
    zero = text.size() * 0
    keys = (salt[0], salt[1], salt[0], salt[1])
    state = tuple(zero + (start ^ key % 2**64) for start, key in zip(_SIP_INITIAL, keys, strict=True))
    for index in range(2):  # no text is longer than two whole words and a rest
        absorbed = _absorb(state, text.words(8 * index, 8))
        present = text.at_least(8 * (index + 1))
        state = tuple(new.where(present, old) for new, old in zip(absorbed, state, strict=True))
    rest = text.words(text.whole_words(), 7)
    v0, v1, v2, v3 = _absorb(state, rest + (text.size() << 56))
    v2 = v2 ^ 0xFF
    for _ in range(4):
        v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


def _absorb(state: Sequence[Words], word: Words) -> tuple[Words, ...]:
    v0, v1, v2, v3 = state
    v3 = v3 ^ word
    for _ in range(2):
        v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3)
    return v0 ^ word, v1, v2, v3


def _sip_round(v0: Words, v1: Words, v2: Words, v3: Words) -> tuple[Words, Words, Words, Words]:
    v0, v2 = v0 + v1, v2 + v3
    v1, v3 = v1.rotated(51) ^ v0, v3.rotated(48) ^ v2
    v0, v2 = v0.rotated(32) + v3, v2 + v1
    v1, v3 = v1.rotated(47) ^ v2, v3.rotated(43) ^ v0
    return v0, v1, v2.rotated(32), v3


def _refuse_strings(g: Lowering, x: ir.Value) -> None:
    if x.dtype == ir.DataType.STRING:
        raise g.refuse(
            "it hashes strings, and ONNX has no operator that looks into a string",
            "hash before the model, or use a StringLookup with a vocabulary",
        )

"""Hash functions of TensorFlow: FarmHash's `farmhashna::Hash64`, SipHash-2-4, and `FingerprintCat64`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as ir

from kerve.compiler.lowering.layers.uint64 import ByteStrings, UInt64Tensor
from kerve.compiler.lowering.ops.control import loop

__all__ = ["concatenated", "farm_hash", "sip_hash"]

_K0, _K1, _K2 = 0xC3A5C85C97CB3127, 0xB492B66FBE98F273, 0x9AE16A3B2F90404F
_SEED = 81
_SIP_INITIAL = (0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573)
_CONCATENATION = 0xC6A4A7935BD1E995


def concatenated(fingerprint: UInt64Tensor | int, other: UInt64Tensor) -> UInt64Tensor:
    """Combine two fingerprints into one."""
    mixed = _shift_mix(other * _CONCATENATION) * _CONCATENATION ^ fingerprint ^ _CONCATENATION
    mixed = _shift_mix(mixed * _CONCATENATION) * _CONCATENATION
    return _shift_mix(mixed)


def farm_hash(text: ByteStrings) -> UInt64Tensor:
    """Return the 64-bit FarmHash of each text."""
    hashed = _up_to_3(text)
    hashed = _up_to_7(text).where(text.longer_than(3), hashed)
    hashed = _up_to_16(text).where(text.longer_than(7), hashed)
    hashed = _up_to_32(text).where(text.longer_than(16), hashed)
    if text.longest is None:
        hashed = _up_to_64(text).where(text.longer_than(32), hashed)
        hashed = _long(text).where(text.longer_than(64), hashed)
    return hashed


def sip_hash(text: ByteStrings, salt: Sequence[int]) -> UInt64Tensor:
    """Return the SipHash of each text for a key of two 64-bit numbers."""
    g = text.g
    zero = text.size() * 0
    keys = (salt[0], salt[1], salt[0], salt[1])
    state = tuple(zero + (start ^ key % 2**64) for start, key in zip(_SIP_INITIAL, keys, strict=True))
    whole = g.op.Div(text.length, 8)
    blocks = g.op.Squeeze(whole, [1])

    def absorb(index: ir.Value, before: Sequence[UInt64Tensor]) -> tuple[UInt64Tensor, ...]:
        return _sip_absorb(before, text.word(g.op.Mul(g.op.Expand(index, g.op.Shape(whole)), 8)))

    state = _for_each_block(text, blocks, state, absorb)
    rest = text.word(g.op.Mul(whole, 8), 7)
    v0, v1, v2, v3 = _sip_absorb(state, rest + (text.size() << 56))
    v2 = v2 ^ 0xFF
    for _ in range(4):
        v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


def _for_each_block(
    text: ByteStrings, blocks: ir.Value, state: Sequence[UInt64Tensor], step: Any
) -> tuple[UInt64Tensor, ...]:
    """Run `step` on each text's state once per block."""
    g = text.g

    def repeat(index: ir.Value, symbols: Any) -> tuple[list[ir.Value], bool]:
        before = [UInt64Tensor(g, symbol.value) for symbol in symbols]
        present = g.op.Less(index, blocks)
        after = step(index, before)
        return [new.where(present, old).value for new, old in zip(after, before, strict=True)], True

    most = g.op.ReduceMax(g.op.Concat(blocks, [0], axis=0), [0], keepdims=0)
    results = loop(g, [word.value for word in state], repeat, trips=most)
    return tuple(UInt64Tensor(g, value) for value in results)


def _up_to_3(text: ByteStrings) -> UInt64Tensor:
    size, middle = text.size(), text.word(text.g.op.Div(text.length, 2), 1)
    y = text.word(0, 1) + (middle << 8)
    z = size + (text.word(-1, 1) << 2)
    hashed = _shift_mix(y * _K2 ^ z * _K0) * _K2
    return hashed.where(text.longer_than(0), size * 0 + _K2)


def _up_to_7(text: ByteStrings) -> UInt64Tensor:
    size = text.size()
    return _mix(size + (text.word(0, 4) << 3), text.word(-4, 4), size * 2 + _K2)


def _up_to_16(text: ByteStrings) -> UInt64Tensor:
    factor = text.size() * 2 + _K2
    a, b = text.word(0) + _K2, text.word(-8)
    return _mix(b.rotated(37) * factor + a, (a.rotated(25) + b) * factor, factor)


def _up_to_32(text: ByteStrings) -> UInt64Tensor:
    factor = text.size() * 2 + _K2
    a, b, c, d = text.word(0) * _K1, text.word(8), text.word(-8) * factor, text.word(-16) * _K2
    return _mix((a + b).rotated(43) + c.rotated(30) + d, a + (b + _K2).rotated(18) + c, factor)


def _up_to_64(text: ByteStrings) -> UInt64Tensor:
    factor = text.size() * 2 + _K2
    a, b, c, d = text.word(0) * _K2, text.word(8), text.word(-8) * factor, text.word(-16) * _K2
    y = (a + b).rotated(43) + c.rotated(30) + d
    z = _mix(y, a + (b + _K2).rotated(18) + c, factor)
    e, f = text.word(16) * factor, text.word(24)
    g, h = (y + text.word(-32)) * factor, (z + text.word(-24)) * factor
    return _mix((e + f).rotated(43) + g.rotated(30) + h, e + (f + a).rotated(18) + g, factor)


def _long(text: ByteStrings) -> UInt64Tensor:
    """Mix blocks of 64 bytes into x, y, z, v and w, then the last 64 bytes once more."""
    op = text.g.op
    size, zero = text.size(), text.size() * 0
    y0 = (_SEED * _K1 + 113) % 2**64
    z0 = (y0 * _K2 + 113) % 2**64
    x = text.word(0) + _SEED * _K2
    state = (x, zero + y0, zero + (z0 ^ z0 >> 47) * _K2, zero, zero, zero, zero)
    blocks = op.Squeeze(op.Div(op.Sub(text.length, 1), 64), [1])

    def absorb(index: ir.Value, before: Sequence[UInt64Tensor]) -> tuple[UInt64Tensor, ...]:
        op = text.g.op  # that of the loop's body
        start = op.Mul(op.Expand(index, op.Shape(text.length)), 64)
        return _farm_block(text, start, _K1, before)

    x, y, z, v0, v1, w0, w1 = _for_each_block(text, blocks, state, absorb)
    factor = ((z & 0xFF) << 1) + _K1
    w0 = w0 + ((size + (2**64 - 1)) & 63)
    v0 = v0 + w0
    w0 = w0 + v0
    last = op.Sub(text.length, 64)
    x, y, z, v0, v1, w0, w1 = _farm_block(text, last, factor, (x, y, z, v0, v1, w0, w1), again=9)
    return _mix(
        _mix(v0, w0, factor) + _shift_mix(y) * _K0 + z,
        _mix(v1, w1, factor) + x,
        factor,
    )


def _farm_block(
    text: ByteStrings,
    start: ir.Value,
    factor: UInt64Tensor | int,
    state: Sequence[UInt64Tensor],
    again: int = 1,
) -> tuple[UInt64Tensor, ...]:
    """Mix the 64 bytes from an offset on; return the state with x and z exchanged."""
    x, y, z, v0, v1, w0, w1 = state
    f = [text.word(text.g.op.Add(start, 8 * index)) for index in range(8)]
    x = (x + y + v0 + f[1]).rotated(37) * factor
    y = (y + v1 + f[6]).rotated(42) * factor
    x = x ^ w1 * again
    y = y + v0 * again + f[5]
    z = (z + w0).rotated(33) * factor
    v0, v1 = _weak(f[:4], v1 * factor, x + w0)
    w0, w1 = _weak(f[4:], z + w1, y + f[2])
    return z, y, x, v0, v1, w0, w1


def _weak(f: Sequence[UInt64Tensor], a: UInt64Tensor, b: UInt64Tensor) -> tuple[UInt64Tensor, UInt64Tensor]:
    a = a + f[0]
    b = (b + a + f[3]).rotated(21)
    c = a
    a = a + f[1] + f[2]
    b = b + a.rotated(44)
    return a + f[3], b + c


def _mix(u: UInt64Tensor, v: UInt64Tensor, factor: UInt64Tensor) -> UInt64Tensor:
    a = _shift_mix((u ^ v) * factor)
    return _shift_mix((v ^ a) * factor) * factor


def _shift_mix(value: UInt64Tensor) -> UInt64Tensor:
    return value ^ (value >> 47)


def _sip_absorb(state: Sequence[UInt64Tensor], word: UInt64Tensor) -> tuple[UInt64Tensor, ...]:
    v0, v1, v2, v3 = state
    v3 = v3 ^ word
    for _ in range(2):
        v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3)
    return v0 ^ word, v1, v2, v3


def _sip_round(
    v0: UInt64Tensor, v1: UInt64Tensor, v2: UInt64Tensor, v3: UInt64Tensor
) -> tuple[UInt64Tensor, UInt64Tensor, UInt64Tensor, UInt64Tensor]:
    v0, v2 = v0 + v1, v2 + v3
    v1, v3 = v1.rotated(51) ^ v0, v3.rotated(48) ^ v2
    v0, v2 = v0.rotated(32) + v3, v2 + v1
    v1, v3 = v1.rotated(47) ^ v2, v3.rotated(43) ^ v0
    return v0, v1, v2.rotated(32), v3

"""Operations of `keras.ops.numpy` on whole tensors: reduced, rearranged, indexed, multiplied, sorted, made."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import ops

CheckOp = Callable[..., ir.Model]
Count = Callable[[ir.Model], Counter[str]]

_RANDOM = np.random.default_rng(3)
_X = _RANDOM.normal(size=(3, 4, 5)).astype(np.float32)
_Y = _RANDOM.normal(size=(3, 4, 5)).astype(np.float32)
_M = _RANDOM.normal(size=(4, 4)).astype(np.float32)
_V = np.array([0.5, -1.0, 2.0, 0.25, 3.0], np.float32)
_I = _RANDOM.integers(-5, 9, size=(3, 4)).astype(np.int32)
_B = _I > 0
_NAN = np.where(_X > 1.0, np.float32(np.nan), _X)


def _case(name: str, function: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
    return pytest.param(function, arrays, options, id=name)


_FIXED: dict[str, Any] = {"sizes": ["batch"]}
_STATIC: dict[str, Any] = {"sizes": ["none"]}

_REDUCTIONS = [
    "all",
    "amax",
    "amin",
    "any",
    "max",
    "mean",
    "min",
    "prod",
    "ptp",
    "std",
    "sum",
    "var",
    "logsumexp",
]


@pytest.mark.parametrize("keepdims", [False, True])
@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2), (1, -1), ()], ids=str)
@pytest.mark.parametrize("name", _REDUCTIONS)
def test_reductions(check_op: CheckOp, name: str, axis: Any, keepdims: bool) -> None:
    if axis == () and name in ("ptp", "std", "logsumexp"):
        axis = (1,)
    check_op(lambda x: getattr(ops, name)(x, axis=axis, keepdims=keepdims), _X)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint8", "int32", "int64", "float16", "float64"])
@pytest.mark.parametrize("name", [name for name in _REDUCTIONS if name not in ("ptp", "logsumexp")])
def test_reductions_have_the_types_of_keras(check_op: CheckOp, name: str, dtype: str) -> None:
    x = np.array([[1, 0, 3, 2], [2, 1, 1, 1]]).astype(dtype)
    check_op(lambda x: getattr(ops, name)(x, axis=1), x, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("axis", [None, 0, (1, 2)], ids=str)
@pytest.mark.parametrize("name", ["nanmax", "nanmean", "nanmin", "nanprod", "nanstd", "nansum", "nanvar"])
def test_reductions_that_skip_nan(check_op: CheckOp, name: str, axis: Any) -> None:
    check_op(lambda x: getattr(ops, name)(x, axis=axis), _NAN)
    check_op(lambda x: getattr(ops, name)(x, axis=axis), _I[..., None])


@pytest.mark.parametrize(("function", "arrays", "options"), [
    _case("argmax", lambda x: ops.argmax(x, axis=1), _X),
    _case("argmax over all", lambda x: ops.argmax(x), _X),
    _case("argmax kept", lambda x: ops.argmax(x, axis=-1, keepdims=True), _X),
    _case("argmax over all kept", lambda x: ops.argmax(x, keepdims=True), _X),
    _case("argmin", lambda x: ops.argmin(x, axis=0), _X),
    _case("argmin of integers", lambda x: ops.argmin(x, axis=-1), _I),
    _case("argmax of booleans", lambda x: ops.argmax(x, axis=-1), _B),
    _case("nanargmax", lambda x: ops.nanargmax(x, axis=-1), _NAN),
    _case("nanargmin", lambda x: ops.nanargmin(x, axis=1, keepdims=True), _NAN),
    _case("average", lambda x: ops.average(x, axis=1), _X),
    _case("weighted average", lambda x, w: ops.average(x, axis=1, weights=w), _X, _V[:4]**2),
    _case("average weighted by element", lambda x, y: ops.average(x, weights=y), _X, _Y ** 2),
    _case("count nonzero", lambda x: ops.count_nonzero(x, axis=1), _I),
    _case("cumsum", lambda x: ops.cumsum(x, axis=1), _X),
    _case("cumsum of all", lambda x: ops.cumsum(x), _X),
    _case("cumsum of booleans", lambda x: ops.cumsum(x, axis=0), _B),
    _case("cumsum in another type", lambda x: ops.cumsum(x, axis=0, dtype="float32"), _I),
    _case("cumprod", lambda x: ops.cumprod(x, axis=1), _X),
    _case("cumprod of all", lambda x: ops.cumprod(x), _X),
    _case("cumprod of integers", lambda x: ops.cumprod(x, axis=-1), _I),
    _case("nancumsum", lambda x: ops.nancumsum(x, axis=1), _NAN),
    _case("nancumprod", lambda x: ops.nancumprod(x, axis=0), _NAN),
    _case("max with an initial value", lambda x: ops.max(x, axis=1, initial=0.5), _X),
    _case("min with an initial value", lambda x: ops.min(x, axis=1, initial=-0.5), _X),
    _case("moments", lambda x: ops.moments(x, axes=[0, 1], keepdims=True), _X),
    _case("moments beyond float16", lambda x: ops.moments(x, axes=[1]), (_X * 999).astype(np.float16)),
    _case("trapezoid", lambda x: ops.trapezoid(x, dx=0.5, axis=1), _X),
    _case("trapezoid over points", lambda x: ops.trapezoid(x, x=_V), _X),
    _case("logsumexp of large numbers", lambda x: ops.logsumexp(x * 1000, axis=-1), _X),
])  # fmt: skip
def test_other_reductions(check_op: CheckOp, function: Any, arrays: Any, options: Any) -> None:
    check_op(function, *arrays, **options)


@pytest.mark.parametrize(("function", "arrays", "options"), [
    _case("append", lambda x, y: ops.append(x, y, axis=1), _X, _Y, **_FIXED),
    _case("append flat", lambda x, y: ops.append(x, y), _X, _I),
    _case("array split", lambda x: ops.array_split(x, 3, axis=2), _X, **_FIXED),
    _case("broadcast to", lambda x: ops.broadcast_to(x, (2, 3, 4, 5)), _X),
    _case("concatenate", lambda x, y: ops.concatenate([x, y, x], axis=-1), _X, _Y),
    _case("concatenate types", lambda x, y: ops.concatenate([x, y], axis=1), _I, _X[..., 0]),
    _case("diff", lambda x: ops.diff(x, n=2, axis=1), _X),
    _case("diff of booleans", lambda x: ops.diff(x, axis=1), _B),
    _case("dsplit", lambda x: ops.dsplit(x, [1, 3]), _X, **_FIXED),
    _case("dstack", lambda x, y: ops.dstack([x, y]), _X, _Y),
    _case("dstack of matrices", lambda x: ops.dstack([x, x]), _I),
    _case("expand dims", lambda x: ops.expand_dims(x, (1, -1)), _X),
    _case("flip", lambda x: ops.flip(x, axis=(0, 2)), _X),
    _case("flip all", lambda x: ops.flip(x), _X),
    _case("fliplr", ops.fliplr, _X),
    _case("flipud", ops.flipud, _X),
    _case("hsplit", lambda x: ops.hsplit(x, 2), _X),
    _case("hstack", lambda x, y: ops.hstack([x, y]), _X, _Y),
    _case("meshgrid", lambda x, y: ops.meshgrid(x, y), _V, _V[:3]),
    _case("meshgrid ij", lambda x, y: ops.meshgrid(x, y, indexing="ij"), _V, _V[:3]),
    _case("moveaxis", lambda x: ops.moveaxis(x, (0, 1), (-1, 0)), _X),
    _case("pad", lambda x: ops.pad(x, ((0, 0), (1, 2), (0, 3))), _X),
    _case("pad reflected", lambda x: ops.pad(x, ((0, 0), (1, 2), (2, 0)), mode="reflect"), _X),
    _case("pad in capitals", lambda x: ops.pad(x, ((0, 0), (1, 2), (2, 0)), mode="REFLECT"), _X),
    _case("pad symmetric", lambda x: ops.pad(x, ((0, 0), (1, 2), (2, 5)), mode="symmetric"), _X),
    _case("pad booleans", lambda x: ops.pad(x, ((0, 0), (1, 1)), constant_values=True), _B),
    _case("ravel", ops.ravel, _X),
    _case("rearrange", lambda x: ops.rearrange(x, "b (h d) c -> (b h) d c", h=2), _X, **_STATIC),
    _case("rearrange transposed", lambda x: ops.rearrange(x, "b c d -> b (d c)"), _X, **_STATIC),
    _case("repeat", lambda x: ops.repeat(x, 3, axis=1), _X),
    _case("repeat flat", lambda x: ops.repeat(x, 2), _X),
    _case("repeat the batch", lambda x: ops.repeat(x, 2, axis=0), _X),
    _case("repeat unevenly", lambda x: ops.repeat(x, [0, 2, 1, 3], axis=1), _X, **_FIXED),
    _case("reshape", lambda x: ops.reshape(x, (-1, 2, 10)), _X),
    _case("reshape flat", lambda x: ops.reshape(x, (-1,)), _X),
    _case("roll", lambda x: ops.roll(x, 2, axis=1), _X),
    _case("roll flat", lambda x: ops.roll(x, -3), _X),
    _case("roll axes", lambda x: ops.roll(x, (1, -7), axis=(1, 2)), _X),
    _case("rot90", lambda x: ops.rot90(x), _X, **_FIXED),
    _case("rot90 thrice", lambda x: ops.rot90(x, 3, axes=(1, 2)), _X, **_FIXED),
    _case("rot90 twice", lambda x: ops.rot90(x, 2, axes=(1, 2)), _X, **_FIXED),
    _case("size", lambda x: ops.size(x) + ops.cast(x, "int32"), _X),
    _case("split", lambda x: ops.split(x, 2, axis=1), _X),
    _case("split at places", lambda x: ops.split(x, [1, 3], axis=-1), _X, **_FIXED),
    _case("squeeze", lambda x: ops.squeeze(x, 1), _X[:, :1], **_FIXED),
    _case("squeeze all", lambda x: ops.squeeze(x), _X[:, :1], **_FIXED),
    _case("stack", lambda x, y: ops.stack([x, y], axis=1), _X, _Y),
    _case("stack last", lambda x, y: ops.stack([x, y], axis=-1), _X, _Y),
    _case("stack types", lambda x, y: ops.stack([x, y], axis=-1), _I, _X[..., 0]),
    _case("swapaxes", lambda x: ops.swapaxes(x, 1, -1), _X),
    _case("tile", lambda x: ops.tile(x, (1, 2, 3)), _X),
    _case("tile with fewer", lambda x: ops.tile(x, 2), _X),
    _case("tile with more", lambda x: ops.tile(x, (2, 1, 1, 2)), _X),
    _case("transpose", ops.transpose, _X),
    _case("transpose axes", lambda x: ops.transpose(x, (0, -1, 1)), _X),
    _case("unstack", lambda x: ops.unstack(x, axis=1), _X, **_FIXED),
    _case("unstack a given number", lambda x: ops.unstack(x, 4, axis=1), _X),
    _case("vsplit", lambda x: ops.vsplit(x, 3), _X),
    _case("vstack", lambda x, y: ops.vstack([x, y]), _X, _Y),
])  # fmt: skip
def test_rearranging(check_op: CheckOp, function: Any, arrays: Any, options: Any) -> None:
    check_op(function, *arrays, **options)


_N = np.array([[0, 2], [3, -1], [1, 1]], np.int32)


@pytest.mark.parametrize(("function", "arrays", "options"), [
    _case("first", lambda x: x[:, 0], _X),
    _case("last", lambda x: x[:, -1], _X),
    _case("row", lambda x: x[1], _X),
    _case("range", lambda x: x[:, 1:3], _X),
    _case("steps", lambda x: x[:, ::2, ::-1], _X),
    _case("backwards", lambda x: x[:, 3:0:-1, -2::-1], _X),
    _case("from the end", lambda x: x[..., -3:], _X),
    _case("beyond the end", lambda x: x[:, 2:99], _X),
    _case("new axes", lambda x: x[:, None, ..., None], _X),
    _case("mixed", lambda x: x[..., 1:, None, 2], _X),
    _case("two numbers", lambda x: x[:, 1, -1], _X),
    _case("number and range", lambda x: x[:, -1, 1:], _X),
    _case("to an open size", lambda x: x[:, : ops.shape(x)[0]], _X),
    _case("diag of a vector", lambda x: ops.diag(x, k=1), _V),
    _case("diag of a matrix", lambda x: ops.diag(x, k=-1), _M, **_STATIC),
    _case("diagflat", lambda x: ops.diagflat(x, k=-2), _I),
    _case("diagonal", lambda x: ops.diagonal(x, offset=1, axis1=1, axis2=2), _X, **_FIXED),
    _case("diagonal below", lambda x: ops.diagonal(x, offset=-1, axis1=2, axis2=1), _X, **_FIXED),
    _case("multi hot", lambda x: ops.multi_hot(x, 5), _N),
    _case("multi hot integers", lambda x: ops.multi_hot(x, 5, dtype="int32"), _N),
    _case("one hot", lambda x: ops.one_hot(x, 4), _N),
    _case("one hot elsewhere", lambda x: ops.one_hot(x, 4, axis=1, dtype="int32"), _N),
    _case("one hot booleans", lambda x: ops.one_hot(x, 4, dtype="bool"), _N),
    _case("scatter", lambda i, v: ops.scatter(i, v, (4, 3)), _N % 3, _V[:3]),
    _case("scatter update", lambda x, i, u: ops.scatter_update(x, i, u), _M, _N[:2] % 4, _V[:2]),
    _case("scatter add", lambda x, i, u: ops.scatter_update(x, i, u, "add"), _M, _N[:2] % 4, _V[:2]),
    _case("scatter max", lambda x, i, u: ops.scatter_update(x, i, u, "max"), _M, _N[:2] % 4, _V[:2]),
    _case("scatter mul", lambda x, i, u: ops.scatter_update(x, i, u, "mul"), _M, _N[:2] % 4, _V[:2]),
    _case("slice", lambda x: ops.slice(x, (1, 0, 2), (2, 3, 2)), _X),
    _case("slice to the end", lambda x: ops.slice(x, (0, 1, 2), (2, -1, 2)), _X),
    _case("slice at a tensor", lambda x, i: ops.slice(x, i, (1, 2, 2)), _X, np.array([1, 2, 3], np.int32)),
    _case("slice update", lambda x, y: ops.slice_update(x, (0, 1, 2), y), _X, _Y[:2, :2, :2]),
    _case("slice update at a tensor", lambda x, i, y: ops.slice_update(x, i, y), _X, np.array([1, 1, 4], np.int32), _Y[:2, :2, :2]),
    _case("take", lambda x, i: ops.take(x, i, axis=1), _X, _N),
    _case("take flat", lambda x, i: ops.take(x, i), _X, _N),
    _case("take constant", lambda x: ops.take(x, [0, -1], axis=-1), _X),
    _case("take one", lambda x: ops.take(x, 2, axis=1), _X),
    _case("take along axis", lambda x, i: ops.take_along_axis(x, i, axis=1), _X[..., 0], _N),
    _case("take along axis broadcast", lambda x, i: ops.take_along_axis(x, i, axis=1), _X, _N[:, :, None]),
    _case("take along axis flat", lambda x, i: ops.take_along_axis(x, i), _X, np.array([3, 50, -1], np.int32)),
    _case("trace", lambda x: ops.trace(x, offset=1, axis1=1, axis2=2), _X, **_FIXED),
    _case("trace of integers", lambda x: ops.trace(x), _I.astype("int8")[:3, :3], **_STATIC),
    _case("tril", lambda x: ops.tril(x, k=-1), _X),
    _case("triu", lambda x: ops.triu(x, k=1), _X),
    _case("triu of integers", lambda x: ops.triu(x), _I),
    _case("unravel index", lambda x: ops.unravel_index(x, (3, 4, 5)), np.array([3, 17, 59], np.int32)),
    _case("nonzero", lambda x: ops.nonzero(x), _I),
])  # fmt: skip
def test_indexing(check_op: CheckOp, function: Any, arrays: Any, options: Any) -> None:
    check_op(function, *arrays, **options)


@pytest.mark.parametrize(("function", "arrays", "options"), [
    _case("matmul", lambda x, y: ops.matmul(x, y), _X, np.swapaxes(_Y, 1, 2).copy()),
    _case("matmul vectors", lambda x, y: ops.matmul(x, y), _V, _V),
    _case("matmul matrix and vector", lambda x, y: ops.matmul(x, y), _X, _V),
    _case("matmul vector and matrix", lambda x, y: ops.matmul(x, y), _V[:4], _X),
    _case("matmul transposed and vector", lambda x, y: ops.matmul(ops.swapaxes(x, -1, -2), y), _X, _V[:4]),
    _case("matmul integers", lambda x, y: ops.matmul(x, ops.transpose(y)), _I, _I),
    _case("matmul bytes", lambda x, y: ops.matmul(x, ops.transpose(y)), _I.astype("int8"), _I.astype("int8")),
    _case("matmul types", lambda x, y: ops.matmul(x, y), _I, _M),
    _case("dot", lambda x, y: ops.dot(x, y), _X, np.swapaxes(_Y, 1, 2).copy()),
    _case("dot matrix", lambda x, y: ops.dot(x, y), _X[..., :4], _M),
    _case("dot scalar", lambda x: ops.dot(x, 3.0), _X),
    _case("vdot", ops.vdot, _X, _Y),
    _case("inner", ops.inner, _X, _Y),
    _case("outer", ops.outer, _V, _X),
    _case("kron", ops.kron, _M, _X[0]),
    _case("cross", ops.cross, _X[..., :3], _Y[..., :3], **_FIXED),
    _case("cross of two", ops.cross, _X[..., :2], _Y[..., :2], **_FIXED),
    _case("cross of two and three", ops.cross, _X[..., :2], _Y[..., :3], **_FIXED),
    _case("cdist", ops.cdist, _X, _Y, **_FIXED),
    _case("corrcoef", ops.corrcoef, _M),
    _case("correlate", lambda x, y: ops.correlate(x, y), _V, _V[:3], **_STATIC),
    _case("correlate same", lambda x, y: ops.correlate(x, y, mode="same"), _V, _V[:2], **_STATIC),
    _case("correlate full", lambda x, y: ops.correlate(x, y, mode="full"), _V, _V[:3], **_STATIC),
    _case("tensordot", lambda x, y: ops.tensordot(x, y, axes=[[1, 2], [1, 2]]), _X, _Y),
    _case("tensordot of last axes", lambda x, y: ops.tensordot(x, y, axes=1), _X[..., :4], _M),
    _case("tensordot outer", lambda x, y: ops.tensordot(x, y, axes=0), _V, _M),
    _case("vander", lambda x: ops.vander(x, 3), _V),
    _case("vander increasing", lambda x: ops.vander(x, increasing=True), _V, **_FIXED),
])  # fmt: skip
def test_products(check_op: CheckOp, function: Any, arrays: Any, options: Any) -> None:
    check_op(function, *arrays, rtol=1e-4, atol=1e-4, **options)


@pytest.mark.parametrize(
    ("equation", "shapes", "operator"),
    [
        ("abc,cde->abde", [(2, 3, 4), (4, 5, 6)], "MatMul"),
        ("abcd,cde->abe", [(2, 3, 4, 5), (4, 5, 6)], "MatMul"),
        ("aecd,abcd->acbe", [(2, 3, 4, 5), (2, 6, 4, 5)], "MatMul"),
        ("acbe,aecd->abcd", [(2, 4, 6, 3), (2, 3, 4, 5)], "MatMul"),
        ("abc,cd->abd", [(2, 3, 4), (4, 5)], "MatMul"),
        ("bij,bjk->bik", [(2, 3, 4), (2, 4, 5)], "MatMul"),
        ("bij,bjk", [(2, 3, 4), (2, 4, 5)], "MatMul"),
        ("ij,kj->ki", [(3, 4), (5, 4)], "MatMul"),
        ("i,j->ij", [(3,), (4,)], "MatMul"),
        ("ij,ij->i", [(3, 4), (3, 4)], "MatMul"),
        ("ij,ij->", [(3, 4), (3, 4)], "MatMul"),
        ("ijk,l->ij", [(3, 4, 2), (5,)], "MatMul"),
        ("...ij,...jk->...ik", [(2, 3, 4), (2, 4, 5)], "Einsum"),
        ("ij->ji", [(3, 4)], "Einsum"),
        ("ii->i", [(4, 4)], "Einsum"),
        ("ab,bc,cd->ad", [(2, 3), (3, 4), (4, 5)], "Einsum"),
    ],
    ids=str,
)
def test_einsum(check_op: CheckOp, operators: Count, equation: str, shapes: Any, operator: str) -> None:
    arrays = [_RANDOM.normal(size=shape).astype(np.float32) for shape in shapes]
    model = check_op(lambda *xs: ops.einsum(equation, *xs), *arrays, atol=1e-4)
    assert operators(model)[operator] == 1


_TIES = np.array([[3, 1, 3, 2, 1], [0, 0, 0, 0, 0], [5, 4, 3, 2, 1]], np.int32)


@pytest.mark.parametrize(("function", "arrays", "options"), [
    _case("argpartition", lambda x: ops.argpartition(x, 2), _TIES[2], **_STATIC),
    _case("argsort", lambda x: ops.argsort(x, axis=1), _X),
    _case("argsort with ties", lambda x: ops.argsort(x), _TIES),
    _case("argsort flat", lambda x: ops.argsort(x, axis=None), _X),
    _case("bincount", lambda x: ops.bincount(x, minlength=2), np.abs(_TIES)),
    _case("bincount of a vector", lambda x: ops.bincount(x), np.abs(_TIES[0])),
    _case("weighted bincount", lambda x: ops.bincount(x, weights=_V, minlength=8), np.abs(_TIES[0])),
    _case("digitize", lambda x: ops.digitize(x, np.array([-0.5, 0.0, 0.7])), _X),
    _case(
        "digitize what is no number",
        lambda x: ops.digitize(ops.where(x > 0.5, np.nan, x), np.array([-0.5, 0.0, 0.7])),
        _X,
    ),
    _case("digitize integers", lambda x: ops.digitize(x, np.array([0, 2])), _I),
    _case("isin", lambda x: ops.isin(x, np.array([1, 3], "int32")), _I),
    _case("isin not", lambda x, y: ops.isin(x, y, invert=True), _I, _TIES),
    _case("median", lambda x: ops.median(x, axis=1), _X),
    _case("median of all", lambda x: ops.median(x), _X),
    _case("median of integers", lambda x: ops.median(x, axis=-1, keepdims=True), _I),
    _case("nanmedian", lambda x: ops.nanmedian(x, axis=1), _NAN, **_FIXED),
    _case("percentile", lambda x: ops.percentile(x, 30.0, axis=(0, 2)), _X),
    _case("quantile", lambda x: ops.quantile(x, 0.3, axis=-1), _X),
    _case("quantiles", lambda x: ops.quantile(x, np.array([0.1, 0.5, 1.0], "float32"), axis=1), _X),
    _case("quantiles kept", lambda x: ops.quantile(x, np.array([0.1, 0.5], "float32"), axis=1, keepdims=True), _X),
    _case("quantile beside infinity", lambda x: ops.quantile(x, np.array([0.0, 0.5, 1.0], "float32"), axis=-1), np.array([[1, 2, np.inf], [-np.inf, 1, 2]], np.float32)),
    _case("quantile of nan", lambda x: ops.quantile(x, 0.3, axis=-1), _NAN),
    _case("searchsorted", lambda x: ops.searchsorted(np.array([-1.0, 0.0, 0.5], "float32"), x), _V),
    _case("searchsorted right", lambda s, x: ops.searchsorted(s, x, side="right"), np.sort(_V), _V, **_STATIC),
    _case("sort", lambda x: ops.sort(x, axis=1), _X),
    _case("sort flat", lambda x: ops.sort(x, axis=None), _X),
    _case("sort booleans", lambda x: ops.sort(x), _B),
    _case("top k", lambda x: ops.top_k(x, 2), _X),
    _case("top k with ties", lambda x: ops.top_k(x, 3), _TIES),
    _case("in top k", lambda t, p: ops.in_top_k(t, p, 2), np.array([1, 4, 0], np.int32), _X[:, 0]),
    _case("in top k of what is not finite", lambda t, p: ops.in_top_k(t, p, 2), np.array([2, 2, 2, 2, 2], np.int32),
          np.array([[1, 2, 3], [np.nan, 2, 3], [1, np.inf, 3], [-np.inf, 2, 3], [1, 2, np.nan]], np.float32)),
    _case("unique", lambda x: ops.unique(x), _TIES),
    _case("unique with everything", lambda x: ops.unique(x, return_index=True, return_inverse=True, return_counts=True), _TIES),
    _case("unique of a size", lambda x: ops.unique(x, size=3, return_index=True, return_counts=True), _TIES),
    _case("unique of a size too many", lambda x: ops.unique(x, size=9, fill_value=-1, return_index=True, return_counts=True), _TIES),
    _case("unique rows of a size", lambda x: ops.unique(x, axis=0, size=3), np.array([[2, 1], [1, 5], [2, 1]], np.int32)),
    _case("unique rows", lambda x: ops.unique(x, axis=0), np.array([[2, 1], [1, 5], [2, 1]], np.int32)),
    _case("segment sum", lambda x, i: ops.segment_sum(x, i, 4), _X, np.array([2, 0, 2], np.int32)),
    _case("segment max", lambda x, i: ops.segment_max(x, i, 3), _X, np.array([2, 0, 2], np.int32)),
    _case("segment min", lambda x, i: ops.segment_min(x, i, 3), _I, np.array([2, -1, 2], np.int32)),
    _case("segment prod", lambda x, i: ops.segment_prod(x, i), _X, np.array([0, 1, 1], np.int32)),
])  # fmt: skip
def test_sorting_and_counting(check_op: CheckOp, function: Any, arrays: Any, options: Any) -> None:
    check_op(function, *arrays, **options)


@pytest.mark.parametrize("method", ["linear", "lower", "higher", "midpoint", "nearest"])
def test_quantile_methods(check_op: CheckOp, method: str) -> None:
    check_op(lambda x: ops.percentile(x, 37.0, axis=1, method=method), _X)
    check_op(lambda x: ops.nanpercentile(x, 37.0, axis=1, method=method), _NAN, sizes=["batch"])


@pytest.mark.parametrize(("function", "arrays", "options"), [
    _case("empty like", lambda x: ops.empty_like(x), _X),
    _case("eye", lambda x: x @ ops.eye(5), _X),
    _case("full like", lambda x: ops.full_like(x, 2.5), _I),
    _case("full", lambda x: ops.full((2, 3), ops.max(x)), _X),
    _case("geomspace", lambda x, y: ops.geomspace(x, y, 4), _V[3:] , _V[3:] + 9),
    _case("linspace", lambda x, y: ops.linspace(x, y, 5), _X, _Y),
    _case("linspace elsewhere", lambda x, y: ops.linspace(x, y, 5, endpoint=False, axis=-1), _X, _Y),
    _case("linspace of integers", lambda x: ops.linspace(0, x, 5), _I),
    _case("logspace", lambda x, y: ops.logspace(x, y, 3, base=2), _V, _V + 1),
    _case("ones like", lambda x: ops.ones_like(x, dtype="int32"), _X),
    _case("zeros like", lambda x: ops.zeros_like(x), _I),
])  # fmt: skip
def test_making_tensors(check_op: CheckOp, function: Any, arrays: Any, options: Any) -> None:
    check_op(function, *arrays, **options)


def _in_layer(function: Callable[..., Any], shape: Any) -> keras.Model:
    """A model whose function runs inside a layer, where Keras does not ask for its shapes."""

    class Author(keras.Layer):
        def call(self, x: Any) -> Any:
            return function(x)

    inputs = keras.Input(shape)
    return keras.Model(inputs, Author()(inputs))


@pytest.mark.parametrize("function", [
    pytest.param(lambda x: ops.zeros((ops.shape(x)[0], 2)), id="zeros"),
    pytest.param(lambda x: ops.ones((ops.shape(x)[1],), dtype="int32"), id="ones"),
    pytest.param(lambda x: ops.full((2, ops.shape(x)[1]), 3.0), id="full"),
    pytest.param(lambda x: ops.eye(ops.shape(x)[1]), id="eye"),
    pytest.param(lambda x: ops.identity(ops.shape(x)[0]), id="identity"),
    pytest.param(lambda x: ops.broadcast_to(x[:, :1], (ops.shape(x)[0], ops.shape(x)[1])), id="broadcast to"),
    pytest.param(lambda x: ops.tile(x[:1], (ops.shape(x)[0], 1)), id="tile"),
    pytest.param(lambda x: ops.arange(1, ops.shape(x)[1] + 1), id="arange"),
    pytest.param(lambda x: ops.arange(ops.max(x)), id="arange to a tensor"),
    pytest.param(lambda x: ops.reshape(x, (ops.shape(x)[1], ops.shape(x)[0])), id="reshape"),
    pytest.param(lambda x: ops.reshape(x, (ops.shape(x)[1] * ops.shape(x)[0],)), id="reshape to a product"),
    pytest.param(lambda x: ops.pad(x, ((0, 0), (0, ops.shape(x)[1]))), id="pad"),
    pytest.param(lambda x: x / ops.cast(ops.shape(x)[1], "float32"), id="arithmetic"),
    pytest.param(lambda x: ops.repeat(x, ops.shape(x)[1], axis=0), id="repeat"),
    pytest.param(lambda x: ops.histogram(x[:, 0], bins=4), id="histogram"),
    pytest.param(lambda x: ops.histogram(x[0], bins=3, range=(-0.5, 2.2)), id="histogram of a range"),
    pytest.param(lambda x: ops.where(x > 0), id="places"),
    pytest.param(lambda x: x + ops.cast(ops.ndim(x), "float32"), id="ndim"),
    pytest.param(lambda x: x[...], id="whole"),
    pytest.param(lambda x: x[-2::-1], id="backwards"),
    pytest.param(lambda x: x[-2:-9:-1], id="backwards to before the first"),
    pytest.param(lambda x: x[-9::-1], id="backwards from before the first"),
    pytest.param(lambda x: x[-2:-1:-1], id="backwards to what lies behind"),
    pytest.param(lambda x: x[ops.shape(x)[0] - 1], id="index"),
    pytest.param(lambda x: x[:, ops.shape(x)[0] - 1 :], id="slice"),
])  # fmt: skip
def test_what_keras_cannot_infer_but_a_layer_may_compute(equal_to_keras: CheckOp, function: Any) -> None:
    equal_to_keras(_in_layer(function, (None,)), _X[:, :, 0], _X[:2, 0, :], batched=False)


def test_splitting_heads_reshapes_to_a_constant(equal_to_keras: CheckOp, operators: Count) -> None:
    class Heads(keras.Layer):
        def call(self, x: Any) -> Any:
            batch, steps, width = ops.shape(x)
            x = ops.transpose(ops.reshape(x, (batch, steps, 2, width // 2)), (0, 2, 1, 3))
            return ops.reshape(ops.transpose(x, (0, 2, 1, 3)), (batch, steps, width))

    inputs = keras.Input((None, 4))
    model = equal_to_keras(keras.Model(inputs, Heads()(inputs)), _X[:, :, :4], _X[:, :2, :4])
    assert operators(model)["Concat"] == 0


@settings(max_examples=25, deadline=None)
@given(
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    data=st.data(),
)
def test_slices_of_any_kind(check_op: CheckOp, shape: list[int], data: st.DataObject) -> None:
    x = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    part = st.one_of(
        st.none(),
        st.slices(5).filter(lambda s: s.step is None or s.step != 0),
    )
    key = tuple(data.draw(part) for _ in shape)
    if sum(part is not None for part in key) == len(shape) and min(x[key].shape, default=1) > 0:
        check_op(lambda x: x[key], x)

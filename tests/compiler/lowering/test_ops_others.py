"""Images, spectra, linear algebra, losses and the rest of `keras.ops`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
import pytest
from keras import ops

CheckOp = Callable[..., ir.Model]
Count = Callable[[ir.Model], Counter[str]]

_RANDOM = np.random.default_rng(11)
_IMAGES = _RANDOM.uniform(size=(2, 8, 6, 3)).astype(np.float32)
_FIRST = np.ascontiguousarray(np.moveaxis(_IMAGES, -1, 1))
_VOLUMES = _RANDOM.uniform(size=(2, 5, 8, 6, 2)).astype(np.float32)
_BYTES = (_IMAGES * 255).astype(np.uint8)
_SIGNAL = _RANDOM.normal(size=(2, 64)).astype(np.float32)
_MATRICES = _RANDOM.normal(size=(3, 4, 4)).astype(np.float32)
_DEFINITE = _MATRICES @ np.swapaxes(_MATRICES, 1, 2) + 4 * np.eye(4, dtype=np.float32)
_SIDES = _RANDOM.normal(size=(3, 4, 2)).astype(np.float32)

_BATCH: dict[str, Any] = {"sizes": ["batch"]}


def _case(name: str, function: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
    return pytest.param(function, arrays, options, id=name)


def _resized(images: Any, *size: int, **options: Any) -> Any:
    return ops.image.resize(images, size, **options)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos3", "lanczos5", "area"])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("size", [(4, 4), (13, 9), (8, 6), (3, 12)], ids=str)
def test_resize(check_op: CheckOp, interpolation: str, antialias: bool, size: tuple[int, int]) -> None:
    options = {"interpolation": interpolation, "antialias": antialias}
    check_op(lambda x: _resized(x, *size, **options), _IMAGES)


@pytest.mark.parametrize("options", [
    *({"interpolation": each} for each in ("nearest", "bilinear", "bicubic", "lanczos5", "area")),
    {"antialias": True}, {"crop_to_aspect_ratio": True}, {"pad_to_aspect_ratio": True},
], ids=str)  # fmt: skip
def test_resize_to_a_size_that_the_images_tell(check_op: CheckOp, options: dict[str, Any]) -> None:
    class Like(keras.Layer):
        def call(self, x: Any) -> Any:
            height, width = ops.shape(x)[1:3]
            mean = ops.mean(x, axis=(1, 2), keepdims=True)
            return keras.layers.Resizing(height, 2 * width, **options)(mean + x[:, :3, :2])

        def compute_output_shape(self, shape: Any) -> Any:
            return (*shape[:2], None, shape[3])

    check_op(lambda x: Like()(x), _IMAGES)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "area"])
def test_resize_of_bytes_rounds(check_op: CheckOp, interpolation: str) -> None:
    # the mean of an area may lie half-way between two bytes, where the order of the sum decides
    atol = 1 if interpolation == "area" else 0
    check_op(lambda x: _resized(x, 5, 9, interpolation=interpolation), _BYTES, atol=atol)


@pytest.mark.parametrize(("function", "arrays", "options"), [
    _case("channels first", lambda x: _resized(x, 5, 9, data_format="channels_first"), _FIRST),
    _case("channels first area", lambda x: _resized(x, 5, 9, interpolation="area", data_format="channels_first"), _FIRST),
    _case("one image", lambda x: _resized(x, 5, 9), _IMAGES[0], sizes=["none"]),
    _case("cropped", lambda x: _resized(x, 5, 9, crop_to_aspect_ratio=True), _IMAGES),
    _case("cropped tall", lambda x: _resized(x, 9, 4, crop_to_aspect_ratio=True), _IMAGES),
    _case("padded", lambda x: _resized(x, 5, 9, pad_to_aspect_ratio=True, fill_value=0.5), _IMAGES, **_BATCH),
    _case("half precision", lambda x: _resized(x, 5, 9, interpolation="bicubic"), _IMAGES.astype("float16"), rtol=1e-2, atol=1e-2),
])  # fmt: skip
def test_resize_of_other_kinds(check_op: CheckOp, function: Any, arrays: Any, options: Any) -> None:
    check_op(function, *arrays, **options)


def test_resize_without_antialias_is_one_operator(check_op: CheckOp, operators: Count) -> None:
    model = check_op(lambda x: _resized(x, 5, 9, data_format="channels_first"), _FIRST, **_BATCH)
    assert operators(model) == {"Resize": 1, "Shape": 1, "Concat": 1}


_TURN = np.array([[0.9, 0.2, 0.5, -0.1, 1.1, -0.7, 0.01, 0.02], [1, 0, 1.5, 0, 1, -2.5, 0, 0]], np.float32)
_SQUARE = np.array([[[0, 0], [0, 7], [5, 0], [5, 7]]] * 2, np.float32)
_SKEW = np.array([[[1, 0], [0, 6], [5, 1], [4, 7]], [[0, 1], [1, 7], [4, 0], [5, 5]]], np.float32)
_PLACES = _RANDOM.uniform(-4, 12, size=(2, 5, 3)).astype(np.float32)


@pytest.mark.parametrize(("function", "arrays", "options"), [
    _case("crop", lambda x: ops.image.crop_images(x, 1, 2, target_height=4, target_width=3), _IMAGES, **_BATCH),
    _case("elastic in no way", lambda x: ops.image.pad_images(x, 1, 2, target_height=12, target_width=10), _IMAGES, **_BATCH),
    _case("patches", lambda x: ops.image.extract_patches(x, 3, strides=2), _IMAGES, **_BATCH),
    _case("patches same", lambda x: ops.image.extract_patches(x, (3, 2), dilation_rate=2, strides=1, padding="same"), _IMAGES, **_BATCH),
    _case("patches in tiles", lambda x: ops.image.extract_patches(x, (3, 2)), _IMAGES, **_BATCH),
    _case("patches of channels first", lambda x: ops.image.extract_patches(x, 2, strides=1, data_format="channels_first"), _FIRST, **_BATCH),
    _case("patches of one image", lambda x: ops.image.extract_patches(x, 3, strides=(2, 1), padding="same"), _IMAGES[0], sizes=["none"]),
    _case("patches of volumes", lambda x: ops.image.extract_patches_3d(x, (2, 3, 2), strides=(2, 3, 2)), _VOLUMES, **_BATCH),
    _case("patches of volumes same", lambda x: ops.image.extract_patches_3d(x, 3, strides=2, padding="same"), _VOLUMES, **_BATCH),
    _case("gray", ops.image.rgb_to_grayscale, _IMAGES),
    _case("gray bytes", ops.image.rgb_to_grayscale, _BYTES),
    _case("gray first", lambda x: ops.image.rgb_to_grayscale(x, data_format="channels_first"), _FIRST),
    _case("to hsv", ops.image.rgb_to_hsv, _IMAGES, **_BATCH),
    _case("to hsv first", lambda x: ops.image.rgb_to_hsv(x, data_format="channels_first"), _FIRST, **_BATCH),
    _case("from hsv", ops.image.hsv_to_rgb, _IMAGES, **_BATCH),
    _case("blur", lambda x: ops.image.gaussian_blur(x, (3, 5), (0.8, 1.5)), _IMAGES, **_BATCH),
    _case("sobel", ops.image.sobel_edges, _IMAGES, **_BATCH),
    _case("ssim", lambda x, y: ops.image.ssim(x, y, filter_size=5), _IMAGES, _IMAGES[::-1].copy() * 0.5, **_BATCH),
    _case("psnr", lambda x, y: ops.psnr(x, y, 1.0), _IMAGES, _IMAGES[::-1].copy()),
    _case("scale and translate", lambda x: ops.image.scale_and_translate(x, (2, 5, 9, 3), np.array([0.7, 1.3], "float32"), np.array([0.2, -0.5], "float32"), (1, 2), "linear"), _IMAGES),
    _case("scale with lanczos", lambda x: ops.image.scale_and_translate(x, (2, 12, 6, 3), np.array([1.5], "float32"), np.array([0.0], "float32"), (1,), "lanczos3", antialias=False), _IMAGES),
    _case("perspective", lambda x, s, e: ops.image.perspective_transform(x, s, e), _IMAGES, _SQUARE, _SKEW, **_BATCH),
    _case("perspective nearest", lambda x, s, e: ops.image.perspective_transform(x, s, e, interpolation="nearest", fill_value=0.3), _IMAGES, _SQUARE, _SKEW, **_BATCH),
    _case("depth to space", lambda x: ops.depth_to_space(ops.concatenate([x, x, x, x], -1), 2), _IMAGES, **_BATCH),
    _case("depth to space first", lambda x: ops.depth_to_space(ops.concatenate([x, x, x, x], 1), 2, data_format="channels_first"), _FIRST, **_BATCH),
    _case("space to depth", lambda x: ops.space_to_depth(x, 2), _IMAGES, **_BATCH),
    _case("unfold", lambda x: ops.unfold(x, (3, 2), dilation=1, padding=1, stride=2), _FIRST, **_BATCH),
    _case("fold", lambda x: ops.fold(x, (8, 6), 2, stride=2), _RANDOM.normal(size=(2, 12, 12)).astype("float32"), **_BATCH),
])  # fmt: skip
def test_images(check_op: CheckOp, function: Any, arrays: Any, options: Any) -> None:
    check_op(function, *arrays, **{"atol": 3e-5} | options)


@pytest.mark.parametrize("fill_mode", ["constant", "nearest", "wrap", "reflect"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_affine_transform(check_op: CheckOp, interpolation: str, fill_mode: str) -> None:
    options = {"interpolation": interpolation, "fill_mode": fill_mode, "fill_value": 0.25}
    check_op(lambda x, t: ops.image.affine_transform(x, t, **options), _IMAGES, _TURN, atol=1e-4, **_BATCH)


@pytest.mark.parametrize("fill_mode", ["constant", "nearest", "wrap", "mirror", "reflect"])
@pytest.mark.parametrize("order", [0, 1])
def test_map_coordinates(check_op: CheckOp, order: int, fill_mode: str) -> None:
    if fill_mode == "mirror" and order == 1:
        fill_mode = "reflect"  # TensorFlow reads beyond the image there
    options = {"order": order, "fill_mode": fill_mode, "fill_value": 0.25}
    places = _PLACES if fill_mode != "mirror" else np.clip(_PLACES, 0, 5)
    check_op(
        lambda x, p: ops.image.map_coordinates(x, p, **options), _IMAGES[0, ..., 0], places, sizes=["none"]
    )


@pytest.mark.parametrize(("function", "arrays", "options"), [
    _case("fft", lambda x, y: ops.fft((x, y)), _SIGNAL, _SIGNAL[::-1].copy(), **_BATCH),
    _case("fft2", lambda x, y: ops.fft2((x, y)), _MATRICES, _MATRICES + 1, **_BATCH),
    _case("ifft2", lambda x, y: ops.ifft2((x, y)), _MATRICES, _MATRICES + 1, **_BATCH),
    _case("rfft", ops.rfft, _SIGNAL),
    _case("rfft padded", lambda x: ops.rfft(x, 80), _SIGNAL, **_BATCH),
    _case("angles of rfft", lambda x: ops.arctan2(*ops.rfft(x - 1.0)[::-1]), _SIGNAL, **_BATCH),
    _case("angles of an odd rfft", lambda x: ops.arctan2(*ops.rfft(x - 1.0, 15)[::-1]), _SIGNAL, **_BATCH),
    _case("rfft cut", lambda x: ops.rfft(x, 15), _SIGNAL),
    _case("irfft", lambda x, y: ops.irfft((x, y)), _SIGNAL[:, :9], _SIGNAL[:, 9:18], **_BATCH),
    _case("irfft of an odd length", lambda x, y: ops.irfft((x, y), 13), _SIGNAL[:, :9], _SIGNAL[:, 9:18], **_BATCH),
    _case("stft", lambda x: ops.stft(x, 16, 8, 16), _SIGNAL),
    _case("stft longer than its window", lambda x: ops.stft(x, 12, 5, 20, window="hamming", center=False), _SIGNAL),
    _case("stft without a window", lambda x: ops.stft(x, 16, 8, 16, window=None), _SIGNAL),
    _case("stft of channels", lambda x: ops.stft(x, 16, 8, 16), np.stack([_SIGNAL, -_SIGNAL], 1), **_BATCH),
    _case("istft", lambda x: ops.istft(ops.stft(x, 16, 4, 16), 16, 4, 16), _SIGNAL, **_BATCH),
    _case("istft of a length", lambda x: ops.istft(ops.stft(x, 12, 4, 16), 12, 4, 16, length=50), _SIGNAL, **_BATCH),
    _case("istft without overlap", lambda x: ops.istft(ops.stft(x, 8, 8, 8), 8, 8, 8), _SIGNAL, **_BATCH),
    _case("sequences", lambda x: ops.extract_sequences(x, 7, 3), _SIGNAL),
])  # fmt: skip
def test_spectra(check_op: CheckOp, function: Any, arrays: Any, options: Any) -> None:
    check_op(function, *arrays, **{"atol": 1e-4} | options)


@pytest.mark.parametrize("opset", [17, 20])
def test_the_axis_of_a_transform_is_written_as_the_opset_wants(check_op: CheckOp, opset: int) -> None:
    check_op(ops.rfft, _SIGNAL, opset=opset, atol=1e-4)


@pytest.mark.parametrize(("function", "arrays", "options"), [
    _case("cholesky", ops.cholesky, _DEFINITE),
    _case("cholesky upper", lambda x: ops.cholesky(x, upper=True), _DEFINITE),
    _case("cholesky inverse", lambda x: ops.cholesky_inverse(ops.cholesky(x)), _DEFINITE),
    _case("det", ops.det, _MATRICES),
    _case("inv", ops.inv, _MATRICES),
    _case("solve", ops.solve, _MATRICES, _SIDES),
    _case("solve one", ops.solve, _MATRICES, _SIDES[..., 0].copy()),
    _case("solve lower", lambda a, b: ops.solve_triangular(a, b, lower=True), _DEFINITE, _SIDES),
    _case("solve upper", ops.solve_triangular, _DEFINITE, _SIDES),
    _case("slogdet", ops.slogdet, _MATRICES),
    _case("slogdet of singular matrices", ops.slogdet, np.array([[[1, 2], [2, 4]], [[0, 0], [0, 0]]], np.float32)),
    _case("logdet", ops.logdet, _DEFINITE),
    _case("a matrix that must pivot", ops.inv, np.array([[[0.0, 1.0], [2.0, 0.0]]], np.float32)),
    _case("norm", ops.norm, _MATRICES[0]),
    _case("norm of rows", lambda x: ops.norm(x, axis=-1), _MATRICES),
    _case("norm one", lambda x: ops.norm(x, ord=1, axis=1, keepdims=True), _MATRICES),
    _case("norm three", lambda x: ops.norm(x, ord=3, axis=1), _MATRICES),
    _case("norm zero", lambda x: ops.norm(x, ord=0, axis=1), _MATRICES),
    _case("norm max", lambda x: ops.norm(x, ord=np.inf, axis=1), _MATRICES),
    _case("norm min", lambda x: ops.norm(x, ord=-np.inf, axis=1), _MATRICES),
    _case("matrix norm", lambda x: ops.norm(x, ord="fro", axis=(1, 2)), _MATRICES),
    _case("matrix norm one", lambda x: ops.norm(x, ord=1, axis=(-2, -1)), _MATRICES),
    _case("matrix norm max", lambda x: ops.norm(x, ord=np.inf, axis=(1, 2), keepdims=True), _MATRICES),
    _case("matrix norm least", lambda x: ops.norm(x, ord=-1, axis=(2, 1)), _MATRICES),
    _case("norm of integers", lambda x: ops.norm(x, axis=-1), np.array([[3, 4]], np.int32)),
])  # fmt: skip
def test_linear_algebra(check_op: CheckOp, function: Any, arrays: Any, options: Any) -> None:
    check_op(function, *arrays, **{"rtol": 1e-3, "atol": 1e-4} | options)


_LOGITS = _RANDOM.normal(size=(3, 4)).astype(np.float32)
_CHANCES = np.exp(_LOGITS) / np.exp(_LOGITS).sum(-1, keepdims=True)
_CLASSES = np.array([2, 0, 3], np.int32)
_CODES = np.eye(4, dtype=np.float32)[_CLASSES]
_STEPS = _RANDOM.normal(size=(2, 7, 4)).astype(np.float32)


@pytest.mark.parametrize(("function", "arrays", "options"), [
    _case("binary", ops.binary_crossentropy, _CODES, _CHANCES),
    _case("binary logits", lambda t, x: ops.binary_crossentropy(t, x, from_logits=True), _CODES, _LOGITS * 20),
    _case("categorical", ops.categorical_crossentropy, _CODES, _CHANCES),
    _case("categorical logits", lambda t, x: ops.categorical_crossentropy(t, x, from_logits=True), _CODES, _LOGITS),
    _case("sparse", ops.sparse_categorical_crossentropy, _CLASSES, _CHANCES),
    _case("sparse logits", lambda t, x: ops.sparse_categorical_crossentropy(t, x, from_logits=True), _CLASSES, _LOGITS),
    _case("ctc decode", lambda x, n: ops.ctc_decode(x, n), _STEPS, np.array([7, 4], np.int32)),
    _case("ctc decode with repeats", lambda x, n: ops.ctc_decode(x, n, merge_repeated=False, mask_index=2), _STEPS, np.array([7, 4], np.int32)),
    _case("saturate cast", lambda x: ops.saturate_cast(x * 300, "uint8"), _LOGITS),
    _case("cast", lambda x: [ops.cast(x * 3, d) for d in ("int32", "bool", "float16", "float64", "int8")], _LOGITS),
    _case("select", lambda x: ops.select([x > 1, x < -1], [x * 2, x * 3], 0.5), _LOGITS),
])  # fmt: skip
def test_losses_and_the_rest(check_op: CheckOp, function: Any, arrays: Any, options: Any) -> None:
    check_op(function, *arrays, **options)


@pytest.mark.parametrize("layer", [
    pytest.param(lambda: keras.layers.Rescaling(1 / 255, offset=[0.1, 0.2, 0.3]), id="rescaling"),
    pytest.param(lambda: keras.layers.Resizing(5, 9, interpolation="bicubic"), id="resizing"),
    pytest.param(lambda: keras.layers.CenterCrop(4, 4), id="center crop"),
    pytest.param(lambda: keras.layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[1.0, 2.0, 3.0]), id="normalization"),
])  # fmt: skip
def test_layers_that_call_the_backend_are_replayed(equal_to_keras: CheckOp, layer: Any) -> None:
    inputs = keras.Input((8, 6, 3))
    equal_to_keras(keras.Model(inputs, layer()(inputs)), _IMAGES)

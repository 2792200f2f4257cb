"""Operators of ONNX whose kernels are slow on CPUs, and the operators by which kerve replaces them.

    .venv/bin/python benchmarks/kernels.py

Inputs are random numbers around zero, half of them negative; times are minima of a hundred runs, on one
thread and on two.
"""

import time

import numpy as np
import onnxruntime as ort
from onnx import numpy_helper, parser

MAPS = (1, 32, 48, 48)
CONSTANTS = {
    "slope": np.full((32, 1, 1), 0.25, np.float32),
    **{name: np.float32(value) for name, value in {"low": -0.5, "high": 0.5, "zero": 0, "two": 2}.items()},
    "flat": np.array([0, 0, -1]),
    "maps": np.array(MAPS),
    "rows": np.array([1, -1, 256]),
    "scale": np.ones(256, np.float32),
    "shift": np.zeros(256, np.float32),
    "first": np.array([0]),
    "last": np.array([-1]),
    "sizes": np.array([1, 32, 96, 96]),
}
NARROW = "y = ReduceMax<keepdims=0>(z)"
NEAREST = 'Resize<mode="nearest", coordinate_transformation_mode='
FORMS = {
    "PReLU": ("y = PRelu(x, slope)", "a = Mul(x, slope) y = Max(x, a)"),
    "PReLU, steep": (
        "y = PRelu(x, slope)",
        "a = Relu(x) b = Neg(x) c = Relu(b) d = Mul(c, slope) y = Sub(a, d)",
    ),
    "mish": (
        "a = Softplus(x) b = Tanh(a) y = Mul(x, b)",
        "s = Sigmoid(x) a = Sub(two, s) u = Mul(s, a) b = Sub(two, u) c = Div(u, b) y = Mul(x, c)",
    ),
    "hard shrink": (
        "y = Shrink<lambd=0.5>(x)",
        "a = ThresholdedRelu<alpha=0.5>(x) b = Neg(x) c = ThresholdedRelu<alpha=0.5>(b) y = Sub(a, c)",
    ),
    "soft shrink": ("y = Shrink<lambd=0.5, bias=0.5>(x)", "a = Clip(x, low, high) y = Sub(x, a)"),
    "ReLU with a threshold": (
        "a = Greater(x, high) y = Where(a, x, zero)",
        "y = ThresholdedRelu<alpha=0.5>(x)",
    ),
    "square root": ("a = Abs(x) y = Pow(a, high)", "a = Abs(x) y = Sqrt(a)"),
    "softmax over channels": (
        "y = Softmax<axis=1>(x)",
        "a = Reshape(x, flat) b = Softmax<axis=1>(a) y = Reshape(b, maps)",
    ),
    "nearest neighbours": (
        f'z = {NEAREST}"half_pixel", nearest_mode="round_prefer_ceil">(x, , , sizes) {NARROW}',
        f'z = {NEAREST}"asymmetric", nearest_mode="floor">(x, , , sizes) {NARROW}',
    ),
    "normalization of a sum": (
        "r = Reshape(x, rows) a = Add(r, r) y = LayerNormalization(a, scale, shift)",
        "r = Reshape(x, rows) a = Add(r, r) b = Unsqueeze(a, first) c = LayerNormalization(b, scale, shift) "
        "y = Squeeze(c, first)",
    ),
    "logarithm of a sum": (
        "y = ReduceLogSumExp<keepdims=0>(x, last)",
        "m = ReduceMax<keepdims=1>(x, last) n = Clip(m) d = Sub(x, n) e = Exp(d) "
        "s = ReduceSum<keepdims=0>(e, last) l = Log(s) q = Squeeze(n, last) y = Add(l, q)",
    ),
}


def session(body: str, threads: int) -> ort.InferenceSession:
    maps = f"float[{','.join(map(str, MAPS))}]"
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["":21]> g ({maps} x) => (float[N] y) {{ {body} }}'
    )
    for name, value in CONSTANTS.items():
        if any(name in each.input for each in model.graph.node):
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return ort.InferenceSession(model.SerializeToString(), options)


def least(sides: tuple[ort.InferenceSession, ...], x: np.ndarray) -> list[float]:
    found = [float("inf")] * len(sides)
    for _ in range(100):
        for index, each in enumerate(sides):
            each.run(None, {"x": x})
            begin = time.perf_counter()
            each.run(None, {"x": x})
            found[index] = min(found[index], time.perf_counter() - begin)
    return found


def main() -> None:
    x = np.random.default_rng(0).standard_normal(MAPS, np.float32)
    print(f"{'':24}{'threads':>8}{'one, us':>10}{'ours, us':>10}{'ratio':>8}")
    for name, bodies in FORMS.items():
        for threads in (1, 2):
            sides = tuple(session(body, threads) for body in bodies)
            expected, found = (each.run(None, {"x": x})[0] for each in sides)
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
            one, ours = least(sides, x)
            print(f"{name:24}{threads:8}{one * 1e6:10.0f}{ours * 1e6:10.0f}{one / ours:8.1f}")


if __name__ == "__main__":
    main()

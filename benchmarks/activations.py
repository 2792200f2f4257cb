"""Activations as one operator of ONNX, and as the operators that kerve writes in its place.

    .venv/bin/python benchmarks/activations.py

Of 32 maps of 48x48 numbers around zero, half of them negative, in no order: least times of a hundred turns,
on one thread and on two.
"""

import time

import numpy as np
import onnxruntime as ort
from onnx import numpy_helper, parser

SHAPE = (1, 32, 48, 48)
CONSTANTS = {
    "slope": np.full((32, 1, 1), 0.25, np.float32),
    **{name: np.float32(value) for name, value in {"low": -0.5, "high": 0.5, "zero": 0, "two": 2}.items()},
}
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
}


def session(body: str, threads: int) -> ort.InferenceSession:
    maps = f"float[{','.join(map(str, SHAPE))}]"
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["":21]> g ({maps} x) => ({maps} y) {{ {body} }}'
    )
    for name, value in CONSTANTS.items():
        if name in body:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
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
    x = np.random.default_rng(0).standard_normal(SHAPE, np.float32)
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

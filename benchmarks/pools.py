"""A mean over small windows between two convolutions: as AveragePool of two kinds, and as a convolution.

    .venv/bin/python benchmarks/pools.py

Least times of sixty turns, on one thread.
"""

import time

import numpy as np
import onnxruntime as ort
from onnx import numpy_helper, parser

CHANNELS, SIZE = 44, 28
POOL = "b = AveragePool<kernel_shape=[3,3],pads=[1,1,1,1]>(a)"
FORMS = {
    "AveragePool 11": (18, POOL),
    "AveragePool 19": (21, POOL),
    "convolution": (21, f"c = Conv<kernel_shape=[3,3],pads=[1,1,1,1],group={CHANNELS}>(a,k) b = Mul(c,s)"),
}


def session(opset: int, body: str) -> ort.InferenceSession:
    point = "Conv<kernel_shape=[1,1]>"
    image = f"float[N,{CHANNELS},{SIZE},{SIZE}]"
    text = f'<ir_version: 9, opset_import: ["":{opset}]> g ({image} x) => ({image} y)'
    model = parser.parse_model(f"{text} {{ a = {point}(x,w) {body} y = {point}(b,w) }}")
    weights = {"w": (CHANNELS, CHANNELS, 1, 1), "k": (CHANNELS, 1, 3, 3), "s": (1, 1, SIZE, SIZE)}
    for name, shape in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.full(shape, 0.1, np.float32), name))
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(model.SerializeToString(), options)


def main() -> None:
    sessions = {name: session(*form) for name, form in FORMS.items()}
    for batch in (1, 8):
        x = np.random.default_rng(0).random((batch, CHANNELS, SIZE, SIZE), np.float32)
        least = dict.fromkeys(sessions, float("inf"))
        for _ in range(60):
            for name, each in sessions.items():
                begin = time.perf_counter()
                each.run(None, {"x": x})
                least[name] = min(least[name], time.perf_counter() - begin)
        print(
            f"batch {batch}:", ", ".join(f"{name} {seconds * 1e3:.3f} ms" for name, seconds in least.items())
        )


if __name__ == "__main__":
    main()

"""Average pooling with small windows between two convolutions: as AveragePool of two opsets and as Conv.

    .venv/bin/python benchmarks/pools.py

Overlapping windows of size three along each axis. Times are minima of forty runs, on one thread.
"""

import time

import numpy as np
import onnxruntime as ort
from onnx import numpy_helper, parser

IMAGES, VOLUMES = (44, 28, 28), (16, 16, 16, 16)
LAYERS, ROWS = (16 * 16, 16, 16), (16, 16, 16 * 16)


def window(*sizes: int) -> str:
    return f"kernel_shape={list(sizes)},pads={[size // 2 for size in sizes] * 2}"


FORMS = {
    IMAGES: {
        "AveragePool 11": (18, f"b = AveragePool<{window(3, 3)}>(a)"),
        "AveragePool 19": (21, f"b = AveragePool<{window(3, 3)}>(a)"),
        "convolution": (21, f"c = Conv<{window(3, 3)},group=44>(a,k) b = Mul(c,s)"),
    },
    VOLUMES: {
        "AveragePool 11": (18, f"b = AveragePool<{window(3, 3, 3)}>(a)"),
        "AveragePool 19": (21, f"b = AveragePool<{window(3, 3, 3)}>(a)"),
        "convolution": (21, f"c = Conv<{window(3, 3, 3)},group=16>(a,k) b = Mul(c,s)"),
        "convolutions of images and of rows": (
            21,
            f"i = Reshape(a,layers) j = Conv<{window(3, 3)},group=256>(i,k2) l = Mul(j,s2) "
            f"r = Reshape(l,rows) q = Conv<{window(3, 1)},group=16>(r,k1) t = Mul(q,s1) "
            "b = Reshape(t,volumes)",
        ),
    },
}


def constants(shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    channels, sizes = shape[0], shape[1:]
    dims = {
        "w": (channels, channels, *(1 for _ in sizes)),
        "k": (channels, 1, *(3 for _ in sizes)),
        "s": (1, 1, *sizes),
        "k2": (LAYERS[0], 1, 3, 3),
        "s2": (1, 1, *LAYERS[1:]),
        "k1": (ROWS[0], 1, 3, 1),
        "s1": (1, 1, *ROWS[1:]),
    }
    views = {"layers": LAYERS, "rows": ROWS, "volumes": VOLUMES}
    return {
        **{name: np.full(each, 0.1, np.float32) for name, each in dims.items()},
        **{name: np.array([0, *each]) for name, each in views.items()},
    }


def session(opset: int, body: str, shape: tuple[int, ...]) -> ort.InferenceSession:
    point, source = f"Conv<kernel_shape={[1] * (len(shape) - 1)}>", f"float[N,{','.join(map(str, shape))}]"
    text = f'<ir_version: 9, opset_import: ["":{opset}]> g ({source} x) => ({source} y)'
    model = parser.parse_model(f"{text} {{ a = {point}(x,w) {body} y = {point}(b,w) }}")
    asked = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants(shape).items() if name in asked
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return ort.InferenceSession(model.SerializeToString(), options)


def main() -> None:
    for shape, forms in FORMS.items():
        sessions = {name: session(*form, shape) for name, form in forms.items()}
        for batch in (1, 8):
            x = np.random.default_rng(0).random((batch, *shape), np.float32)
            least = dict.fromkeys(sessions, float("inf"))
            for _ in range(40):
                for name, each in sessions.items():
                    begin = time.perf_counter()
                    each.run(None, {"x": x})
                    least[name] = min(least[name], time.perf_counter() - begin)
            told = (f"{name} {seconds * 1e3:.3f} ms" for name, seconds in least.items())
            print(f"{shape}, batch {batch}:", ", ".join(told), flush=True)


if __name__ == "__main__":
    main()

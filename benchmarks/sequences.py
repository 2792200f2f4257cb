"""1-D convolutions, compared with the 2-D convolutions of images of height one that kerve writes instead.

    .venv/bin/python benchmarks/sequences.py

A single one between two reshapes, and a chain of three; minimum of a hundred runs, on one thread and on two.
"""

import numpy as np
import onnxruntime as ort
from kernels import least
from onnx import numpy_helper, parser

#: batch, channels, length, window, dilation, and whether it is depthwise
SHAPES = (
    (1, 64, 100, 3, 1, False),
    (8, 64, 100, 3, 1, False),
    (1, 32, 256, 3, 8, False),
    (8, 32, 1024, 2, 32, False),
    (1, 96, 100, 31, 1, True),
    (8, 96, 100, 31, 1, True),
)


def session(count: int, shape: tuple[int, ...], threads: int, *, as_images: bool) -> ort.InferenceSession:
    batch, channels, length, window, dilation, apart = shape
    group, pad = channels if apart else 1, dilation * (window - 1)
    sizes = ("[0,{},0,0]", "[1,{}]") if as_images else ("[{},0]", "[{}]")
    conv = f"Conv<pads={sizes[0].format(pad)}, dilations={sizes[1].format(dilation)}, group={group}>"
    steps = " ".join(f"c{i} = {conv}(r{i}, w) r{i + 1} = Relu(c{i})" for i in range(count))
    views = (f"r0 = Unsqueeze(x, two) {steps} z = Squeeze(r{count}, two)", f"r0 = Identity(x) {steps}")
    body = (
        f"{views[0]} y = ReduceMax<keepdims=0>(z)"
        if as_images
        else f"{views[1]} y = ReduceMax<keepdims=0>(r{count})"
    )
    text = f'<ir_version: 10, opset_import: ["":21]> g (float[{batch},{channels},{length}] x) => (float y)'
    model = parser.parse_model(f"{text} {{ {body} }}")
    weights = np.random.default_rng(0).normal(size=(channels, channels // group, window)).astype(np.float32)
    weights = weights[:, :, None] if as_images else weights
    model.graph.initializer.append(numpy_helper.from_array(weights / np.float32(window), "w"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "two"))
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    return ort.InferenceSession(model.SerializeToString(), options)


def main() -> None:
    print(f"{'batch, channels, length, window, dilation, apart':52}{'convolutions, threads':>22}{'ratio':>8}")
    for shape in SHAPES:
        x = np.random.default_rng(1).standard_normal(shape[:3], np.float32)
        for count in (1, 3):
            for threads in (1, 2):
                sides = tuple(session(count, shape, threads, as_images=images) for images in (False, True))
                expected, found = (each.run(None, {"x": x})[0] for each in sides)
                np.testing.assert_allclose(found, expected, rtol=1e-4)
                sequences, images = least(sides, x)
                print(f"{shape!s:52}{f'{count}, {threads}':>22}{sequences / images:8.2f}")


if __name__ == "__main__":
    main()

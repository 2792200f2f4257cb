"""What attention is in our files, what ONNX Runtime makes of it when it loads them, and what the forms cost.

    .venv/bin/python benchmarks/attention.py [--threads 1]

The first table counts operators of the models with attention of `conversion_models.py`, at the default
opset and at 23, the first with an Attention operator; "loaded" is what ONNX Runtime writes as
`SessionOptions.optimized_model_filepath`, with all optimizations. Times of the two take turns, least of many.
The second table is the projection of queries, keys and values of one MultiHeadAttention (width 256, 4 heads,
128 positions) in the forms that it could have. The third says how fast a graph of these models could be: the
time of all nodes of tf2onnx's graph and of ours, and of the products of matrices in ours alone, which no
form avoids. Each is the sum over the nodes of the least time that ONNX Runtime's profiler reports.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from conversion import COMPILERS, latencies, repair
from conversion_models import build, inputs_for
from onnx import numpy_helper, parser

from kerve.compiler.options import CompileOptions
from kerve.compiler.pipeline import build as compile_model

MODELS = ("transformer encoder", "BERT-like", "transformer decoder")
OPSETS = (21, 23)
BATCHES = (1, 8)
#: What else a model consists of, alike in every form.
PLAIN = {"Add", "Gather", "Gemm", "Reshape", "ReduceMean", "Relu", "Constant", "Cast", "Unsqueeze", "Shape"}

PRODUCTS = ("FusedGemm", "FusedMatMul", "Gemm", "MatMul")

WIDTH, HEADS, LENGTH = 256, 4, 128
SPLIT = "Transpose<perm=[0,2,1,3]>"
PROJECTIONS = {
    "three products": " ".join(
        f"m{i} = MatMul(x,w{i}) a{i} = Add(m{i},b{i}) r{i} = Reshape(a{i},s) y{i} = {SPLIT}(r{i})"
        for i in range(3)
    ),
    "one product, then split": f"m = MatMul(x,w) a = Add(m,b) r = Reshape(a,s3) t = {SPLIT}(r) "
    "y0,y1,y2 = Split<axis=1,num_outputs=3>(t)",
    "a product per head": "u = Unsqueeze(x,one) "
    + " ".join(f"m{i} = MatMul(u,h{i}) y{i} = Add(m{i},c{i})" for i in range(3)),
}


def session(model: Any, threads: int, optimized: Path | None = None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def operators(file: Path) -> str:
    found = Counter(node.op_type for node in onnx.load(file).graph.node if node.op_type not in PLAIN)
    return ", ".join(f"{count} {name}" for name, count in sorted(found.items(), key=lambda item: -item[1]))


def row(name: str, threads: int, folder: Path) -> str:
    model = build(name)
    cells, runs = [name], {}
    for opset in OPSETS:
        place = folder / f"{name}-{opset}"
        place.mkdir()
        compile_model(model, place, "model", CompileOptions(opset=opset), lambda _: None)
        runs[str(opset)] = session(place / "model.onnx", threads, place / "loaded.onnx")
        cells += [operators(place / "model.onnx"), operators(place / "loaded.onnx")]
    for batch in BATCHES:
        inputs = inputs_for(model, batch)
        best = latencies({key: partial(answer, run, inputs) for key, run in runs.items()}, 12)
        cells.append(f"{best['21'] / best['23']:.2f}x")
    return "| " + " | ".join(cells) + " |"


def answer(run: ort.InferenceSession, inputs: Iterable[np.ndarray]) -> Any:
    names = (each.name for each in run.get_inputs())
    return run.run(None, dict(zip(names, inputs, strict=True)))


def projection(body: str, threads: int) -> ort.InferenceSession:
    head = WIDTH // HEADS
    draw = np.random.default_rng(0).normal
    weights = draw(size=(3, WIDTH, WIDTH)).astype(np.float32)
    biases = draw(size=(3, WIDTH)).astype(np.float32)
    constants = {
        "s": np.array([0, LENGTH, HEADS, head]),
        "s3": np.array([0, LENGTH, 3 * HEADS, head]),
        "one": np.array([1]),
        "w": np.concatenate(list(weights), 1),
        "b": biases.reshape(-1),
    }
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        heads = np.ascontiguousarray(weight.reshape(WIDTH, HEADS, head).transpose(1, 0, 2))
        constants |= {f"w{i}": weight, f"b{i}": bias, f"h{i}": heads, f"c{i}": bias.reshape(HEADS, 1, head)}
    answers = ", ".join(f"float[N,{HEADS},{LENGTH},{head}] y{i}" for i in range(3))
    signature = f"(float[N,{LENGTH},{WIDTH}] x) => ({answers})"
    model = parser.parse_model(f'<ir_version: 9, opset_import: ["":21]> g {signature} {{ {body} }}')
    asked = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants.items() if name in asked
    )
    return session(model.SerializeToString(), threads)


def projections(threads: int) -> Iterable[str]:
    sessions = {name: projection(body, threads) for name, body in PROJECTIONS.items()}
    for batch in BATCHES:
        x = np.random.default_rng(1).normal(size=(batch, LENGTH, WIDTH)).astype(np.float32)
        wanted, *others = (answer(each, [x]) for each in sessions.values())
        for other in others:
            np.testing.assert_allclose(np.stack(other), np.stack(wanted), rtol=1e-3, atol=1e-3)
        best = latencies({name: partial(answer, each, [x]) for name, each in sessions.items()}, 40)
        cells = [str(batch), *(f"{best[name]:.3f}" for name in sessions)]
        yield "| " + " | ".join(cells) + " |"


def node_times(file: Path, inputs: Iterable[np.ndarray], threads: int) -> tuple[float, float]:
    """Return the milliseconds of all nodes, and of products of matrices."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.enable_profiling, options.profile_file_prefix = True, str(file)
    run = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    for _ in range(60):
        answer(run, inputs)
    events = json.loads(Path(run.end_profiling()).read_text())
    least: dict[tuple[str, str], float] = {}
    for event in events:
        if event["name"].endswith("_kernel_time"):
            key = event["args"]["op_name"], event["name"]
            least[key] = min(least.get(key, float("inf")), event["dur"] / 1e3)
    return sum(least.values()), sum(time for (op_type, _), time in least.items() if op_type in PRODUCTS)


def bounds(threads: int, folder: Path) -> Iterable[str]:
    for name in ("transformer encoder", "ViT-like"):
        model = build(name)
        files = {who: folder / f"{name}-{who}.onnx" for who in COMPILERS}
        for who, compiler in COMPILERS.items():
            compiler(model, files[who])
        repair(files["tf2onnx"])
        for batch in BATCHES:
            inputs = inputs_for(model, batch)
            theirs, _ = node_times(files["tf2onnx"], inputs, threads)
            ours, products = node_times(files["kerve"], inputs, threads)
            cells = [name, str(batch), *(f"{time:.2f}" for time in (theirs, ours, products))]
            yield "| " + " | ".join([*cells, f"{theirs / ours:.2f}x", f"{theirs / products:.2f}x"]) + " |"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    arguments.add_argument("--threads", type=int, default=1)
    threads = arguments.parse_args().threads
    print("| model | 21: in the file | loaded | 23: in the file | loaded | 23 vs 21, batch 1 | batch 8 |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            print(row(name, threads, Path(folder)), flush=True)
    print("\n| batch, ms | " + " | ".join(PROJECTIONS) + " |")
    print("|---|" + "---|" * len(PROJECTIONS))
    for each in projections(threads):
        print(each, flush=True)
    print("\n| model | batch | tf2onnx, ms | ours | its products | ratio | ratio of products alone |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for each in bounds(threads, Path(folder)):
            print(each, flush=True)


if __name__ == "__main__":
    main()

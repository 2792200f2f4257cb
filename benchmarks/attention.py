"""Attention in compiled models: the operators in the file and after ONNX Runtime loads it, and their times.

    .venv/bin/python benchmarks/attention.py [--threads 1]

The first table counts the operators of the models with attention in `conversion_models.py`, at the default
opset and at 23, the first with an Attention operator; "loaded" is the graph that ONNX Runtime writes as
`SessionOptions.optimized_model_filepath`, with all optimizations. Times are minima of alternating runs. The
next tables are parts of one encoder block (width 256, 4 heads, 128 positions) in alternative forms, ours
first. The last table shows how fast graphs of these models could be: the time of all nodes of tf2onnx's graph
and of ours, and of the matrix products in ours, which no form avoids. Each is the sum over the nodes of the
minimum times reported by ONNX Runtime's profiler.
"""

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
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
#: Operators not counted, the same in every form.
PLAIN = {"Add", "Gather", "Gemm", "Reshape", "ReduceMean", "Relu", "Constant", "Cast", "Unsqueeze", "Shape"}

PRODUCTS = ("FusedGemm", "FusedMatMul", "Gemm", "MatMul")

WIDTH, HEADS, LENGTH = 256, 4, 128
SPLIT = "Transpose<perm=[0,2,1,3]>"
#: Parts of a block in alternative forms: of x, or of queries, keys and values; outputs are y, y0, y1 and y2.
PARTS = {
    "projections": {
        "three products": " ".join(
            f"m{i} = MatMul(x,w{i}) a{i} = Add(m{i},b{i}) r{i} = Reshape(a{i},s) y{i} = {SPLIT}(r{i})"
            for i in range(3)
        ),
        "one product, then split": f"m = MatMul(x,w) a = Add(m,b) r = Reshape(a,s3) t = {SPLIT}(r) "
        "y0,y1,y2 = Split<axis=1,num_outputs=3>(t)",
        "a product per head": "u = Unsqueeze(x,one) "
        + " ".join(f"m{i} = MatMul(u,h{i}) y{i} = Add(m{i},c{i})" for i in range(3)),
    },
    "attention": {
        "two products": f"qr = Reshape(q,s) qt = {SPLIT}(qr) kr = Reshape(k,s) "
        f"kt = Transpose<perm=[0,2,3,1]>(kr) "
        f"vr = Reshape(v,s) vt = {SPLIT}(vr) p = MatMul(qt,kt) d = Mul(p,scale) e = Softmax<axis=-1>(d) "
        f"o = MatMul(e,vt) ot = {SPLIT}(o) y = Reshape(ot,flat)",
        "MultiHeadAttention, not of ONNX": f"y = com.microsoft.MultiHeadAttention<num_heads={HEADS}>(q,k,v)",
    },
    "bias and GELU": {
        "fused (BiasGelu)": "m = MatMul(x,wide) a = Add(m,bias) y = Gelu(a)",
        "kept apart by a bias of three axes": "m = MatMul(x,wide) a = Add(m,bias3) y = Gelu(a)",
    },
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


def constants() -> dict[str, np.ndarray]:
    head = WIDTH // HEADS
    draw = np.random.default_rng(0).normal
    weights = draw(size=(3, WIDTH, WIDTH)).astype(np.float32)
    biases = draw(size=(3, WIDTH)).astype(np.float32)
    found: dict[str, np.ndarray] = {
        "s": np.array([0, LENGTH, HEADS, head]),
        "s3": np.array([0, LENGTH, 3 * HEADS, head]),
        "flat": np.array([0, LENGTH, WIDTH]),
        "one": np.array([1]),
        "scale": np.array(head**-0.5, np.float32),
        "w": np.concatenate(list(weights), 1),
        "b": biases.reshape(-1),
        "wide": draw(size=(WIDTH, 4 * WIDTH)).astype(np.float32),
        "bias": draw(size=4 * WIDTH).astype(np.float32),
    }
    found["bias3"] = found["bias"].reshape(1, 1, -1)
    for i, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        heads = np.ascontiguousarray(weight.reshape(WIDTH, HEADS, head).transpose(1, 0, 2))
        found |= {f"w{i}": weight, f"b{i}": bias, f"h{i}": heads, f"c{i}": bias.reshape(HEADS, 1, head)}
    return found


def form(body: str, threads: int) -> ort.InferenceSession:
    model = parser.parse_model(
        f'<ir_version: 9, opset_import: ["":21, "com.microsoft":1]> g () => () {{ {body} }}'
    )
    asked = {name for node in model.graph.node for name in node.input}
    made = {name for node in model.graph.node for name in node.output}
    model.graph.initializer.extend(
        numpy_helper.from_array(value, name) for name, value in constants().items() if name in asked
    )
    given = (name for name in ("x", "q", "k", "v") if name in asked)
    answers = (name for name in ("y", "y0", "y1", "y2") if name in made)
    model.graph.input.extend(tensor(name, ("N", LENGTH, WIDTH)) for name in given)
    model.graph.output.extend(tensor(name, None) for name in answers)
    return session(model.SerializeToString(), threads)


def tensor(name: str, shape: tuple[str | int, ...] | None) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def times(forms: Mapping[str, str], threads: int) -> Iterable[str]:
    sessions = {name: form(body, threads) for name, body in forms.items()}
    for batch in BATCHES:
        draw = np.random.default_rng(1).normal
        given = [draw(size=(batch, LENGTH, WIDTH)).astype(np.float32) for _ in range(3)]
        given = given[: len(next(iter(sessions.values())).get_inputs())]
        wanted, *others = (answer(each, given) for each in sessions.values())
        for other in others:
            np.testing.assert_allclose(np.stack(other), np.stack(wanted), rtol=1e-3, atol=1e-3)
        best = latencies({name: partial(answer, each, given) for name, each in sessions.items()}, 40)
        cells = [str(batch), *(f"{best[name]:.3f}" for name in sessions)]
        yield "| " + " | ".join(cells) + " |"


def node_times(file: Path, inputs: Iterable[np.ndarray], threads: int) -> tuple[float, float]:
    """Return the milliseconds of all nodes, and of matrix products."""
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
    for part, forms in PARTS.items():
        print(f"\n| {part}: batch, ms | " + " | ".join(forms) + " |")
        print("|---|" + "---|" * len(forms))
        for each in times(forms, threads):
            print(each, flush=True)
    print("\n| model | batch | tf2onnx, ms | ours | its products | ratio | ratio of products alone |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for each in bounds(threads, Path(folder)):
            print(each, flush=True)


if __name__ == "__main__":
    main()

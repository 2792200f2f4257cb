"""kerve's graph against tf2onnx's graph and the TensorFlow function, on the same weights, in one run.

    .venv/bin/python benchmarks/conversion.py [--models ResNet50,GRU] [--threads 2] [--rounds 15]

Each model is compiled in a process of its own, which measures the time and the extra memory (peak resident
set over that with the model loaded). Latencies are medians; the three take turns, so that a change of the
machine's speed hits all of them. Prints one table, and the bars that do not hold.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

BATCHES = (1, 8)
TF2ONNX_OPSET = 18
#: Recurrent, normalization and attention models: how much faster than tf2onnx's graph ours must be.
FAST = ("masked LSTM", "GRU", "transformer encoder", "ViT-like", "ConvNeXtTiny")


def compile_ours(model: Any, file: Path) -> None:
    import onnx_ir as ir

    from kerve.compiler.lowering import lower
    from kerve.compiler.passes import optimize

    ir.save(optimize(lower(model).model), file)


def compile_tf2onnx(model: Any, file: Path) -> None:
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec(x.shape, x.dtype, name="x") for x in model.inputs]
    tf2onnx.convert.from_function(
        tf.function(lambda x: model(x, training=False)),
        input_signature=signature,
        opset=TF2ONNX_OPSET,
        output_path=str(file),
    )


COMPILERS: dict[str, Callable[[Any, Path], None]] = {"kerve": compile_ours, "tf2onnx": compile_tf2onnx}


def child(compiler: str, name: str, file: Path) -> None:
    """Compile one model and print what it took, as JSON."""
    import tf2onnx  # noqa: F401
    from conversion_models import build

    import kerve.compiler.lowering
    import kerve.compiler.passes  # noqa: F401  # imports are not part of the time

    model = build(name)
    weights = sum(variable.numpy().nbytes for variable in model.variables)
    loaded = peak()
    begin = time.perf_counter()
    COMPILERS[compiler](model, file)
    print(json.dumps({"seconds": time.perf_counter() - begin, "extra": (peak() - loaded) / weights}))


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def compiled(compiler: str, name: str, file: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", compiler, name, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return {"seconds": float("nan"), "extra": float("nan")}
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def session(file: Path, threads: int) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    try:
        return ort.InferenceSession(file, options)
    except Exception as error:  # noqa: BLE001  # tf2onnx writes files that cannot be loaded: that is the finding
        print(f"  {file.name}: {str(error).splitlines()[0]}", file=sys.stderr)
        return None


def counts(file: Path) -> str:
    import onnx

    nodes = onnx.load(file, load_external_data=False).graph.node
    return f"{len(nodes)}/{sum(node.op_type == 'Transpose' for node in nodes)}"


def latencies(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    repeats = {}
    for name, run in runs.items():
        begin = time.perf_counter()
        run()
        repeats[name] = max(1, int(0.02 / (time.perf_counter() - begin)))
    for _ in range(rounds):
        for name, run in runs.items():
            begin = time.perf_counter()
            for _ in range(repeats[name]):
                run()
            times[name].append((time.perf_counter() - begin) / repeats[name] * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def _tensorflow(function: Any, tensor: Any) -> Any:
    return function(tensor).numpy()


def measure(name: str, threads: int, rounds: int, folder: Path) -> dict[str, Any]:
    import tensorflow as tf
    from conversion_models import build, inputs_for

    files = {compiler: folder / f"{compiler}-{name}.onnx" for compiler in COMPILERS}
    costs = {compiler: compiled(compiler, name, file) for compiler, file in files.items()}
    sessions = {compiler: session(file, threads) for compiler, file in files.items() if file.exists()}
    model = build(name)
    function = tf.function(lambda x: model(x, training=False))
    row: dict[str, Any] = {"model": name, "costs": costs}
    row["counts"] = {compiler: counts(file) for compiler, file in files.items() if file.exists()}
    for batch in BATCHES:
        x = inputs_for(name, batch)
        tensor = tf.constant(x)
        runs: dict[str, Callable[[], Any]] = {"TensorFlow": partial(_tensorflow, function, tensor)}
        for compiler, loaded in sessions.items():
            if loaded is not None:
                feed = {loaded.get_inputs()[0].name: x}
                runs[compiler] = partial(loaded.run, None, feed)
        want = function(tensor).numpy()
        row[f"error {batch}"] = float(np.abs(runs["kerve"]()[0] - want).max() / np.abs(want).max())
        row[str(batch)] = latencies(runs, rounds)
    return row


def show(rows: list[dict[str, Any]]) -> None:
    header = ["model", "nodes/transposes", "compile s", "extra memory", "error"]
    for batch in BATCHES:
        header += [f"b{batch} ms kerve", "tf2onnx", "TensorFlow", "vs tf2onnx", "vs TF"]
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in rows:
        costs, found = row["costs"], row["counts"]
        cells = [
            row["model"],
            " vs ".join(found.get(compiler, "-") for compiler in COMPILERS),
            " vs ".join(f"{costs[compiler]['seconds']:.1f}" for compiler in COMPILERS),
            " vs ".join(f"{costs[compiler]['extra']:.1f}x" for compiler in COMPILERS),
            f"{max(row[f'error {batch}'] for batch in BATCHES):.0e}",
        ]
        for batch in BATCHES:
            ours, theirs, tf = (row[str(batch)].get(who) for who in ("kerve", "tf2onnx", "TensorFlow"))
            cells += [f"{ours:.2f}", f"{theirs:.2f}" if theirs else "does not load", f"{tf:.2f}"]
            cells += [f"{theirs / ours:.2f}x" if theirs else "-", f"{tf / ours:.2f}x"]
        print("| " + " | ".join(cells) + " |")


def misses(rows: list[dict[str, Any]]) -> list[str]:
    found = []
    for row in rows:
        for batch in BATCHES:
            for who in ("tf2onnx", "TensorFlow"):
                ratio = row[str(batch)].get(who, float("inf")) / row[str(batch)]["kerve"]
                if ratio < 0.97:
                    found.append(f"{row['model']} at batch {batch} is {1 / ratio:.2f}x slower than {who}")
            gain = row[str(batch)].get("tf2onnx", float("inf")) / row[str(batch)]["kerve"]
            if row["model"] in FAST and gain < 1.4:
                found.append(f"{row['model']} at batch {batch} is {gain:.2f}x as fast as tf2onnx, not 1.4x")
        ours, theirs = (row["costs"][compiler]["seconds"] for compiler in COMPILERS)
        if row["model"] == "ResNet50" and ours > 1.5 * theirs:
            found.append(f"ResNet50 compiles in {ours / theirs:.2f}x the time of tf2onnx")
        if row["model"] == "ResNet50" and row["costs"]["kerve"]["extra"] > 3:
            found.append(f"ResNet50 takes {row['costs']['kerve']['extra']:.1f}x its size in extra memory")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", help="comma-separated names; all by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--child", nargs=3, metavar=("COMPILER", "MODEL", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        compiler, name, file = arguments.child
        child(compiler, name, Path(file))
        return
    from conversion_models import MODELS

    names = arguments.models.split(",") if arguments.models else list(MODELS)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            print(name, "...", file=sys.stderr)
            rows.append(measure(name, arguments.threads, arguments.rounds, Path(folder)))
    show(rows)
    for miss in misses(rows):
        print("MISSED:", miss)


if __name__ == "__main__":
    main()

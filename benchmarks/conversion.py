"""kerve's graph against tf2onnx's graph and the TensorFlow function, on the same weights, in one run.

    .venv/bin/python benchmarks/conversion.py [--models ResNet50,GRU | --everyday] [--threads 2] [--rounds 20]
    .venv/bin/python benchmarks/conversion.py --precisions float16,int4-weights [--models ResNet50]

Each model is compiled in a separate process. kerve's time is that of the whole compile (load, lower,
optimize, verify, package), tf2onnx's that of converting and writing. Extra memory is the peak resident set
above that with the model loaded and called once, as a multiple of the weights' size; kerve's also, in
parentheses, including verification, in which the source and ONNX Runtime run.

With `--precisions`, only extra memory and time of compiling large models to each precision are shown.

Latencies are minima, since other processes can only increase them. The three sides run alternately, in random
order in each round, and each turn begins with a call that is not measured, so that threads left running by
the previous side affect all alike. Prints one table and the targets that were missed.

Files of tf2onnx that ONNX Runtime cannot run are repaired and marked with a star: TensorFlow's operator Erfc
is replaced by 1 - Erf, and constants that became inputs are fed.
"""

import argparse
import gc
import json
import math
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BATCHES = (1, 8)
TF2ONNX_OPSET = 18
RIVALS = ("tf2onnx", "TensorFlow")
#: Recurrent, normalization and attention models that must be 1.4x as fast as tf2onnx's. (The plain LSTM is
#: one operator in both.)
FAST = ("masked LSTM", "GRU", "transformer encoder", "ViT-like", "ConvNeXtTiny")
#: For smaller models, TensorFlow's own memory hides that of the model.
LARGE = 50e6


class Mark(NamedTuple):
    """The time and the peak memory at a moment of a compile."""

    time: float
    peak: int


def mark() -> Mark:
    return Mark(time.perf_counter(), memory("VmHWM"))


def memory(kind: str) -> int:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[kind].split()[0]) * 1024


def compile_ours(model: Any, file: Path, precision: Any = "float32") -> Mark:
    from kerve.compiler.options import CompileOptions
    from kerve.compiler.pipeline import build

    marks: dict[str, Mark] = {}
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        options = CompileOptions(precision=precision, max_drop=math.inf)
        build(model, Path(folder), "model", options, lambda event: marks.update({event.stage: mark()}))
        (Path(folder) / "model.onnx").rename(file)
    return marks["optimize"]


def compile_tf2onnx(model: Any, file: Path) -> Mark:
    import tensorflow as tf
    import tf2onnx

    signature = [tf.TensorSpec(x.shape, x.dtype, name=x.name) for x in model.inputs]
    tf2onnx.convert.from_function(
        tf.function(lambda *inputs: model(list(inputs) if len(inputs) > 1 else inputs[0], training=False)),
        input_signature=signature,
        opset=TF2ONNX_OPSET,
        output_path=str(file),
    )
    return mark()


COMPILERS: dict[str, Callable[..., Mark]] = {"kerve": compile_ours, "tf2onnx": compile_tf2onnx}


def child(compiler: str, name: str, file: Path) -> None:
    """Compile one model and print its time and memory as JSON; `compiler` may be "kerve PRECISION"."""
    import tf2onnx  # noqa: F401
    from conversion_models import build, inputs_for

    import kerve.compiler.pipeline  # noqa: F401  # imports are not part of the time

    model = build(name)
    model(as_tensors(inputs_for(model, 1)))
    weights = sum(variable.numpy().nbytes for variable in model.variables)
    compiler, *precision = compiler.split()
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    begin = mark()
    converted = COMPILERS[compiler](model, file, *precision)
    end = mark()
    cost = {
        "weights": weights,
        "seconds": end.time - begin.time,
        "extra": (converted.peak - begin.peak) / weights,
        "verified": (end.peak - begin.peak) / weights,
    }
    print(json.dumps(cost))


def as_tensors(inputs: list[Any]) -> Any:
    """Return inputs in the form of Keras: a list only if there are several."""
    import tensorflow as tf

    tensors = [tf.constant(array) for array in inputs]
    return tensors if len(tensors) > 1 else tensors[0]


def compiled(compiler: str, name: str, file: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", compiler, name, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return dict.fromkeys(("weights", "seconds", "extra", "verified"), float("nan"))
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def repair(file: Path) -> bool:
    """Replace `Erfc(x)`, which is not an ONNX operator, by `1 - Erf(x)`; returns whether there was any."""
    import onnx_ir as ir

    model = ir.load(file)
    broken = [node for node in model.graph if node.op_type == "Erfc"]
    for node in broken:
        erf = ir.node("Erf", node.inputs)
        one = ir.node("Constant", [], attributes={"value": ir.tensor(np.float32(1))})
        rest = ir.node("Sub", [one.outputs[0], erf.outputs[0]])
        model.graph.insert_before(node, (one, erf, rest))
        node.outputs[0].replace_all_uses_with(rest.outputs[0])
        model.graph.remove(node, safe=True)
    if broken:
        ir.save(model, file)
    return bool(broken)


def runner(file: Path, inputs: list[Any], threads: int) -> tuple[Callable[[], Any], bool]:
    """Return a call of the model on these inputs, and whether it has constants as additional inputs."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    session = ort.InferenceSession(file, options)
    asked = session.get_inputs()
    feed = dict(zip((each.name for each in asked), inputs, strict=False))
    lost = {each.name: np.ones(each.shape, np.float32) for each in asked[len(inputs) :]}
    return partial(session.run, None, feed | lost), bool(lost)


def counts(file: Path) -> str:
    import onnx

    nodes = onnx.load(file, load_external_data=False).graph.node
    return f"{len(nodes)}/{sum(node.op_type == 'Transpose' for node in nodes)}"


def latencies(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, float]:
    """Return the minimum milliseconds of each, measured alternately."""
    order = list(runs)
    shuffle = random.Random(0).shuffle
    repeats = {}
    for name, run in runs.items():
        run()
        begin = time.perf_counter()
        run()
        repeats[name] = max(1, int(0.03 / (time.perf_counter() - begin)))
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            run = runs[name]
            run()
            begin = time.perf_counter()
            for _ in range(repeats[name]):
                run()
            best[name] = min(best[name], (time.perf_counter() - begin) / repeats[name] * 1e3)
    return best


def measure(name: str, threads: int, rounds: int, folder: Path) -> dict[str, Any]:
    import tensorflow as tf
    from conversion_models import build, inputs_for

    files = {compiler: folder / f"{compiler}-{name}.onnx" for compiler in COMPILERS}
    row: dict[str, Any] = {"model": name, "star": False}
    row["costs"] = {compiler: compiled(compiler, name, file) for compiler, file in files.items()}
    files = {compiler: file for compiler, file in files.items() if file.exists()}
    row["counts"] = {compiler: counts(file) for compiler, file in files.items()}
    if "tf2onnx" in files:
        row["star"] = repair(files["tf2onnx"])
    model = build(name)
    function = tf.function(lambda inputs: model(inputs, training=False))
    for batch in BATCHES:
        inputs = inputs_for(model, batch)
        tensors = as_tensors(inputs)
        runs: dict[str, Callable[[], Any]] = {"TensorFlow": partial(answered, function, tensors)}
        for compiler, file in files.items():
            try:
                runs[compiler], lost = runner(file, inputs, threads)
                row["star"] |= lost
            except Exception as error:  # noqa: BLE001  # tf2onnx may write files that cannot be loaded; this is reported
                print(f"  {file.name}: {str(error).splitlines()[0]}", file=sys.stderr)
        want = runs["TensorFlow"]()
        row[f"error {batch}"] = float(np.abs(runs["kerve"]()[0] - want).max() / np.abs(want).max())
        row[str(batch)] = latencies(runs, rounds)
    return row


def answered(function: Callable[[Any], Any], tensors: Any) -> Any:
    """Return the result of a TensorFlow function, waiting until it is computed."""
    return function(tensors).numpy()


def gain(row: dict[str, Any], batch: int, rival: str) -> float:
    """Return the speedup over a rival; infinite if the rival does not run."""
    times = row[str(batch)]
    return float(times.get(rival, float("inf")) / times["kerve"])


def header() -> str:
    cells = ["model", "nodes/transposes", "compile s", "extra memory", "error"]
    for batch in BATCHES:
        cells += [f"b{batch} ms kerve", "tf2onnx", "TensorFlow", "vs tf2onnx", "vs TensorFlow"]
    return "| " + " | ".join(cells) + " |\n|" + "---|" * len(cells)


def line(row: dict[str, Any]) -> str:
    costs, found = row["costs"], row["counts"]
    cells = [
        row["model"] + ("*" if row["star"] else ""),
        " vs ".join(found.get(compiler, "-") for compiler in COMPILERS),
        " vs ".join(f"{costs[compiler]['seconds']:.1f}" for compiler in COMPILERS),
        "{extra:.1f}x ({verified:.1f}x)".format(**costs["kerve"])
        + " vs {extra:.1f}x".format(**costs["tf2onnx"])
        if costs["kerve"]["weights"] > LARGE
        else "",
        f"{max(row[f'error {batch}'] for batch in BATCHES):.0e}",
    ]
    for batch in BATCHES:
        times = row[str(batch)]
        cells += [f"{times[who]:.2f}" if who in times else "-" for who in ("kerve", *RIVALS)]
        cells += [f"{gain(row, batch, rival):.2f}x" if rival in times else "-" for rival in RIVALS]
    return "| " + " | ".join(cells) + " |"


def misses(row: dict[str, Any]) -> list[str]:
    found = []
    name, costs = row["model"], row["costs"]
    for batch in BATCHES:
        gains = {rival: gain(row, batch, rival) for rival in RIVALS}
        found += [
            f"{name} at batch {batch} is {1 / ratio:.2f}x slower than {rival}"
            for rival, ratio in gains.items()
            if ratio < 0.97
        ]
        if name in FAST and gains["tf2onnx"] < 1.4:
            found.append(f"{name} at batch {batch} is {gains['tf2onnx']:.2f}x as fast as tf2onnx, not 1.4x")
    ours, theirs = (costs[compiler]["seconds"] for compiler in COMPILERS)
    if name == "ResNet50" and ours > 1.5 * theirs:
        found.append(f"{name} compiles in {ours / theirs:.2f}x the time of tf2onnx")
    if costs["kerve"]["weights"] > LARGE and costs["kerve"]["extra"] > 3:
        found.append(f"{name} takes {costs['kerve']['extra']:.1f}x its size in extra memory")
    return found


def precisions_of(name: str, precisions: Sequence[str], folder: Path) -> str:
    """Return one table row with the memory and time of compiling to each precision."""
    cells = [name]
    for precision in precisions:
        cost = compiled(f"kerve {precision}", name, folder / "model.onnx")
        cells.append("{verified:.2f}x, {seconds:.0f} s".format(**cost))
    return "| " + " | ".join((f"{name}, {cost['weights'] / 1e6:.0f} MB", *cells[1:])) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", help="comma-separated names; those of the bars by default")
    parser.add_argument("--everyday", action="store_true", help="the other everyday architectures")
    parser.add_argument(
        "--precisions", help="comma-separated; only extra memory and time of compiles to them"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--child", nargs=3, metavar=("COMPILER", "MODEL", "FILE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        compiler, name, file = arguments.child
        child(compiler, name, Path(file))
        return
    from conversion_models import EVERYDAY, HEAVY, LISTED

    if arguments.precisions:
        precisions = arguments.precisions.split(",")
        print("| model | " + " | ".join(precisions) + " |\n|" + "---|" * (1 + len(precisions)))
        with tempfile.TemporaryDirectory() as folder:
            for name in arguments.models.split(",") if arguments.models else HEAVY:
                print(precisions_of(name, precisions, Path(folder)), flush=True)
        return
    names = arguments.models.split(",") if arguments.models else EVERYDAY if arguments.everyday else LISTED
    missed = []
    print(header())
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            row = measure(name, arguments.threads, arguments.rounds, Path(folder))
            print(line(row), flush=True)
            missed += misses(row)
    for miss in missed:
        print("MISSED:", miss)


if __name__ == "__main__":
    main()

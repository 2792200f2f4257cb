"""Hardware that an artifact is compiled for, beside the portable graph: `--target tensorrt`.

TensorRT's engine becomes a second file, an ONNX model of one EPContext node that holds it
(https://onnxruntime.ai/docs/execution-providers/EP-Context-Design.html). It serves the device and the version
of TensorRT that it was made with; others build their own from `model.onnx`, which stays what it is.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from kerve.compiler.errors import TargetError

__all__ = ["COMPILED", "Target", "compile_for", "require"]

Target = Literal["portable", "tensorrt"]

#: The file beside `model.onnx`; the runtime looks for it.
COMPILED = "model.tensorrt.onnx"
PROVIDER = "TensorrtExecutionProvider"
# What must be there, and who brings it.
LIBRARIES = {
    "libcuda.so.1": "NVIDIA's driver",
    "libnvinfer.so.10": "TensorRT 10 (the package tensorrt)",
    "libnvonnxparser.so.10": "TensorRT 10 (the package tensorrt)",
}
# Rows of the largest batch that an engine takes, which is also the one that it is made for.
MOST_ROWS = 128
# TensorRT computes in a reduced precision where it is let to.
SWITCHES = {"float16": "trt_fp16_enable", "bfloat16": "trt_bf16_enable"}


def require(target: Target) -> None:
    """Raise TargetError, naming what is missing, unless a target can be compiled for on this machine."""
    if target == "portable":
        return
    import onnxruntime  # the options' help needs none

    missing = [f"{name} ({source})" for name, source in LIBRARIES.items() if not loadable(name)]
    if PROVIDER not in onnxruntime.get_available_providers():
        missing.insert(
            0, "a build of ONNX Runtime with TensorRT (onnxruntime-gpu in the place of onnxruntime)"
        )
    if missing:
        raise TargetError(
            f"--target {target} needs a machine like the one that will serve; missing here: "
            f"{', '.join(missing)}. Without it the artifact is portable, and `kerve serve --device tensorrt` "
            "builds the engine where it serves"
        )


def compile_for(target: Target, model: Path, precision: str) -> None:
    """Write what a target needs beside a model; TargetError when the target cannot compute it."""
    if target == "portable":
        return
    import onnxruntime

    file = model.with_name(COMPILED)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    for key, value in (
        ("ep.context_enable", "1"),
        ("ep.context_file_path", str(file)),
        ("ep.context_embed_mode", "1"),
    ):
        options.add_session_config_entry(key, value)
    # ONNX Runtime's Python module takes the switches of this provider as `True` and `False` only.
    switch = {SWITCHES[precision]: "True"} if precision in SWITCHES else {}
    providers = [(PROVIDER, {"device_id": "0", **switch, **profile(model)}), "CUDAExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(
            str(model), options, providers=[*providers, "CPUExecutionProvider"], enable_fallback=False
        )
    except Exception as error:
        raise TargetError(f"TensorRT cannot compile {model.name}: {error}") from error
    if PROVIDER not in session.get_providers():
        raise TargetError("ONNX Runtime cannot use TensorRT here; what it printed says why")
    if not file.exists():
        raise TargetError("TensorRT takes no part of this model; leave --target away")


def profile(model: Path) -> Mapping[str, str]:
    """Return the shapes of the smallest, the usual and the largest batch, as the provider takes them.

    TargetError where another dimension than the batch is open: an engine has to know how far it reaches.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    shapes = {each.name: each.shape for each in session.get_inputs()}
    for name, shape in shapes.items():
        if not all(isinstance(size, int) for size in shape[1:]):
            raise TargetError(
                f"--target tensorrt: input {name!r} has shape {shape}; expected no open dimension but the "
                "batch"
            )
    return {
        f"trt_profile_{which}_shapes": ",".join(
            f"{name}:{'x'.join(str(each) for each in (size if isinstance(size, int) else rows, *rest))}"
            for name, (size, *rest) in shapes.items()
        )
        for which, rows in (("min", 1), ("opt", MOST_ROWS), ("max", MOST_ROWS))
    }


def loadable(name: str) -> bool:
    """Return whether the dynamic linker finds a library."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True

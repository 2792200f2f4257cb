"""Hardware-specific compilation in addition to the portable graph: `--target tensorrt`.

The TensorRT engine is a second file, an ONNX model with one EPContext node that holds it
(https://onnxruntime.ai/docs/execution-providers/EP-Context-Design.html). It works only on the device and with
the version of TensorRT that it was built with; others build their own from `model.onnx`, which is unchanged.
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
# Required shared libraries, and where they come from.
LIBRARIES = {
    "libcuda.so.1": "NVIDIA's driver",
    "libnvinfer.so.10": "TensorRT 10 (the package tensorrt)",
    "libnvonnxparser.so.10": "TensorRT 10 (the package tensorrt)",
}
# The largest batch size that an engine accepts, which is also the size that it is optimized for.
MOST_ROWS = 128
# TensorRT computes in a reduced precision only if these are enabled.
SWITCHES = {"float16": "trt_fp16_enable", "bfloat16": "trt_bf16_enable"}


def require(target: Target) -> None:
    """Raise TargetError if this machine lacks what a target needs, naming what is missing."""
    if target == "portable":
        return
    import onnxruntime  # not imported for the options' help

    missing = [f"{name} ({source})" for name, source in LIBRARIES.items() if not loadable(name)]
    if PROVIDER not in onnxruntime.get_available_providers():
        missing.insert(0, "a build of ONNX Runtime with TensorRT (onnxruntime-gpu instead of onnxruntime)")
    if missing:
        raise TargetError(
            f"--target {target} needs a machine like the one that will serve; missing here: "
            f"{', '.join(missing)}. Without --target the artifact is portable, and "
            "`kerve serve --device tensorrt` builds the engine on the machine that serves"
        )


def compile_for(target: Target, model: Path, precision: str) -> None:
    """Write a target's file next to a model; raises TargetError if the target cannot compute the model."""
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
    # ONNX Runtime's Python module accepts only `True` and `False` for the flags of this provider.
    switch = {SWITCHES[precision]: "True"} if precision in SWITCHES else {}
    providers = [(PROVIDER, {"device_id": "0", **switch, **profile(model)}), "CUDAExecutionProvider"]
    try:
        session = onnxruntime.InferenceSession(
            str(model), options, providers=[*providers, "CPUExecutionProvider"], enable_fallback=False
        )
    except Exception as error:
        raise TargetError(f"TensorRT cannot compile {model.name}: {error}") from error
    if PROVIDER not in session.get_providers():
        raise TargetError("ONNX Runtime cannot use TensorRT here; its output above gives the reason")
    if not file.exists():
        raise TargetError("TensorRT supports no part of this model; omit --target")


def profile(model: Path) -> Mapping[str, str]:
    """Return the provider options with the minimum, optimal and maximum input shapes.

    Raises TargetError if another dimension than the batch is dynamic: an engine needs bounds for each.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
    shapes = {each.name: each.shape for each in session.get_inputs()}
    for name, shape in shapes.items():
        if not all(isinstance(size, int) for size in shape[1:]):
            raise TargetError(
                f"--target tensorrt: input {name!r} has shape {shape}; expected no dynamic dimension "
                "other than the batch"
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

"""GPU options of a model: the table [cuda] of `config.toml`, its defaults, and ONNX Runtime's options for it.

[cuda]
use_tf32 = true
gpu_mem_limit = 4_000_000_000
"""

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from kerve.runtime.errors import ArtifactError

__all__ = ["CudaOptions", "cuda_options"]

KERVE = "kerve"


def option(default: Any, text: str, *choices: str, own: bool = False) -> Any:
    """Declare an option of ONNX Runtime's CUDA provider, or, with `own`, of kerve."""
    return field(default=default, metadata={"help": text, "choices": choices, KERVE: own})


@dataclass(frozen=True, kw_only=True)
class CudaOptions:
    """GPU options of a model, with their defaults.

    Names and values are those of the CUDA provider
    (https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html), except kerve's own.
    """

    # Convolutions of Keras models are channels_last, which tensor cores prefer.
    prefer_nhwc: bool = option(True, "Compute convolutions in NHWC layout.")
    # A float32 model was verified in float32: TF32 only has ten bits of mantissa, like float16.
    use_tf32: bool = option(
        False,
        "Round the operands of float32 products to TF32; golden data is then compared with the tolerance of "
        "float16.",
    )
    # EXHAUSTIVE benchmarks every algorithm for every shape, which slows down startup too much.
    cudnn_conv_algo_search: str = option(
        "HEURISTIC", "How cuDNN selects an algorithm.", "HEURISTIC", "EXHAUSTIVE", "DEFAULT"
    )
    gpu_mem_limit: int = option(0, "Maximum bytes of each instance's arena; 0: the device's memory.")
    # Powers of two would reserve up to twice the memory used, which other models need.
    arena_extend_strategy: str = option(
        "kSameAsRequested", "How the arena grows.", "kSameAsRequested", "kNextPowerOfTwo"
    )
    do_copy_in_default_stream: bool = option(True, "Let ONNX Runtime's copies wait for computation.")
    enable_cuda_graph: bool = option(
        True, "Capture a CUDA graph for each batch size, if the model's graph allows it."
    )
    buffers: int = option(
        2,
        "Batches in flight on each instance: with 2, one is copied while another is computed; 0: plain runs.",
        own=True,
    )

    def provider_options(self, index: int) -> dict[str, str]:
        """Return the CUDA provider's options for a device, in ONNX Runtime's format."""
        given = {each.name: getattr(self, each.name) for each in fields(self) if not each.metadata[KERVE]}
        if not self.gpu_mem_limit:
            del given["gpu_mem_limit"]
        return {"device_id": str(index)} | {
            name: str(int(value)) if isinstance(value, bool) else str(value) for name, value in given.items()
        }


def cuda_options(file: Path, table: Mapping[str, Any]) -> CudaOptions:
    """Return the options in a table of a file; raises ArtifactError for an invalid key or value."""
    known = {each.name: each for each in fields(CudaOptions)}
    for key, value in table.items():
        if key not in known:
            raise ArtifactError(f"{file}: cuda: unknown option {key!r}; expected {', '.join(known)}")
        default, choices = known[key].default, known[key].metadata["choices"]
        assert default is not MISSING
        if type(value) is not type(default) or (choices and value not in choices):
            expected = f"one of {', '.join(choices)}" if choices else type(default).__name__
            raise ArtifactError(f"{file}: cuda: {key}: expected {expected}, got {value!r}")
        if isinstance(value, int) and value < 0:
            raise ArtifactError(f"{file}: cuda: {key}: expected 0 or more, got {value}")
    return CudaOptions(**table)

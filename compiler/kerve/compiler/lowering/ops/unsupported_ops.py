"""Operations of `keras.ops` that have no ONNX form, each with the reason and a remedy."""

from __future__ import annotations

from typing import Any, NoReturn

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import Handler, Handlers

__all__ = ["HANDLERS", "REFUSED"]

HANDLERS = Handlers()

_DECOMPOSITION = (
    "ONNX has no matrix decomposition of this kind",
    "compute it outside the served model, or use `qr`, `pinv`, `lstsq`, `solve`, `inv` or `cholesky`",
)
_COMPLEX = (
    "ONNX Runtime does not compute with complex numbers",
    "keep the real and the imaginary part as two tensors, as `fft` and `stft` return them",
)
_BITS = ("ONNX cannot access the bits of a number", "compute it outside the served model")

#: Unsupported operations: (the reason, what to do).
REFUSED: dict[str, tuple[str, str]] = {
    "image.ElasticTransform": (
        "it distorts images at random, which is for training",
        "leave it out of the served model",
    ),
    "linalg.Eig": _DECOMPOSITION,
    "linalg.Eigh": _DECOMPOSITION,
    "linalg.JVP": ("ONNX does not differentiate", "write the derivative with other operations"),
    "linalg.LuFactor": _DECOMPOSITION,
    "math.ViewAsComplex": _COMPLEX,
    "math.ViewAsReal": _COMPLEX,
    "nn.CTCLoss": (
        "it is a loss for training",
        "decode with `ctc_decode` and compare outside the served model",
    ),
    "nn.Polar": _COMPLEX,
    "numpy.Nextafter": _BITS,
    "numpy.View": _BITS,
}


def _refusal(name: str) -> Handler:
    what, remedy = REFUSED[name]

    def handler(g: Lowering, *_: Any, **__: Any) -> NoReturn:
        raise g.refuse(f"operation {name.partition('.')[2]}: {what}", remedy)

    return handler


for _name in REFUSED:
    HANDLERS.add(_name, _refusal(_name), typed=True)

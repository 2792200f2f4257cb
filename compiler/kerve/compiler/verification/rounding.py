"""Estimation of rounding errors: how far a model's outputs move if its weights change in their last bit.

The outputs of a deep network, or small differences of large sums, have fewer significant digits than their
type, in the source as well as in the compiled model. Randomly perturbing the last bit of what is computed and
observing the result is Monte Carlo arithmetic (Parker, 1997); here the weights are perturbed, since each of
them is a factor of rounded results.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.verification.compare import SMALLEST
from kerve.compiler.verification.runner import Runner

__all__ = ["LEEWAY", "MOST", "rounding"]

#: The difference allowed between two ways to round, as a multiple of the outputs' movement.
LEEWAY = 8.0

#: The largest movement of an output, as a share of its range; beyond it, agreement would prove nothing.
MOST = 1e-4

_ROUNDS = 3

#: Operators whose constants are factors and summands, never sizes or thresholds.
_ARITHMETIC = frozenset(
    {"Add", "Div", "Mul", "Sub", "Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul", "Gather", "PRelu"}
    | {"Attention", "BatchNormalization", "LayerNormalization", "RMSNormalization", "GRU", "LSTM", "RNN"}
)


def rounding(
    path: Path, data: Iterable[Mapping[str, NDArray[Any]]], smallest: float = SMALLEST
) -> dict[str, float]:
    """Return the largest movement of each float output of an ONNX file, as a share of its range.

    A range is taken as at least `smallest`.
    """
    runner, known = Runner(path), list(data)
    answers = [runner(inputs) for inputs in known]
    moved: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(_ROUNDS):
            other = Runner(_perturbed(path, Path(folder) / str(seed), seed))
            for inputs, before in zip(known, answers, strict=True):
                for name, array in other(inputs).items():
                    if array.dtype.kind == "f":
                        moved[name] = max(moved.get(name, 0.0), _movement(before[name], array, smallest))
    return moved


def _perturbed(path: Path, folder: Path, seed: int) -> Path:
    """Write the model with every weight changed by at most a unit in its last place."""
    folder.mkdir()
    model, rng = ir.load(path), np.random.default_rng(seed)
    for value in model.graph.initializers.values():
        if _is_weight(value):
            array = value.const_value.numpy()  # type: ignore[union-attr]  # an initializer has a value
            steps = rng.uniform(-1.0, 1.0, array.shape) * np.finfo(array.dtype).eps
            value.const_value = ir.tensor((array * (1.0 + steps)).astype(array.dtype), name=value.name)
    ir.save(model, folder / "model.onnx", external_data="weights")
    return folder / "model.onnx"


def _is_weight(value: ir.Value) -> bool:
    floats = value.const_value is not None and value.const_value.dtype in (
        ir.DataType.FLOAT,
        ir.DataType.DOUBLE,
    )
    return floats and all(use.node.op_type in _ARITHMETIC for use in value.uses())


def _movement(before: NDArray[Any], after: NDArray[Any], smallest: float) -> float:
    both = np.isfinite(before) & np.isfinite(after)
    step = np.abs(np.subtract(after, before, dtype=np.float64, where=both, out=np.zeros(before.shape)))
    size = np.abs(np.where(both, before, 0.0))
    return float(step.max(initial=0.0) / float(size.max(initial=smallest)))

"""The table of precisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from kerve.compiler.precision import bfloat16, float16, int4_weights, int8, int8_dynamic
from kerve.compiler.precision.probing import Range

__all__ = ["PRECISIONS", "Measure", "Precision"]

#: Returns the ranges of values of the float32 graph, by name.
Measure = Callable[[Sequence[str]], Mapping[str, Range]]


@dataclass(frozen=True)
class Precision:
    """A way to compute a model with fewer bits."""

    #: Rewrites a model in place.
    reduce: Callable[[ir.Model, Measure], None]
    #: Relative size of one rounding step.
    step: float
    #: What to try if the loss is too large.
    remedy: str
    #: Whether activations are quantized in ranges that were measured beforehand.
    calibrated: bool = False


PRECISIONS: Mapping[str, Precision] = {
    "float16": Precision(
        float16.narrow,
        step=2.0**-10,
        remedy="--calibration with representative inputs, or --precision float32; other precisions lose more",
    ),
    "bfloat16": Precision(
        lambda model, _: bfloat16.narrow(model),
        step=2.0**-7,
        remedy="--precision float16, which is more exact",
    ),
    "int8": Precision(
        int8.quantize,
        step=2.0**-7,
        remedy="--calibration with representative inputs, or --precision float16",
        calibrated=True,
    ),
    "int8-dynamic": Precision(
        lambda model, _: int8_dynamic.quantize(model),
        step=2.0**-7,
        remedy="--precision int8 with --calibration, or --precision float16",
    ),
    "int4-weights": Precision(
        lambda model, _: int4_weights.quantize(model),
        step=2.0**-3,
        remedy="--precision int8-dynamic, or --precision float16",
    ),
}

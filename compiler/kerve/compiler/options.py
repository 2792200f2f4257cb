"""Options of compile and verify, each written once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, Self, get_args

import click

from kerve.cli.options import EXISTING_FILE, FOLDER, option
from kerve.compiler import budgets, opsets
from kerve.compiler.evaluation import identifiers
from kerve.compiler.sources.options import LoadOptions
from kerve.compiler.targets import Target

__all__ = ["CompileOptions", "Precision", "VerifyOptions"]

_OLDEST_OPSET_INT4 = 21  # the first whose DequantizeLinear supports INT4 and blocked quantization

Precision = Literal["float32", "float16", "bfloat16", "int8", "int8-dynamic", "int4-weights"]


@dataclass(frozen=True, kw_only=True)
class VerifyOptions(LoadOptions):
    """How a source is loaded, and what data it is compared on."""

    data: Path | None = option(
        None,
        type=EXISTING_FILE,
        help="Inputs (.npz, arrays named like the model's inputs) to verify on, in addition to seeded data. "
        "A reduced precision is evaluated on them, and on labels if present: an array y, or one named like "
        "an output.",
    )

    @classmethod
    def of(cls, options: VerifyOptions) -> Self:
        """Return these options from a command's larger set."""
        return cls(**{field.name: getattr(options, field.name) for field in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class CompileOptions(VerifyOptions):
    """How a source is compiled; the same source and options produce the same bytes."""

    opset: int = option(
        opsets.DEFAULT_OPSET,
        type=opsets.OPSET,
        help="Version of the ONNX operator set, 17 to the newest that the installed ONNX Runtime loads.",
    )
    precision: Precision = option(
        "float32",
        help="Precision of weights and computation; inputs and outputs keep their types. float16: between "
        "products; bfloat16: weights only; int8: weights and activations, with ranges measured on "
        "--calibration; int8-dynamic: the same, with ranges measured in each batch; int4-weights: matrices, "
        "in blocks of 32.",
    )
    calibration: Path | None = option(
        None,
        type=EXISTING_FILE,
        help="Representative inputs (.npz, a few hundred rows) to measure the ranges of int8 on; by default "
        "--data, or else random inputs.",
    )
    max_drop: float | None = option(
        None,
        type=click.FloatRange(min=0.0),
        help="Largest loss allowed for a reduced precision. With labels: of accuracy (0.01 is one row in a "
        "hundred), or growth of the RMS error in standard deviations of the labels. Without: the share of "
        "rows whose predicted class changes, or the relative RMS error of other outputs. Defaults for "
        f"accuracy, class changes and error: {budgets.describe()}.",
    )
    target: Target = option(
        "portable",
        help="tensorrt adds a TensorRT engine for this machine's GPU, ready to serve; other machines build "
        "their own. It needs onnxruntime-gpu and TensorRT, and isn't reproducible byte by byte.",
    )
    loss: tuple[str, ...] = option(
        (),
        help="Loss for evaluation, instead of the one the source was compiled with: a name from keras.losses "
        "or --import, with arguments, as 'SparseCategoricalCrossentropy(from_logits=True)'; prefixed with "
        "OUTPUT= if there are several outputs.",
    )
    metric: tuple[str, ...] = option(
        (), help="Metric for evaluation, in the form of --loss: 'accuracy', 'AUC(curve=\"PR\")'."
    )
    explain: bool = option(
        False, help="Print what each optimization pass did, and why it left other nodes unchanged."
    )
    dump: Path | None = option(
        None, type=FOLDER, help="Folder to write the graph to after each optimization pass."
    )

    def __post_init__(self) -> None:
        opsets.check(self.opset)
        for each in (*self.loss, *self.metric):
            identifiers.parse(each)
        if self.precision not in get_args(Precision):
            raise ValueError(
                f"precision is {self.precision!r}; expected one of {', '.join(get_args(Precision))}"
            )
        if self.max_drop is not None and not self.max_drop >= 0.0:
            raise ValueError(f"max_drop is {self.max_drop}; expected a share, 0 or more")
        if self.precision == "int4-weights" and self.opset < _OLDEST_OPSET_INT4:
            raise ValueError(
                f"int4-weights needs operator set {_OLDEST_OPSET_INT4} or newer, got --opset {self.opset}"
            )

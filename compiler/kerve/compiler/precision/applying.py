"""The compile stage that reduces the precision: `apply`."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from kerve.artifact.v1 import manifest_pb2
from kerve.compiler import packaging
from kerve.compiler.options import CompileOptions
from kerve.compiler.precision.assessment import Assessment, assess
from kerve.compiler.precision.data import Data
from kerve.compiler.precision.precisions import PRECISIONS
from kerve.compiler.precision.probing import batches
from kerve.compiler.precision.reduction import reduce, remaining
from kerve.compiler.verification import (
    Dataset,
    Reference,
    ReferenceRun,
    VerificationResult,
    output_traits,
    run_reference,
)

__all__ = ["ReducedModel", "apply"]

#: Rows of the user's inputs that are kept in the artifact.
_GOLDEN_ROWS = 8

#: The share of weights in float32 above which there is a warning.
_WARNING_SHARE = 0.1

#: Advice for weights in types that are not reduced.
_WIDER = "only weights in float32 are reduced: give the model the dtype policy float32"
_UNQUANTIZED = "if Keras quantized the model, compile it without that"


@dataclass(frozen=True)
class ReducedModel:
    """A model in a reduced precision, within its budget."""

    model: ir.Model
    #: The comparison with the source.
    verified: VerificationResult
    record: manifest_pb2.Reduction
    #: Warnings, as sentences for the user.
    warnings: tuple[str, ...]

    @property
    def worst(self) -> float:
        """The largest drop of any output."""
        return max((loss.drop for loss in self.record.losses), default=0.0)


def apply(
    model: ir.Model, path: Path, verified: VerificationResult, reference: Reference, options: CompileOptions
) -> ReducedModel:
    """Replace the float32 model in the file at `path` by one in the chosen precision.

    `reference` is the source. Raises `AccuracyBudgetError` if it loses more than allowed; the file is then
    unchanged.
    """
    data = Data.of(model, verified.answered[0].dataset, options.data, options.calibration)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        float32 = packaging.save_apart(model, Path(folder) / "float32")
        reduced = reduce(model, float32, options.precision, data.measured)
        apart = packaging.save_apart(reduced, Path(folder) / "reduced")
        answered = _answered(model, data, verified, reference)
        assessment = assess(float32, apart, options.precision, data, answered, options.max_drop)
        packaging.save_model(reduced, Path(folder))
        packaging.move_model(Path(folder), path.parent)
    return ReducedModel(
        reduced,
        assessment.verified,
        _record(assessment, data, PRECISIONS[options.precision].calibrated),
        tuple(_warnings(model, reduced, options.precision, data)),
    )


def _answered(
    model: ir.Model, data: Data, verified: VerificationResult, reference: Reference
) -> Sequence[ReferenceRun]:
    """Return the runs that the model is compared with its source on, now and when it is served.

    Only those on the user's inputs, if there are any: random ones may be outside the measured ranges.
    """
    if data.assessed.origin != "user":  # corner cases are outside the measured ranges
        return [known for known in verified.answered if known.ordinary]
    inputs = next(batches(model, data.assessed, _GOLDEN_ROWS))
    sizes = {**data.assessed.sizes}
    if "batch" in sizes:
        sizes["batch"] = min(sizes["batch"], _GOLDEN_ROWS)
    few = Dataset("user", inputs, sizes)
    return [
        ReferenceRun(few, run_reference(reference, inputs)),
        *(known for known in verified.answered if known.dataset.origin == "user"),
    ]


def _record(assessment: Assessment, data: Data, calibrated: bool) -> manifest_pb2.Reduction:
    return manifest_pb2.Reduction(
        calibration=data.measured.origin if calibrated else "",
        losses=[
            manifest_pb2.Reduction.Loss(
                output=loss.output,
                measure=loss.measure,
                data=data.assessed.origin,
                rows=loss.rows,
                drop=_rounded(loss.drop),
                allowed=assessment.budget[loss.measure],
                before=None if loss.before is None else _rounded(loss.before),
                after=None if loss.after is None else _rounded(loss.after),
            )
            for loss in assessment.losses
        ],
        layers=[
            manifest_pb2.Reduction.LayerLoss(
                layer=each.layer, taken=_rounded(each.taken), given=_rounded(each.given)
            )
            for each in assessment.layers
        ],
    )


def _rounded(number: float) -> float:
    return float(f"{number:.3g}")


def _warnings(model: ir.Model, reduced: ir.Model, precision: str, data: Data) -> Iterator[str]:
    if PRECISIONS[precision].calibrated and data.measured.origin != "user":
        yield (
            f"the ranges of {precision} were measured on random inputs; "
            "give representative inputs with --calibration FILE.npz"
        )
    if data.assessed.origin != "user":
        yield (
            f"the loss of {precision} was measured on random inputs; "
            "give inputs, preferably with labels, with --data FILE.npz"
        )
    for name, basis in output_traits(model).items():
        if basis.drawn:
            yield f"the loss of {precision} was not measured on output '{name}', which is random"
    stay = remaining(model, reduced, precision)
    if stay.share > _WARNING_SHARE:
        by = ", ".join(f"{count} {operator}" for operator, count in sorted(stay.readers.items()))
        types = " and ".join(sorted(stay.types))
        advice = "" if types == "float32" else f"; {_WIDER}"
        yield (
            f"{precision} does not support {stay.share:.0%} of the weights; "
            f"they stay in {types} (read by {by}){advice}"
        )
    elif _operators(model) == _operators(reduced) and _weight_types(model) == _weight_types(reduced):
        yield f"{precision} changes nothing: it has no float32 weights; {_UNQUANTIZED}"
    operators = set(_operators(reduced))
    if "ConvInteger" in operators:
        yield f"convolutions in {precision} are small but slow on CPUs; int8 is both small and fast"
    if "DynamicQuantizeLinear" in operators:
        yield f"{precision} measures ranges in each batch: outputs depend slightly on the batch's other rows"


def _operators(model: ir.Model) -> list[str]:
    return [node.op_type for node in model.graph]


def _weight_types(model: ir.Model) -> Counter[ir.DataType | None]:
    return Counter(value.dtype for value in model.graph.initializers.values())

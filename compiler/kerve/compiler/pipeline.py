"""The stages of a compile and of a later verification."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import onnx_ir as ir

from kerve.artifact.v1 import manifest_pb2
from kerve.compiler import packaging, precision, sources, targets
from kerve.compiler.data_signature import signature_of
from kerve.compiler.errors import VerificationError
from kerve.compiler.evaluation.compiling import CompiledEvaluation, EvaluationContext, compile_evaluation
from kerve.compiler.evaluation.objective import Objective
from kerve.compiler.evaluation.overrides import apply_overrides
from kerve.compiler.lowering import Lowered
from kerve.compiler.name_scopes import name_scopes_restored
from kerve.compiler.options import CompileOptions, VerifyOptions
from kerve.compiler.pass_reports import observer
from kerve.compiler.passes import optimize
from kerve.compiler.passes.name_rows import name_apart
from kerve.compiler.precision.data import labels_in
from kerve.compiler.progress import Listener, stage
from kerve.compiler.report import save_report
from kerve.compiler.sources import custom
from kerve.compiler.sources.base import KerasSource, Source
from kerve.compiler.verification import (
    Divergence,
    Reference,
    VerificationResult,
    diagnose,
    failures,
    first_changed,
    from_file,
    verify,
)

__all__ = ["build", "check"]


@name_scopes_restored()
def build(
    source: Any,
    folder: Path,
    name: str,
    options: CompileOptions,
    listener: Listener,
    custom_objects: Mapping[str, Any] | None = None,
    input_signature: Any = None,
) -> None:
    """Write the artifact of `source` to an empty folder.

    Raises the errors of `kerve.compiler.errors`; the folder's contents are then incomplete.
    """
    targets.require(options.target)
    with stage("load", listener) as progress:
        origin = _opened(source, options, custom_objects, input_signature)
        progress.detail = origin.description

    with stage("lower", listener) as progress:
        lowered = origin.lower(options.opset)
        progress.detail = _size(lowered)

    with stage("optimize", listener) as progress:
        model = optimize(lowered.model, observer(options, listener))
        progress.detail = f"{len(model.graph)} nodes"

    with stage("verify", listener) as progress:
        path = packaging.save_model(model, folder)
        reference = origin.reference(lowered)
        verified = _verify(model, path, reference, options.data)
        _require_equal(verified, path, origin, options.opset)
        if name_apart(model, verified.apart):
            packaging.save_model(model, folder)
        proven = verified
        progress.detail = f"{len(verified.checks)} comparisons, largest error {verified.worst:.2g}"

    reduced = None
    if options.precision != "float32":
        with stage("reduce", listener) as progress:
            reduced = precision.apply(model, path, verified, reference, options)
            model, verified = reduced.model, reduced.verified
            progress.detail = f"{options.precision}, largest drop {reduced.worst:.2g}"

    evaluated = CompiledEvaluation(None, ())
    if not isinstance(origin, KerasSource) and (options.loss or options.metric):
        evaluated = CompiledEvaluation(
            None, ("--loss and --metric are ignored: the source is not a Keras model",)
        )
    context, objective = _evaluation_context(origin, lowered, model, verified, options, custom_objects)
    if context is not None and objective is not None:
        with stage("evaluate", listener) as progress:
            evaluated = compile_evaluation(context, objective, folder)
            progress.detail = _metrics(evaluated)

    if options.target != "portable":
        with stage("target", listener) as progress:
            targets.compile_for(options.target, path, options.precision)
            progress.detail = options.target

    with stage("package", listener) as progress:
        signature = packaging.signature_of(model)
        packaging.save_golden(verified, signature, folder)
        manifest = manifest_pb2.Manifest(
            name=name,
            signature=signature,
            source=origin.record,
            toolchain=packaging.toolchain(),
            opset=options.opset,
            precision=options.precision,
            reduction=None if reduced is None else reduced.record,
            verification=packaging.verification_of(verified.checks),
            state=packaging.state_of(model, lowered.state),
            evaluation=evaluated.record,
            warnings=[
                *origin.warnings,
                *lowered.warnings,
                *proven.remarks,
                *(reduced.warnings if reduced else ()),
                *evaluated.warnings,
            ],
        )
        save_report(model, manifest, folder)
        packaging.save_manifest(manifest, folder)
        progress.detail = f"{sum(file.stat().st_size for file in folder.iterdir()) / 1e6:.1f} MB"


@name_scopes_restored()
def check(
    source: Any,
    artifact: Path,
    options: VerifyOptions,
    listener: Listener,
    custom_objects: Mapping[str, Any] | None = None,
    input_signature: Any = None,
) -> dict[str, Any]:
    """Verify an artifact against a source; returns the fields of `Comparison` as plain data."""
    with stage("load", listener) as progress:
        origin = _opened(source, options, custom_objects, input_signature)
        progress.detail = origin.description

    path = artifact / packaging.MODEL_FILE
    with stage("lower", listener) as progress:
        model = packaging.load_model(path)
        opset = model.opset_imports[""]
        lowered = origin.lower(opset)
        progress.detail = f"{len(lowered.model.graph)} nodes"
    _require_same_names(model, lowered.model)

    manifest = packaging.load_manifest(artifact)
    with stage("verify", listener) as progress:
        reference, divergence = origin.reference(lowered), None
        losses: Sequence[tuple[precision.Loss, float]] = ()
        if manifest is not None and manifest.HasField("reduction"):
            golden = packaging.load_golden(model, artifact)
            rechecked = precision.recheck_reduced(path, manifest, golden, reference, options.data)
            verified, losses = rechecked.verified, rechecked.losses
            if not rechecked.passed:
                divergence = _changed(verified, path, origin, opset, manifest.reduction)
        else:
            verified = _verify(model, path, reference, options.data)
            if not verified.passed:
                divergence = _changed(verified, path, origin, opset) or _divergence(
                    verified, path, origin, opset
                )
        progress.detail = f"{len(verified.checks)} comparisons, largest error {verified.worst:.2g}"

    return {
        "checks": [dataclasses.asdict(each) | {"passed": each.passed} for each in verified.checks],
        "losses": [
            dataclasses.asdict(loss) | {"text": str(loss), "allowed": allowed, "passed": loss.drop <= allowed}
            for loss, allowed in losses
        ],
        "divergence": "" if divergence is None else str(divergence),
        "altered": [] if manifest is None else packaging.altered_files(manifest, artifact),
        "remarks": list(verified.remarks),
    }


def _opened(
    source: Any,
    options: VerifyOptions,
    custom_objects: Mapping[str, Any] | None,
    input_signature: Any,
) -> Source:
    """Load a source; without `input_signature`, it is inferred from the data if the model needs one."""
    signature = signature_of(source, options.data) if input_signature is None else input_signature
    return sources.load(source, options, custom_objects, signature, options.data)


def _require_same_names(model: ir.Model, of_source: ir.Model) -> None:
    """Raise `VerificationError` if the artifact was compiled from another model."""
    for what in ("inputs", "outputs"):
        got, want = ([str(each.name) for each in getattr(m.graph, what)] for m in (model, of_source))
        if sorted(got) != sorted(want):
            raise VerificationError(
                f"the artifact's {what} are {', '.join(got)}, the source's are {', '.join(want)}; "
                "it was compiled from another model"
            )


def _evaluation_context(
    origin: Source,
    lowered: Lowered,
    model: ir.Model,
    verified: VerificationResult,
    options: CompileOptions,
    custom_objects: Mapping[str, Any] | None,
) -> tuple[EvaluationContext | None, Objective | None]:
    """Return what an evaluation is compiled from, or None where the source has none."""
    if not isinstance(origin, KerasSource):
        return None, None
    named = options.loss or options.metric
    compiled = Objective.of(origin.model, adds_losses=lowered.evaluation_needs_inputs)
    own = custom.objects(options.import_, custom_objects) if named else {}
    outputs = keras.tree.flatten(lowered.outputs)
    objective = apply_overrides(compiled, options.loss, options.metric, own, outputs)
    user = None
    if options.data is not None:
        dataset = from_file(model, options.data)
        user = (dataset, labels_in(model, options.data, dataset))
    like = verified.answered[0].dataset
    return EvaluationContext(origin, lowered, model, like, user), objective


def _size(lowered: Lowered) -> str:
    """Return the number of nodes, and of layers traced by TensorFlow: those run slower than handled ones."""
    count = len([layer for layer in lowered.traced if layer])
    traced = f", {count} layer{'s' * (count > 1)} traced by TensorFlow" if count else ""
    return f"{len(lowered.model.graph)} nodes{traced}"


def _metrics(evaluated: CompiledEvaluation) -> str:
    if evaluated.record is None:
        return "none; see the warnings"
    return ", ".join(metric.name for metric in evaluated.record.metrics)


def _verify(model: ir.Model, path: Path, reference: Reference, data: Path | None) -> VerificationResult:
    return verify(model, path, reference, [] if data is None else [from_file(model, data)])


def _require_equal(verified: VerificationResult, path: Path, origin: Source, opset: int) -> None:
    if verified.passed:
        return
    divergence = _divergence(verified, path, origin, opset)
    clauses = [
        *failures(verified.checks),
        *([] if divergence is None else [str(divergence)]),
        *verified.remarks,
    ]
    raise VerificationError("the compiled model differs from its source: " + "; ".join(clauses))


def _divergence(verified: VerificationResult, path: Path, origin: Source, opset: int) -> Divergence | None:
    """Find the first layer that differs: in the unoptimized graph, whose nodes each belong to one layer,
    or else in the optimized one.
    """
    lowered = origin.lower(opset)
    layered = origin.layered(lowered)
    if layered is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        plain = packaging.save_model(lowered.model, Path(folder))
        inputs = verified.differing
        return diagnose(layered, plain, inputs, fused=False) or diagnose(layered, path, inputs, fused=True)


def _changed(
    verified: VerificationResult,
    path: Path,
    origin: Source,
    opset: int,
    reduction: manifest_pb2.Reduction | None = None,
) -> Divergence | None:
    """Find the first layer in which an artifact differs from its newly compiled source."""
    with tempfile.TemporaryDirectory() as folder:
        anew = packaging.save_model(optimize(origin.lower(opset).model), Path(folder))
        if reduction is None:
            return first_changed(anew, path, verified.differing)
        return precision.first_changed_layer(anew, path, reduction, verified.differing)

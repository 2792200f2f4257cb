"""The stages of a compile, in order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerve.artifact.v1 import manifest_pb2
from kerve.compiler import packaging, sources
from kerve.compiler.lowering import lower
from kerve.compiler.options import CompileOptions
from kerve.compiler.passes import optimize
from kerve.compiler.progress import Listener, stage
from kerve.compiler.verification import verify

__all__ = ["build"]


def build(
    source: Any,
    folder: Path,
    name: str,
    options: CompileOptions,
    listener: Listener,
    custom_objects: Mapping[str, Any] | None = None,
) -> None:
    """Fill an empty folder with the artifact of `source`.

    Raises the errors of `kerve.compiler.errors`; what is in the folder then is of no use.
    """
    with stage("load", listener) as progress:
        origin = sources.load(source, options, custom_objects)
        progress.detail = origin.description

    with stage("lower", listener) as progress:
        lowered = lower(origin.model, opset=options.opset, input_signature=origin.input_signature)
        progress.detail = f"{len(lowered.model.graph)} nodes"

    with stage("optimize", listener) as progress:
        model = optimize(lowered.model)
        progress.detail = f"{len(model.graph)} nodes"

    with stage("verify", listener) as progress:
        path = packaging.save_model(model, folder)
        verified = verify(model, path, origin.reference(lowered))
        worst = max((check.max_abs_error for check in verified.checks), default=0.0)
        progress.detail = f"{len(verified.checks)} comparisons, largest error {worst:.2g}"

    with stage("package", listener) as progress:
        packaging.save_golden(verified, folder)
        packaging.save_manifest(
            manifest_pb2.Manifest(
                name=name,
                signature=packaging.signature_of(model, origin.labels),
                source=origin.record,
                opset=options.opset,
                precision="float32",
                verification=packaging.verification_of(verified.checks),
                warnings=[*origin.warnings, *lowered.warnings],
            ),
            folder,
        )
        progress.detail = f"{sum(file.stat().st_size for file in folder.iterdir()) / 1e6:.1f} MB"

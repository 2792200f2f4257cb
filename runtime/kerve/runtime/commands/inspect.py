"""`kerve inspect`."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from kerve.artifact.v1 import manifest_pb2
from kerve.cli import options as cli
from kerve.cli.tables import print_table, print_warning
from kerve.runtime.artifact import Artifact, read_artifact
from kerve.runtime.onnx_file import count_operators
from kerve.runtime.repository import versions_in
from kerve.runtime.signature import Signature, show_shape

__all__ = ["command"]

# Maximum number of layers whose loss of precision is shown.
WORST = 10


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `kerve inspect`."""

    artifact: Path = cli.argument(
        help="Folder of a version, or of a model for its newest version.", type=cli.EXISTING_FOLDER
    )


@cli.command(example="kerve inspect models/digits/1")
def command(options: Options) -> None:
    """Show an artifact's inputs, outputs, operators and size, and the results of its verification.

    The artifact's report.html shows the same, with a picture of the graph.
    """
    artifact = read_artifact(newest(options.artifact))
    signature, operators = signature_of(artifact), count_operators(artifact.model_file)
    print_facts(artifact)
    print_signature(signature)
    print_operators(operators)
    if artifact.manifest is not None:
        print_verification(artifact.manifest.verification)
        if artifact.manifest.HasField("reduction"):
            print_reduction(artifact.manifest.reduction)
        for warning in artifact.manifest.warnings:
            print_warning(warning)


def newest(folder: Path) -> Path:
    """Return the folder of the newest version, if a model's folder is given."""
    versions = versions_in(folder)
    return folder / str(versions[-1]) if versions else folder


def signature_of(artifact: Artifact) -> Signature:
    """Return the manifest's signature, or ONNX Runtime's for a plain ONNX file."""
    if artifact.signature is not None:
        return artifact.signature
    from kerve.runtime.model import signature_of_session  # imports ONNX Runtime
    from kerve.runtime.session import Session

    return signature_of_session(Session(artifact.model_file, threads=1))


def print_facts(artifact: Artifact) -> None:
    """Print general facts about the artifact."""
    files = [file for file in artifact.path.rglob("*") if file.is_file()]
    facts = {
        "path": str(artifact.path),
        "model": show_size(sum(file.stat().st_size for file in files if file.name.startswith("model.onnx"))),
        "all files": show_size(sum(file.stat().st_size for file in files)),
    }
    manifest = artifact.manifest
    if manifest is None:
        facts["manifest"] = "none: a plain ONNX file, not verified by kerve"
    else:
        source = manifest.source
        facts |= {
            "source": " ".join(filter(None, (source.kind, source.file_name))),
            "source SHA-256": source.sha256,
            "Keras of the source": source.keras_version,
            "opset": str(manifest.opset),
            "precision": manifest.precision,
            "made with": ", ".join(
                f"{name} {version}" for name, version in sorted(manifest.toolchain.items())
            ),
            "stateful": "yes" if manifest.state else "",
            "needs": ", ".join(f"{each.domain} ({each.library})" for each in manifest.extensions),
        }
    print_table(artifact.name, ("fact", "value"), ((key, value) for key, value in facts.items() if value))


def print_signature(signature: Signature) -> None:
    """Print inputs and outputs."""
    rows = [
        (
            kind,
            spec.name,
            spec.datatype,
            show_shape(spec.shape),
            ", ".join(spec.labels[:5]) + (", ..." if len(spec.labels) > 5 else ""),
        )
        for kind, specs in (("input", signature.inputs), ("output", signature.outputs))
        for spec in specs
    ]
    title = "signature, batched" if signature.batched else "signature, not batched"
    print_table(title, ("kind", "name", "datatype", "shape", "classes"), rows)


def print_operators(counts: Counter[str]) -> None:
    """Print the count of each operator in the graph."""
    rows = [(operator, str(count)) for operator, count in counts.most_common()]
    print_table(f"{counts.total()} operators", ("operator", "count"), rows)


def print_verification(verification: manifest_pb2.Verification) -> None:
    """Print the errors measured against the source model."""
    rows = [
        (
            check.output,
            check.data,
            ", ".join(
                [str(check.batch_size), *(f"{key}={size}" for key, size in sorted(check.dimensions.items()))]
            ),
            *(("by distribution", "", "", "", "") if check.by_distribution else show_errors(check)),
        )
        for check in verification.checks
    ]
    columns = ("output", "data", "batch", "max abs", "mean abs", "max rel", "NaN", "allowed rel, abs")
    print_table("verification against the source model", columns, rows)


def show_errors(check: manifest_pb2.Verification.Check) -> tuple[str, ...]:
    """Format the measured errors and the tolerance."""
    return (
        f"{check.max_abs_error:.2e}",
        f"{check.mean_abs_error:.2e}",
        f"{check.max_rel_error:.2e}",
        str(check.nan_mismatches),
        f"{check.rtol:.0e}, {check.atol:.0e}",
    )


def print_reduction(reduction: manifest_pb2.Reduction) -> None:
    """Print the loss due to the reduced precision, and the layers with the greatest errors."""
    rows = [
        (loss.output, loss.measure, loss.data, str(loss.rows), f"{loss.drop:.3g}", f"{loss.allowed:g}")
        for loss in reduction.losses
    ]
    columns = ("output", "measure", "data", "rows", "loss", "allowed")
    print_table("loss due to the reduced precision", columns, rows)
    worst = reduction.layers[:WORST]
    layers = [(each.layer, f"{each.taken:.2e}", f"{each.given:.2e}") for each in worst]
    print_table(
        f"relative error of {len(worst)} of {len(reduction.layers)} layers, largest first",
        ("layer", "input", "output"),
        layers,
    )


def show_size(size: float) -> str:
    """Format a number of bytes with a suitable unit."""
    for unit in ("bytes", "KB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"

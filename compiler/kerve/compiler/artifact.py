"""A compiled model on disk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from google.protobuf import json_format

from kerve.artifact.v1.manifest_pb2 import Manifest, TensorSpec
from kerve.cli.html import captioned, table

__all__ = ["Artifact"]


@dataclass(frozen=True)
class Artifact:
    """One version of a model in a repository: the folder `<repository>/<name>/<version>/`."""

    path: Path

    @property
    def name(self) -> str:
        """The model's name in the repository."""
        return self.path.parent.name

    @property
    def version(self) -> int:
        """The number of this version."""
        return int(self.path.name)

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest, written by the compiler: signature, source, toolchain, verification."""
        return json_format.Parse((self.path / "manifest.json").read_text("utf-8"), Manifest())

    def _repr_html_(self) -> str:
        manifest = self.manifest
        rows = [
            (kind, spec.name, spec.datatype, shape(spec))
            for kind, specs in (("input", manifest.signature.inputs), ("output", manifest.signature.outputs))
            for spec in specs
        ]
        greatest: dict[str, tuple[float, float]] = {}
        for check in manifest.verification.checks:
            before = greatest.get(check.output, (0.0, 0.0))
            greatest[check.output] = (
                max(before[0], check.max_abs_error),
                max(before[1], check.max_rel_error),
            )
        errors = [(name, f"{error:.3g}", f"{part:.3g}") for name, (error, part) in greatest.items()]
        return captioned(
            f"{self.name}, version {self.version}",
            table(("", "name", "datatype", "shape"), rows),
            table(("verified output", "largest absolute error", "largest relative error"), errors),
            note=f"{manifest.precision}, opset {manifest.opset}: {self.path}",
        )


def shape(spec: TensorSpec) -> str:
    """Format a shape for messages; "?" stands for an unnamed dynamic dimension."""
    sizes = (str(dim.size) if dim.WhichOneof("kind") == "size" else dim.symbol or "?" for dim in spec.shape)
    return f"[{', '.join(sizes)}]"

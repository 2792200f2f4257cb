"""A compiled model on disk."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from google.protobuf import json_format

from kerve.artifact.v1.manifest_pb2 import Manifest

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
        """What the compiler recorded: signature, source, toolchain, verification."""
        return json_format.Parse((self.path / "manifest.json").read_text("utf-8"), Manifest())

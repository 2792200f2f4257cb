"""Reads a version's folder: an artifact of kerve, or a plain ONNX file in Triton's layout."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from google.protobuf import json_format

from kerve.artifact.v1 import manifest_pb2
from kerve.runtime.datatypes import BF16, DATATYPES, Array
from kerve.runtime.errors import ArtifactError
from kerve.runtime.onnx_file import external_data
from kerve.runtime.protocol.tensors import object_array
from kerve.runtime.signature import Dimension, Signature, TensorSpec

__all__ = ["Artifact", "Golden", "read_artifact"]

MODEL = "model.onnx"
MANIFEST = "manifest.json"
GOLDEN = "golden.npz"
SCHEMA = 1


@dataclass(frozen=True)
class Golden:
    """Inputs and the source model's outputs, recorded when the artifact was compiled."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]


@dataclass(frozen=True)
class Artifact:
    """A model version on disk; without a manifest it is a plain ONNX file."""

    path: Path
    manifest: manifest_pb2.Manifest | None
    # The name of the file with the prediction graph.
    model: str = MODEL

    @property
    def model_file(self) -> Path:
        """The prediction graph."""
        return self.path / self.model

    @property
    def name(self) -> str:
        """The model's name in the manifest, else the name of its folder."""
        return self.manifest.name if self.manifest else self.path.resolve().parent.name

    @cached_property
    def hidden(self) -> tuple[str, ...]:
        """Intermediate values of the prediction graph that an evaluation requests."""
        targets = self.manifest.evaluation.targets if self.manifest else ()
        return tuple(dict.fromkeys(target.logits for target in targets if target.logits))

    @cached_property
    def signature(self) -> Signature | None:
        """The signature that the manifest declares."""
        return signature_from(self.manifest.signature) if self.manifest else None

    @property
    def evaluating(self) -> tuple[str, ...]:
        """The file names of its evaluation graphs, if it has any."""
        if self.manifest is None or not self.manifest.HasField("evaluation"):
            return ()
        return self.manifest.evaluation.update, self.manifest.evaluation.results

    def check_files(self) -> None:
        """Raise ArtifactError unless every file is the one that was compiled and is within the folder."""
        for relative in self.evaluating:
            self._check_place(relative)
        for relative, expected in self.manifest.files.items() if self.manifest else ():
            file = self._check_place(relative)
            if not file.is_file():
                raise ArtifactError(f"{file} is missing, but the manifest lists it; copy the whole artifact")
            if (found := sha256(file)) != expected.sha256:
                raise ArtifactError(
                    f"{file} is not the file that was compiled: "
                    f"expected SHA-256 {expected.sha256}, got {found}; "
                    "copy the artifact again, or compile the model again"
                )
        for graph in (self.model_file, *(self.path / name for name in self.evaluating)):
            for location in external_data(graph):
                if not (self.path / location).resolve().is_relative_to(self.path.resolve()):
                    raise ArtifactError(
                        f"{graph} refers to weights in {location!r}, which lies outside its folder"
                    )

    def _check_place(self, relative: str) -> Path:
        """Return the path of a file in the manifest; raises ArtifactError if it is outside the folder."""
        file = self.path / relative
        if not is_name(relative):
            raise ArtifactError(f"{self.path / MANIFEST} names {relative!r}, which is not a file name")
        if not file.resolve().is_relative_to(self.path.resolve()):
            raise ArtifactError(f"{self.path / MANIFEST} names {relative!r}, which lies outside its folder")
        return file

    @property
    def random_outputs(self) -> frozenset[str]:
        """The outputs that are random on each call, which cannot be compared with golden data."""
        outputs = self.manifest.signature.outputs if self.manifest else ()
        return frozenset(spec.name for spec in outputs if spec.random)

    def golden(self) -> Golden | None:
        """Return the golden data; None if the artifact has none."""
        file = self.path / GOLDEN
        if not file.exists():
            return None
        try:
            with np.load(file, allow_pickle=False) as arrays:
                found = {key: plain(arrays[key]) for key in arrays.files}
        except (OSError, ValueError) as error:
            raise ArtifactError(f"{file} cannot be read: {error}") from error
        return Golden(with_prefix("input/", found), with_prefix("output/", found))

    def tolerance(self, output: TensorSpec) -> tuple[float, float]:
        """Return the rtol and atol with which an output was verified, or the defaults for its datatype."""
        checks = self.manifest.verification.checks if self.manifest else ()
        proven = [(check.rtol, check.atol) for check in checks if check.output == output.name]
        if not proven:
            return USUAL_TOLERANCE.get(output.datatype, (0.0, 0.0))
        return max(rtol for rtol, _ in proven), max(atol for _, atol in proven)


# rtol and atol; integers, booleans and bytes are compared exactly
USUAL_TOLERANCE = {"FP64": (1e-4, 1e-5), "FP32": (1e-4, 1e-5), "FP16": (1e-2, 1e-3), "BF16": (5e-2, 5e-3)}


def read_artifact(path: Path, model: str = MODEL) -> Artifact:
    """Return the artifact in a version's folder; raises ArtifactError if it contains no model."""
    if not (path / model).is_file():
        raise ArtifactError(f"{path} contains no {model}; expected a folder <repository>/<model>/<version>")
    file = path / MANIFEST
    if not file.exists():
        return Artifact(path, None, model)
    try:
        manifest = json_format.Parse(file.read_text(), manifest_pb2.Manifest(), ignore_unknown_fields=True)
    except (json_format.ParseError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(f"{file} is not a manifest: {error}") from error
    if manifest.schema != SCHEMA:
        raise ArtifactError(
            f"{file} has schema {manifest.schema}; this version of kerve reads schema {SCHEMA}"
        )
    return Artifact(path, manifest, model)


def signature_from(message: manifest_pb2.Signature) -> Signature:
    """Return the signature that a manifest's message describes."""
    return Signature(specs_from(message.inputs), specs_from(message.outputs), message.batched)


def specs_from(messages: Iterable[manifest_pb2.TensorSpec]) -> tuple[TensorSpec, ...]:
    """Return the tensors that a manifest's messages describe."""
    for message in messages:
        if message.datatype not in DATATYPES:
            raise ArtifactError(
                f"tensor {message.name!r} has the unknown datatype {message.datatype!r}; "
                f"expected one of {', '.join(DATATYPES)}"
            )
    return tuple(
        TensorSpec(
            message.name,
            message.datatype,
            tuple(dimension_from(each) for each in message.shape),
            tuple(message.labels),
            message.optional,
        )
        for message in messages
    )


def dimension_from(message: manifest_pb2.Dimension) -> Dimension:
    """Return a size, a symbol, or None for a dimension of any size."""
    match message.WhichOneof("kind"):
        case "size":
            return message.size
        case "symbol":
            return message.symbol
        case None:
            return None


def with_prefix(prefix: str, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the arrays whose key starts with the prefix, by the rest of it."""
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}


def plain(array: Array) -> Array:
    """Convert an array from its .npz representation to that of the protocol's datatypes.

    In .npz, strings have a fixed width, and bfloat16 is two bytes of unknown type.
    """
    if array.dtype == np.dtype("V2"):
        return array.view(BF16.dtype)
    if array.dtype.kind not in "SU":
        return array
    encoded = [each.encode() if isinstance(each, str) else bytes(each) for each in array.ravel().tolist()]
    return object_array(encoded).reshape(array.shape)


def is_name(relative: str) -> bool:
    """Return whether the file system accepts a path."""
    return "\0" not in relative and all(
        len(part.encode("utf-8", "surrogatepass")) < 256 for part in relative.split("/")
    )


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file's contents, in lower-case hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

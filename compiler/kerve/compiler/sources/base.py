"""A loaded model: its provenance, its lowering to a graph, and its reference outputs."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from kerve.artifact.v1 import manifest_pb2
from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import Lowered, lower
from kerve.compiler.lowering.initializers import as_answer, as_array
from kerve.compiler.lowering.randomness import fresh_random_seeds
from kerve.compiler.lowering.signature import call
from kerve.compiler.sources import deferred_weights
from kerve.compiler.verification import Reference

__all__ = ["KerasSource", "Source", "ragged", "record_of"]


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """A loaded model."""

    record: manifest_pb2.Source
    #: Warnings from loading, as sentences for the user.
    warnings: Sequence[str] = ()

    @property
    def description(self) -> str:
        """A short description of the source, for progress reports."""
        version = f", Keras {self.record.keras_version}" if self.record.keras_version else ""
        return f"{self.record.kind}{version}"

    @abstractmethod
    def lower(self, opset: int) -> Lowered:
        """Return the model as an ONNX graph; raises `ConversionError`."""

    @abstractmethod
    def reference(self, lowered: Lowered) -> Reference:
        """Return the *original* model in inference mode, with the input and output names of `lowered`."""

    @abstractmethod
    def layered(self, lowered: Lowered) -> Reference | None:
        """Return the lowered Keras 3 model, whose layers can be observed; None if there is none."""


@dataclass(frozen=True, kw_only=True)
class KerasSource(Source):
    """A model that is, or was translated into, a Keras 3 model."""

    model: keras.Model
    #: The arguments of a subclassed model that was never called, as `lower` takes them.
    input_signature: Any = None
    #: The model that `model` was translated from, called with the same arguments.
    original: Callable[..., Any] | None = None

    def lower(self, opset: int) -> Lowered:
        """Lower the Keras 3 model; raises `LoadError` if it created weights that were not loaded."""
        weights = deferred_weights.Weights(self.model)
        lowered = lower(self.model, opset=opset, input_signature=self.input_signature)
        if self.record.file_name:
            weights.require_all()
        return lowered

    def reference(self, lowered: Lowered) -> Reference:
        """Return the model that was loaded, not its translation."""
        if self.original is None or lowered.state:  # the state is assigned to the variables of `model`
            return self.layered(lowered)
        return _named(self.original, lowered)

    def layered(self, lowered: Lowered) -> Reference:
        """Return the Keras 3 model."""
        return _named(self.model, lowered)


def _named(model: Callable[..., Any], lowered: Lowered) -> Reference:
    """Wrap a Keras model as a function of named arrays, with the names of its lowering."""
    drawing = fresh_random_seeds() if lowered.reseeded else nullcontext()

    def reference(inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        arguments = keras.tree.map_structure(lambda name: _tensor(inputs[name]), lowered.inputs)
        with drawing, _state(lowered, inputs) as next_state:
            results = keras.tree.flatten(call(model, arguments))
            named = zip(keras.tree.flatten(lowered.outputs), results, strict=True)
            states = {name: np.array(as_array(value)) for name, value in next_state().items()}
            return {name: as_answer(answer) for name, answer in named} | states

    return reference


@contextmanager
def _state(
    lowered: Lowered, inputs: Mapping[str, NDArray[Any]]
) -> Iterator[Callable[[], dict[str, keras.Variable]]]:
    """Temporarily assign the inputs' state values to the model's state variables."""
    own = [each.initial for each in lowered.state]
    for each in lowered.state:
        each.variable.assign(inputs[each.input])
    try:
        yield lambda: {each.output: each.variable for each in lowered.state}
    finally:
        for each, value in zip(lowered.state, own, strict=True):
            each.variable.assign(value)


def ragged(name: str) -> ConversionError:
    """Return the error for a ragged input."""
    return ConversionError(
        f"the input '{name}' is a ragged tensor, which ONNX does not have; "
        "build the model with a dense Input, of padded rows with a mask, and load its weights"
    )


def record_of(kind: str, *paths: Path, keras_version: str = "") -> manifest_pb2.Source:
    """Return the provenance of a model; for several files, the hash is that of the list of their hashes."""
    if not paths:
        return manifest_pb2.Source(kind=kind, keras_version=keras_version)
    first, *others = paths
    files = list(paths) if others or not first.is_dir() else sorted(first.rglob("*"))
    return manifest_pb2.Source(
        kind=kind,
        file_name=first.name,
        sha256=_sha256(first) if files == [first] else _sha256_of_list(first, files),
        keras_version=keras_version,
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _sha256_of_list(first: Path, files: Sequence[Path]) -> str:
    names = {file: file.relative_to(first).as_posix() if first.is_dir() else file.name for file in files}
    lines = [f"{_sha256(file)}  {name}\n" for file, name in names.items() if file.is_file()]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _tensor(array: NDArray[Any]) -> Any:
    return keras.ops.convert_to_tensor(array.astype(str) if array.dtype == object else array)

"""`reshape` of a configuration: clients see a tensor with a shape other than the model's."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.datatypes import Array
from kerve.runtime.errors import ArtifactError
from kerve.runtime.signature import Signature, TensorSpec

__all__ = ["Reshapes", "own_dims", "with_scalars"]


class Reshapes:
    """Reshapes tensors from clients' shapes to the model's and back; elements keep their order."""

    def __init__(self, config: pb.ModelConfig, folder: Path, *, batched: bool) -> None:
        """Raise ArtifactError if `dims` and `reshape` of a tensor do not hold the same elements."""
        self._lead = 1 if batched else 0
        self._axes: dict[str, tuple[Sequence[int], Sequence[int]]] = {}
        tensors: list[pb.ModelInput | pb.ModelOutput] = [*config.input, *config.output]
        for tensor in tensors:
            if not tensor.HasField("reshape"):
                continue
            seen, own = list(tensor.dims), list(tensor.reshape.shape)
            if [*counts(seen)] != [*counts(own)]:
                raise ArtifactError(
                    f"{folder}: {tensor.name!r}: reshape: expected the free dimensions of dims {seen}, with "
                    f"equal numbers of elements before, between and after them; got {own}"
                )
            self._axes[tensor.name] = (seen, own)

    def seen(self, signature: Signature) -> Signature:
        """Return a signature with the shapes that clients see."""
        inputs, outputs = (tuple(map(self._seen, specs)) for specs in (signature.inputs, signature.outputs))
        return replace(signature, inputs=inputs, outputs=outputs)

    def _seen(self, spec: TensorSpec) -> TensorSpec:
        if spec.name not in self._axes:
            return spec
        dims = (size if size >= 0 else None for size in self._axes[spec.name][0])
        return replace(spec, shape=(*spec.shape[: self._lead], *dims))

    def inward(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the arrays in the model's shapes."""
        return self._turned(arrays, 0) if self._axes else arrays

    def outward(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the arrays in the shapes that clients see."""
        return self._turned(arrays, 1) if self._axes else arrays

    def _turned(self, arrays: Mapping[str, Array], source: int) -> Mapping[str, Array]:
        turned = dict(arrays)
        for name, axes in self._axes.items():
            if name in turned:
                array = turned[name]
                have, want = axes[source], axes[1 - source]
                # Dynamic dimensions are in the same order on both sides.
                free = [size for size, dim in zip(array.shape[self._lead :], have, strict=True) if dim < 0]
                sizes = iter(free)
                shape = [size if size >= 0 else next(sizes) for size in want]
                turned[name] = array.reshape((*array.shape[: self._lead], *shape))
        return turned


def with_scalars(config: pb.ModelConfig, signature: Signature) -> pb.ModelConfig:
    """Return a configuration in which tensors declared with one element are reshaped to the graph's scalars:
    `dims` of a configuration cannot be empty (Triton's ONNX Runtime backend, `ValidateInputs`).
    """
    full = pb.ModelConfig.FromString(config.SerializeToString())
    for specs, tensors in ((signature.inputs, full.input), (signature.outputs, full.output)):
        scalars = {spec.name for spec in specs if not spec.shape}
        for tensor in tensors:
            if tensor.name in scalars and tensor.dims and {*tensor.dims} == {1}:
                tensor.reshape.SetInParent()
    return full


def own_dims(tensor: pb.ModelInput | pb.ModelOutput) -> Sequence[int]:
    """Return the dimensions of a declared tensor in the model, -1 for dynamic ones."""
    return tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims


def counts(dims: Sequence[int]) -> Iterator[int]:
    """Yield the numbers of elements before, between and after the dynamic dimensions."""
    begin = 0
    for position, size in enumerate(dims):
        if size < 0:
            yield prod(dims[begin:position])
            begin = position + 1
    yield prod(dims[begin:])

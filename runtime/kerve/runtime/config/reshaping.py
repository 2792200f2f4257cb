"""`reshape` of a configuration: clients see other axes of a tensor than the model has."""

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
    """Turns tensors from what clients see into what the model has, and back; elements stay in their order."""

    def __init__(self, config: pb.ModelConfig, folder: Path, *, batched: bool) -> None:
        """ArtifactError when `dims` and `reshape` of a tensor cannot hold the same elements."""
        self._lead = 1 if batched else 0
        self._axes: dict[str, tuple[Sequence[int], Sequence[int]]] = {}
        tensors: list[pb.ModelInput | pb.ModelOutput] = [*config.input, *config.output]
        for tensor in tensors:
            if not tensor.HasField("reshape"):
                continue
            seen, own = list(tensor.dims), list(tensor.reshape.shape)
            if [*counts(seen)] != [*counts(own)]:
                raise ArtifactError(
                    f"{folder}: {tensor.name!r}: reshape: expected as many elements and free dimensions "
                    f"between them as in dims {seen}, got {own}"
                )
            self._axes[tensor.name] = (seen, own)

    def seen(self, signature: Signature) -> Signature:
        """Return a signature as clients see it."""
        inputs, outputs = (tuple(map(self._seen, specs)) for specs in (signature.inputs, signature.outputs))
        return replace(signature, inputs=inputs, outputs=outputs)

    def _seen(self, spec: TensorSpec) -> TensorSpec:
        if spec.name not in self._axes:
            return spec
        dims = (size if size >= 0 else None for size in self._axes[spec.name][0])
        return replace(spec, shape=(*spec.shape[: self._lead], *dims))

    def inward(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the arrays as the model has them."""
        return self._turned(arrays, 0) if self._axes else arrays

    def outward(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """Return the arrays as clients see them."""
        return self._turned(arrays, 1) if self._axes else arrays

    def _turned(self, arrays: Mapping[str, Array], source: int) -> Mapping[str, Array]:
        turned = dict(arrays)
        for name, axes in self._axes.items():
            if name in turned:
                array = turned[name]
                have, want = axes[source], axes[1 - source]
                # Free dimensions stand in the same order on both sides.
                free = [size for size, dim in zip(array.shape[self._lead :], have, strict=True) if dim < 0]
                sizes = iter(free)
                shape = [size if size >= 0 else next(sizes) for size in want]
                turned[name] = array.reshape((*array.shape[: self._lead], *shape))
        return turned


def with_scalars(config: pb.ModelConfig, signature: Signature) -> pb.ModelConfig:
    """Return a configuration in which what it declares as one element, and the graph has as a scalar, is
    reshaped: `dims` of a configuration cannot say that there are none (Triton's ONNX Runtime backend,
    `ValidateInputs`).
    """
    full = pb.ModelConfig.FromString(config.SerializeToString())
    for specs, tensors in ((signature.inputs, full.input), (signature.outputs, full.output)):
        scalars = {spec.name for spec in specs if not spec.shape}
        for tensor in tensors:
            if tensor.name in scalars and tensor.dims and {*tensor.dims} == {1}:
                tensor.reshape.SetInParent()
    return full


def own_dims(tensor: pb.ModelInput | pb.ModelOutput) -> Sequence[int]:
    """Return the dimensions of a declared tensor as the model has them, -1 for free ones."""
    return tensor.reshape.shape if tensor.HasField("reshape") else tensor.dims


def counts(dims: Sequence[int]) -> Iterator[int]:
    """Yield the elements of what lies before, between and after the free dimensions."""
    begin = 0
    for position, size in enumerate(dims):
        if size < 0:
            yield prod(dims[begin:position])
            begin = position + 1
    yield prod(dims[begin:])

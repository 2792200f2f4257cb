"""Inputs to verify a model on: seeded ones of any size, and the user's own."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.verification.domains import Domain, domain_of

__all__ = ["SIZES", "Dataset", "seeded"]

#: Pairs of sizes tried for open dimensions other than the batch, until the source accepts one pair:
#: sequences are happy with the first, convolution stacks need the later ones.
SIZES: tuple[tuple[int, int], ...] = ((7, 12), (32, 45), (64, 96), (224, 256))

_BATCHES = (2, 5)
_SEED = 20_260_101
_WORDS = ("", "the", "quick", "brown fox", "Kerve!", "0", "naïve", "unknown word")


@dataclass(frozen=True)
class Dataset:
    """Inputs for one run of the model."""

    origin: str
    inputs: Mapping[str, NDArray[Any]]
    #: The size given to each open dimension.
    sizes: Mapping[str, int]


def seeded(model: ir.Model, open_sizes: tuple[int, int]) -> Iterator[Dataset]:
    """Yield two data sets, which differ in the size of every open dimension.

    Values depend on the names, dtypes and sizes of the inputs alone.
    """
    for batch, size in zip(_BATCHES, open_sizes, strict=True):
        sizes: dict[str, int] = {}
        inputs = {str(value.name): _tensor(value, batch, size, sizes) for value in model.graph.inputs}
        yield Dataset("seeded", inputs, sizes)


def _tensor(value: ir.Value, batch: int, size: int, sizes: dict[str, int]) -> NDArray[Any]:
    assert value.shape is not None
    assert value.dtype is not None
    shape = []
    for dim in value.shape:
        if isinstance(dim, int):
            shape.append(dim)
        else:
            shape.append(sizes.setdefault(str(dim.value), batch if dim.value == "batch" else size))
    rng = np.random.default_rng([_SEED, zlib.crc32(str(value.name).encode()), batch])
    return _values(rng, value.dtype, shape, domain_of(value))


def _values(rng: np.random.Generator, dtype: ir.DataType, shape: list[int], domain: Domain) -> NDArray[Any]:
    if dtype == ir.DataType.STRING:
        return np.asarray(rng.choice(np.array([*domain.words, *_WORDS], dtype=object), shape), dtype=object)
    if dtype == ir.DataType.BOOL:
        return rng.random(shape) < 0.5
    if domain.size is not None:
        return rng.integers(0, domain.size, shape).astype(dtype.numpy())
    if dtype.is_integer():
        return rng.integers(0, 256 if dtype == ir.DataType.UINT8 else 10, shape).astype(dtype.numpy())
    if dtype == ir.DataType.BFLOAT16:
        return rng.standard_normal(shape).astype(ml_dtypes.bfloat16)
    return rng.standard_normal(shape).astype(dtype.numpy())

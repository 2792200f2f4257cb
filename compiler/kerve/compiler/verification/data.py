"""Inputs to verify a model on: seeded inputs of any size, and the user's data."""

from __future__ import annotations

import itertools
import math
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.compiler.errors import LoadError
from kerve.compiler.verification.domains import domain_of
from kerve.compiler.verification.sampling import SAMPLING_CONFIGS, SamplingConfig, sample_values

__all__ = [
    "SIZES",
    "Dataset",
    "arrays_in",
    "by_name",
    "first_rows",
    "free_rows",
    "from_file",
    "more_rows",
    "primes_from",
    "resized",
    "seeded",
]

#: Pairs of sizes for dynamic dimensions other than the batch, tried until the source accepts one pair:
#: sequence models accept the first, unless they have few positions; convolution stacks need the later ones.
SIZES: tuple[tuple[int, int], ...] = ((7, 12), (3, 5), (1, 2), (32, 45), (64, 96), (224, 256))


_SEED = 20_260_101


@dataclass(frozen=True)
class Dataset:
    """Inputs for one run of the model."""

    origin: str
    inputs: Mapping[str, NDArray[Any]]
    #: The size of each dynamic dimension.
    sizes: Mapping[str, int]
    draw: SamplingConfig = SAMPLING_CONFIGS[0]


def seeded(
    model: ir.Model, open_sizes: tuple[int, int], draw: SamplingConfig = SAMPLING_CONFIGS[0]
) -> Iterator[Dataset]:
    """Yield two data sets, which differ in the size of every dynamic dimension.

    No batch has the size of a static dimension of the model, so that neither the graph nor the source
    confuses them (Keras adds a column to a square matrix as if it were a row). Values depend only on the
    graph and on the names, dtypes and sizes of the inputs.
    """
    first = free_rows(model, 2)
    for batch, size in zip((first, free_rows(model, first + 1)), open_sizes, strict=True):
        sizes: dict[str, int] = {}
        inputs = {str(value.name): _tensor(value, batch, size, sizes, draw) for value in model.graph.inputs}
        yield Dataset("seeded", inputs, sizes, draw)


def free_rows(model: ir.Model, least: int) -> int:
    """Return the first number of rows from `least` that is not a static dimension of the model."""
    fixed = _fixed_sizes(model)
    return next(size for size in itertools.count(least) if size not in fixed)


def _fixed_sizes(model: ir.Model) -> set[int]:
    values = itertools.chain(
        model.graph.inputs,
        model.graph.initializers.values(),
        (output for node in model.graph for output in node.outputs),
    )
    return {dim for value in values for dim in value.shape or () if isinstance(dim, int)}


def more_rows(model: ir.Model, like: Dataset, rows: int, draw: SamplingConfig | None = None) -> Dataset:
    """Return a seeded data set of `rows` rows whose other dynamic dimensions have the sizes of `like`."""
    sizes = {**like.sizes, "batch": rows} if "batch" in like.sizes else dict(like.sizes)
    draw = like.draw if draw is None else draw
    inputs = {str(value.name): _tensor(value, rows, rows, sizes, draw) for value in model.graph.inputs}
    return Dataset("seeded", inputs, sizes, draw)


def resized(model: ir.Model, like: Dataset, sizes: Sequence[int]) -> Dataset:
    """Return a seeded data set of as many rows, whose other dynamic dimensions have these sizes in turn."""
    turn = itertools.cycle(sizes)
    taken = {dim: size if dim == "batch" else next(turn) for dim, size in like.sizes.items()}
    return more_rows(model, replace(like, sizes=taken), like.sizes.get("batch", 1))


def primes_from(least: int) -> Iterator[int]:
    """Yield odd primes: sizes that no stride or factor divides, so that wrong rounding of sizes shows."""
    odd = itertools.count(max(least | 1, 3), 2)
    return (number for number in odd if all(number % divisor for divisor in range(3, math.isqrt(number) + 1)))


def arrays_in(path: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a `.npz` file; raises `LoadError`."""
    if not path.exists():
        raise LoadError(f"there is no file {path}; expected inputs written by numpy.savez")
    # Reading a pipe would block; for other formats NumPy's error advises to allow unpickling.
    if not (path.is_file() and zipfile.is_zipfile(path)):
        raise LoadError(f"{path} is not a .npz file of plain arrays; write one with numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as archive:
            held = {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        advice = "; convert arrays of strings with array.astype(str)" if "Object arrays" in str(error) else ""
        raise LoadError(f"{path} is not a .npz file of plain arrays: {error}{advice}") from error
    if others := [name for name, array in held.items() if not isinstance(array, np.ndarray)]:
        raise LoadError(f"{path} is not a .npz file of plain arrays: it holds the file {others[0]}")
    return held


def first_rows(model: ir.Model, dataset: Dataset, rows: int) -> Dataset:
    """Return the first rows of a data set; inputs without a batch dimension are unchanged."""
    batched = {str(value.name) for value in model.graph.inputs if value.shape and _is_batch(value.shape[0])}
    cut = {name: array[:rows] if name in batched else array for name, array in dataset.inputs.items()}
    few = min(rows, dataset.sizes.get("batch", rows))
    sizes = {dim: few if dim == "batch" else size for dim, size in dataset.sizes.items()}
    return replace(dataset, inputs=cut, sizes=sizes)


def _is_batch(dim: int | ir.SymbolicDim) -> bool:
    return not isinstance(dim, int) and dim.value == "batch"


def from_file(model: ir.Model, path: Path, prefix: str = "") -> Dataset:
    """Read the user's inputs from a `.npz` file, named as for `by_name`.

    Only arrays whose names begin with `prefix` are used, with the prefix removed. Raises `LoadError`, naming
    the array, if they do not fit the model.
    """
    held = arrays_in(path).items()
    values = model.graph.inputs
    plain = {name.removeprefix(prefix): array for name, array in held if name.startswith(prefix)}
    arrays = by_name(plain, [str(value.name) for value in values])
    missing = [str(value.name) for value in values if value.name not in arrays]
    if missing:
        raise LoadError(
            f"{path} holds {', '.join(sorted(arrays)) or 'no arrays'}; "
            f"the model also needs {', '.join(missing)}"
        )
    sizes: dict[str, int] = {}
    inputs = {str(value.name): _fitting(path, value, arrays[str(value.name)], sizes) for value in values}
    if empty := [dim for dim, size in sizes.items() if size == 0]:
        raise LoadError(f"{path} holds no elements: its '{empty[0]}' is 0; expected 1 or more")
    return Dataset("user", inputs, sizes)


def by_name(arrays: Mapping[str, NDArray[Any]], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Return arrays with the inputs' names added for arrays that have default names.

    The only input may be named `x`; arrays that `numpy.savez` was given without names (`arr_0`, `arr_1`, ...)
    are the inputs in order.
    """
    meant = {name: arrays[f"arr_{index}"] for index, name in enumerate(names) if f"arr_{index}" in arrays}
    if len(names) == 1 and "x" in arrays:
        meant = {names[0]: arrays["x"]}
    return meant | dict(arrays)


def _fitting(path: Path, value: ir.Value, array: NDArray[Any], sizes: dict[str, int]) -> NDArray[Any]:
    assert value.shape is not None
    assert value.dtype is not None
    dims = [dim if isinstance(dim, int) else str(dim.value) for dim in value.shape]
    known = [f"{dim}={sizes[dim]}" for dim in dims if isinstance(dim, str) and dim in sizes]
    fits = len(dims) == array.ndim and all(
        size == (dim if isinstance(dim, int) else sizes.setdefault(dim, size))
        for dim, size in zip(dims, array.shape, strict=True)
    )
    if not fits:
        others = f" ({', '.join(known)} in the arrays before it)" if known and len(dims) == array.ndim else ""
        raise LoadError(
            f"{path}: array '{value.name}' has shape {list(array.shape)}, the model takes "
            f"[{', '.join(map(str, dims))}]{others}"
        )
    wanted = np.dtype(object) if value.dtype == ir.DataType.STRING else value.dtype.numpy()
    if not np.can_cast(array.dtype, wanted, "same_kind"):
        raise LoadError(
            f"{path}: array '{value.name}' has dtype {array.dtype}, which does not fit the model's {wanted}"
        )
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    with np.errstate(over="ignore"):
        taken = array.astype(wanted)
    if array.dtype.kind in "iu" and (taken != array).any():
        raise LoadError(f"{path}: array '{value.name}' holds numbers out of range of the model's {wanted}")
    return taken


def _tensor(
    value: ir.Value, batch: int, size: int, sizes: dict[str, int], draw: SamplingConfig
) -> NDArray[Any]:
    assert value.shape is not None
    assert value.dtype is not None
    shape = []
    for dim in value.shape:
        if isinstance(dim, int):
            shape.append(dim)
        else:
            shape.append(sizes.setdefault(str(dim.value), batch if dim.value == "batch" else size))
    rng = np.random.default_rng([_SEED, zlib.crc32(str(value.name).encode()), batch])
    ordinary = replace(draw.ordinary, within="") == SAMPLING_CONFIGS[0]
    drawn = replace(draw, ids=256) if ordinary and value.dtype == ir.DataType.UINT8 else draw  # pixels
    return sample_values(rng, value.dtype, shape, domain_of(value), drawn)

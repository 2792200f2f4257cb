"""The warm-up requests of a model's configuration (`model_warmup`), run before it serves."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.config.complete import protocol_type
from kerve.runtime.datatypes import BYTES, DATATYPES, Array
from kerve.runtime.errors import ArtifactError, InvalidArgumentError
from kerve.runtime.protocol.tensors import from_raw
from kerve.runtime.signature import Signature, TensorSpec, check_inputs, check_tensor

__all__ = ["Sample", "samples"]

# Subfolder of a model's folder that holds the samples' files.
FOLDER = "warmup"


@dataclass(frozen=True)
class Sample:
    """One warm-up request, and how often it is run."""

    name: str
    inputs: Mapping[str, Array]
    count: int


def samples(config: pb.ModelConfig, signature: Signature, folder: Path) -> Iterator[Sample]:
    """Yield the samples of a model's configuration; raises ArtifactError if one does not fit the model."""
    for number, each in enumerate(config.model_warmup, 1):
        where = f"{folder}: model_warmup {each.name or number!r}"
        try:
            check_inputs(signature, folder.name, sorted(each.inputs))
            sizes: dict[str, tuple[int, str]] = {}
            inputs = {}
            batch = batch_of(each.batch_size, batched=signature.batched)
            for name, told in each.inputs.items():
                spec = signature.input(name)
                check_tensor(spec, protocol_type(told.data_type), [*batch, *told.dims], sizes)
                row = array_of(told, spec, tuple(told.dims), folder)
                inputs[name] = np.tile(row, (*batch, *(1,) * row.ndim))
        except InvalidArgumentError as error:
            raise ArtifactError(f"{where}: {error}") from error
        yield Sample(each.name or str(number), inputs, max(1, each.count))


def batch_of(rows: int, *, batched: bool) -> tuple[int, ...]:
    """Return the leading dimensions of a sample: its rows, or none for a model without a batch dimension.

    Triton has a batch_size of 1 in both cases, and repeats the single row that a sample describes.
    """
    if not batched and rows > 1:
        raise InvalidArgumentError(f"batch_size: expected 1 in a model without a batch dimension, got {rows}")
    return (max(1, rows),) if batched else ()


def array_of(told: pb.ModelWarmup.Input, spec: TensorSpec, shape: tuple[int, ...], folder: Path) -> Array:
    """Return one row of an input of a sample."""
    dtype = DATATYPES[spec.datatype].dtype
    match told.WhichOneof("input_data_type"):
        case "input_data_file":
            return from_file(told.input_data_file, spec, shape, folder)
        case "random_data" if spec.datatype != BYTES.name:
            # Small numbers, which are valid indices into most tables too; deterministic.
            random = np.random.default_rng(0)
            return (random.random(shape) if dtype.kind == "f" else random.integers(0, 2, shape)).astype(dtype)
        case "zero_data" | "random_data":  # random BYTES are empty strings, as in Triton
            return np.full(shape, b"", dtype) if spec.datatype == BYTES.name else np.zeros(shape, dtype)
        case _:
            raise InvalidArgumentError(
                f"input {spec.name!r}: expected zero_data, random_data or input_data_file, got none"
            )


def from_file(name: str, spec: TensorSpec, shape: tuple[int, ...], folder: Path) -> Array:
    """Return the raw contents of a file as an array."""
    file = folder / FOLDER / name
    if not file.resolve().is_relative_to((folder / FOLDER).resolve()):
        raise InvalidArgumentError(f"input {spec.name!r}: input_data_file {name!r} lies outside {FOLDER}/")
    try:
        contents = file.read_bytes()
    except OSError as error:
        raise InvalidArgumentError(
            f"input {spec.name!r}: input_data_file {name!r} cannot be read from {FOLDER}/: {error}"
        ) from error
    # As in Triton, a file may be longer than the row.
    size = None if spec.datatype == BYTES.name else math.prod(shape) * DATATYPES[spec.datatype].dtype.itemsize
    return from_raw(f"input {spec.name!r}", spec.datatype, shape, contents[:size])

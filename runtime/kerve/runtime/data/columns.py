"""Maps columns to a model's inputs, labels and weights, by name.

A tensor is the column of its name, or the columns of its name with the suffixes `_0`, `_1`, ... Flat rows are
reshaped if the model takes more axes: 784 values become 28 x 28. Encoded images are decoded if the model
takes their pixels.
"""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from kerve.runtime.data.images import Picture, is_encoded, picture_of, pixels
from kerve.runtime.data.source import Block, DataError, Source
from kerve.runtime.datatypes import BYTES, Array
from kerve.runtime.evaluation.targets import LABELS, WEIGHTS
from kerve.runtime.signature import Signature

__all__ = ["Rows"]

NUMBERED = re.compile(r"(.+)_(0|[1-9][0-9]*)")
ONLY_INPUT = "x"


@dataclass(frozen=True)
class Tensor:
    """A tensor of the model, and its columns."""

    name: str
    columns: tuple[str, ...]
    text: bool = False
    #: Whether it is a scalar in the model.
    scalar: bool = False
    #: The possible shapes of a row; None: any size.
    shapes: tuple[tuple[int | None, ...], ...] = ()


class Rows:
    """The rows of a source, as named arrays for a client; can be iterated repeatedly."""

    def __init__(self, source: Source, signature: Signature, *, labelled: bool) -> None:
        """`labelled`: the columns are inputs, labels and weights; otherwise inputs, and others are ignored.

        Raises DataError if columns are missing or unknown.
        """
        self._source = source
        self._batched = signature.batched
        self._tensors = tensors_of(source, signature, labelled=labelled)
        self._columns = [column for tensor in self._tensors for column in tensor.columns]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the source that are read."""
        return tuple(self._columns)

    def __len__(self) -> int:
        """Return the number of rows; 0 if it is unknown without reading all of them."""
        return self._source.rows or 0

    def __iter__(self) -> Iterator[dict[str, Array]]:
        if not self._batched:
            yield {tensor.name: self._whole(tensor) for tensor in self._tensors}
            return
        first = 0
        for block in self._source.blocks(self._columns):
            yield {tensor.name: self._array(tensor, block, first) for tensor in self._tensors}
            first += len(next(iter(block.values())))

    def first(self, count: int) -> dict[str, Array]:
        """Return the first `count` rows, or all if there are fewer."""
        blocks, rows = [], 0
        for block in self:
            blocks.append(block)
            rows += len(next(iter(block.values()))) if self._batched else count
            if rows >= count:
                break
        if not self._batched:
            return blocks[0]
        return {name: array[:count] for name, array in joined(blocks).items()}

    def _whole(self, tensor: Tensor) -> Array:
        """Return the whole tensor, for a model that is not batched."""
        block: Block = {}
        for column in tensor.columns:
            block |= joined(list(self._source.blocks([column])))
        array = self._array(tensor, block, 0)
        return array.reshape(()) if tensor.scalar and array.size == 1 else array

    def _array(self, tensor: Tensor, block: Block, first: int) -> Array:
        parts = [self._plain(tensor, column, block[column], first) for column in tensor.columns]
        array = parts[0] if len(parts) == 1 else np.stack(parts, axis=1)
        return shaped(array, tensor.shapes)

    def _plain(self, tensor: Tensor, column: str, values: Array, first: int) -> Array:
        """Return the values of a column: text unchanged if the tensor is text, else numbers."""
        if tensor.text or values.dtype != object:
            return values
        if is_encoded(values) and (picture := picture_in(tensor.shapes)) is not None:
            where = f"{self._source.path}: row {{}}, column {column!r}".format
            return pixels(self._source.path, values, picture, lambda row: where(first + row))
        for kind in (np.int64, np.float64):
            try:
                return values.astype(kind)
            except (ValueError, OverflowError, TypeError):
                continue
        row, value = next((row, each) for row, each in enumerate(values, first) if not is_number(each))
        raise DataError(
            f"{self._source.path}: row {row}, column {column!r}: expected a number, got {shown(value)}"
        )


def tensors_of(source: Source, signature: Signature, *, labelled: bool) -> list[Tensor]:
    """Return the tensors in the columns of a source; raises DataError if some are missing or unknown."""
    find = partial(columns_of, source)
    tensors = inputs_of(source, signature, find)
    if not labelled:
        return tensors
    outputs = {spec.name: spec for spec in signature.outputs}
    for name in (*outputs, LABELS):
        if name not in {tensor.name for tensor in tensors} and (columns := find(name)):
            of = outputs.get(name) or (signature.outputs[0] if len(outputs) == 1 else None)
            shapes = row_shapes(signature, of.shape, labels=True) if of else ()
            tensors.append(Tensor(name, columns, shapes=shapes))
    weights = (WEIGHTS, *(f"{name}/{WEIGHTS}" for name in outputs))
    tensors += [Tensor(name, (name,)) for name in weights if name in source.columns]
    known = {column for tensor in tensors for column in tensor.columns}
    if unknown := [column for column in source.columns if column not in known]:
        inputs = ", ".join(spec.name for spec in signature.inputs)
        raise DataError(
            f"{source.path}: unexpected column {unknown[0]!r}; expected the inputs {inputs}"
            f"{alone(signature)}, the labels {', '.join(outputs)} (or `{LABELS}`), and optionally {WEIGHTS}"
        )
    return tensors


def inputs_of(source: Source, signature: Signature, find: Callable[[str], tuple[str, ...]]) -> list[Tensor]:
    """Return the inputs among the columns."""
    tensors = []
    for spec in signature.inputs:
        columns = find(spec.name) or (find(ONLY_INPUT) if alone(signature) else ())
        if columns:
            shapes = row_shapes(signature, spec.shape)
            tensors.append(Tensor(spec.name, columns, spec.datatype == BYTES.name, not spec.shape, shapes))
        elif not spec.optional:
            needed = ", ".join(spec.name for spec in signature.inputs if not spec.optional)
            raise DataError(
                f"{source.path}: expected arrays named {needed}{alone(signature)}; "
                f"it has: {', '.join(source.columns) or 'none'}"
            )
    return tensors


def alone(signature: Signature) -> str:
    """Return the alternative name of the only input, for messages; "" if there are several inputs."""
    needed = [spec for spec in signature.inputs if not spec.optional]
    return f" or `{ONLY_INPUT}`" if len(needed) == 1 else ""


def columns_of(source: Source, name: str) -> tuple[str, ...]:
    """Return the columns of a tensor: the one of its name, or numbered ones."""
    if name in source.columns:
        return (name,)
    matches = (NUMBERED.fullmatch(column) for column in source.columns)
    numbers = {int(match[2]) for match in matches if match and match[1] == name}
    if missing := [number for number in range(max(numbers, default=-1)) if number not in numbers]:
        raise DataError(
            f"{source.path}: expected a column {name}_{missing[0]}, since there is {name}_{max(numbers)}"
        )
    return tuple(f"{name}_{number}" for number in sorted(numbers))


def row_shapes(
    signature: Signature, shape: Sequence[int | str | None], *, labels: bool = False
) -> tuple[tuple[int | None, ...], ...]:
    """Return the possible shapes of a row, None for dynamic sizes; labels may also be class indices."""
    if not signature.batched:
        return ()
    row = tuple(size if isinstance(size, int) else None for size in shape[1:])
    return (row, row[:-1]) if labels else (row,)


def joined(blocks: Sequence[Block]) -> Block:
    """Concatenate the rows of several blocks."""
    if len(blocks) == 1:
        return blocks[0]
    names = blocks[0] if blocks else ()
    return {name: np.concatenate([block[name] for block in blocks]) for name in names}


def shaped(array: Array, shapes: Sequence[tuple[int | None, ...]]) -> Array:
    """Reshape flat rows to the first shape with as many values; otherwise return the array unchanged."""
    if array.ndim > 2 or any(fits(array.shape[1:], shape) for shape in shapes):
        return array
    count = math.prod(array.shape[1:])
    for shape in shapes:
        known = math.prod(size for size in shape if size is not None)
        if shape.count(None) == 0 and known == count:
            return array.reshape(len(array), *(size or 0 for size in shape))
        if shape.count(None) == 1 and len(shape) > 1 and known and count % known == 0:
            return array.reshape(len(array), *(count // known if size is None else size for size in shape))
    return array


def fits(found: Sequence[int], shape: Sequence[int | None]) -> bool:
    """Return whether the shape of a row fits an expected one."""
    return len(found) == len(shape) and all(
        want in (None, size) for want, size in zip(shape, found, strict=True)
    )


def picture_in(shapes: Sequence[tuple[int | None, ...]]) -> Picture | None:
    """Return the image format of the first shape that can be an image; None if there is none."""
    return next((found for shape in shapes if (found := picture_of(shape)) is not None), None)


def is_number(value: object) -> bool:
    """Return whether a text is a number."""
    try:
        float(value)  # type: ignore[arg-type]  # TypeError is handled
    except (ValueError, TypeError):
        return False
    return True


def shown(value: object) -> str:
    """Return a value for messages, truncated."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

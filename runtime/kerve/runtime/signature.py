"""The inputs and outputs of a model, and checks of requests against them."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kerve.runtime.datatypes import Array
from kerve.runtime.errors import InvalidArgumentError

__all__ = [
    "Dimension",
    "Signature",
    "TensorSpec",
    "check_inputs",
    "check_known",
    "check_outputs",
    "check_tensor",
    "rows_of",
    "show_shape",
]

# A fixed size; the name of a dynamic size that is the same throughout a request; or None: any size.
Dimension = int | str | None


@dataclass(frozen=True)
class TensorSpec:
    """One input or output; `labels` are class names along the last axis."""

    name: str
    datatype: str
    shape: tuple[Dimension, ...]
    labels: tuple[str, ...] = ()
    optional: bool = False


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model, in its own order.

    `batched`: axis 0 of all of them is the same symbolic dimension, and rows are independent.
    """

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    batched: bool

    def input(self, name: str) -> TensorSpec:
        """Return an input by name; raises KeyError if there is none."""
        return find(self.inputs, name)

    def output(self, name: str) -> TensorSpec:
        """Return an output by name; raises KeyError if there is none."""
        return find(self.outputs, name)


def find(specs: Iterable[TensorSpec], name: str) -> TensorSpec:
    """Return the spec of that name; raises KeyError if there is none."""
    for spec in specs:
        if spec.name == name:
            return spec
    raise KeyError(name)


def show_shape(shape: Iterable[Dimension]) -> str:
    """Format a shape for messages: `[batch, 28, ?]`."""
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"


def names(specs: Iterable[TensorSpec]) -> str:
    """Format the names for messages."""
    return ", ".join(spec.name for spec in specs)


def check_inputs(signature: Signature, model: str, given: Sequence[str]) -> None:
    """Raise InvalidArgumentError unless exactly the model's inputs are given, except for optional ones."""
    check_known(signature, model, given)
    for spec in signature.inputs:
        if not spec.optional and spec.name not in given:
            raise InvalidArgumentError(f"input {spec.name!r} is missing; {takes(signature, model)}")


def check_known(signature: Signature, model: str, given: Sequence[str]) -> None:
    """Raise InvalidArgumentError unless all given names are inputs of the model, each given once."""
    known = {spec.name for spec in signature.inputs}
    for position, name in enumerate(given):
        if name not in known:
            raise InvalidArgumentError(f"unexpected input {name!r}; {takes(signature, model)}")
        if name in given[:position]:
            raise InvalidArgumentError(f"input {name!r} is given twice")


def takes(signature: Signature, model: str) -> str:
    """Describe a model's inputs for messages."""
    return f"model {model!r} takes: {names(signature.inputs)}"


def check_outputs(signature: Signature, model: str, requested: Collection[str]) -> None:
    """Raise InvalidArgumentError unless every requested output is one of the model's."""
    known = {spec.name for spec in signature.outputs}
    for name in requested:
        if name not in known:
            raise InvalidArgumentError(
                f"unexpected inference output {name!r} for model {model!r}; "
                f"it has: {names(signature.outputs)}"
            )


def check_tensor(
    spec: TensorSpec, datatype: str, shape: Sequence[int], sizes: dict[str, tuple[int, str]]
) -> None:
    """Raise InvalidArgumentError unless datatype and shape fit.

    `sizes` holds, across the inputs of one request, the size of each symbolic dimension and the input that
    set it.
    """
    if datatype != spec.datatype:
        raise InvalidArgumentError(f"input {spec.name!r}: expected datatype {spec.datatype}, got {datatype}")
    mismatch = f"input {spec.name!r}: expected shape {show_shape(spec.shape)}, got {show_shape(shape)}"
    if len(shape) != len(spec.shape):
        raise InvalidArgumentError(mismatch)
    for expected, size in zip(spec.shape, shape, strict=True):
        if size < 0 or (isinstance(expected, int) and size != expected):
            raise InvalidArgumentError(mismatch)
        if isinstance(expected, str):
            agreed, elsewhere = sizes.setdefault(expected, (size, spec.name))
            if size != agreed:
                raise InvalidArgumentError(f"{mismatch}; {expected} is {agreed} in input {elsewhere!r}")


def rows_of(signature: Signature, inputs: Mapping[str, Array]) -> int:
    """Return the number of rows, 1 if not batched; raises InvalidArgumentError if the inputs differ."""
    given = [spec.name for spec in signature.inputs if spec.name in inputs]
    if not (signature.batched and given):
        return 1
    rows = len(inputs[given[0]])
    for name in given:
        if len(inputs[name]) != rows:
            raise InvalidArgumentError(
                f"input {name!r}: expected {rows} rows, as in input {given[0]!r}, got {len(inputs[name])}"
            )
    return rows

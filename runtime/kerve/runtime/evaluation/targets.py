"""Labels and weights of a batch: found by name, checked, and converted for the evaluation graphs."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerve.artifact.v1.manifest_pb2 import Evaluation
from kerve.runtime.datatypes import DATATYPES, Array
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.signature import Signature, show_shape

__all__ = ["WEIGHTS", "Labelled", "split"]

LABELS, WEIGHTS = "y", "sample_weight"


@dataclass(frozen=True)
class Labelled:
    """Rows with their labels and weights, by output."""

    inputs: Mapping[str, Array]
    labels: Mapping[str, Array]
    weights: Mapping[str, Array]
    rows: int


def split(
    arrays: Mapping[str, Array], signature: Signature, targets: Sequence[Evaluation.Target], first: int
) -> Labelled:
    """Split arrays into inputs, labels and weights, and check the labels.

    `first`: the position of the first row in the stream, for errors. Raises InvalidArgumentError with the
    row, the tensor and the expectation.
    """
    inputs = {spec.name: arrays[spec.name] for spec in signature.inputs if spec.name in arrays}
    alone = [LABELS] if len(targets) == 1 else []
    label_names = {target.output: _names(signature, target.output, *alone) for target in targets}
    weight_names = {
        target.output: _names(signature, f"{target.output}/{WEIGHTS}", WEIGHTS) for target in targets
    }
    known = {spec.name for spec in signature.inputs}.union(*label_names.values(), *weight_names.values())
    for name in arrays:
        if name not in known:
            raise InvalidArgumentError(f"unexpected tensor {name!r}; {_expected(signature, targets)}")
    for spec in signature.inputs:
        if spec.name not in inputs and not spec.optional:
            raise InvalidArgumentError(f"input {spec.name!r} is missing; {_expected(signature, targets)}")
    if any(array.ndim == 0 for array in arrays.values()):
        raise InvalidArgumentError("expected rows on axis 0 of every tensor, got a scalar")
    rows = len(next(iter(inputs.values())))
    for name, array in arrays.items():
        if len(array) != rows:
            raise InvalidArgumentError(
                f"tensor {name!r} has {len(array)} rows where input {next(iter(inputs))!r} has {rows}"
            )
    labels, weights = {}, {}
    for target in targets:
        given = [name for name in label_names[target.output] if name in arrays]
        if not given:
            raise InvalidArgumentError(
                f"the labels of output {target.output!r} are missing; {_expected(signature, targets)}"
            )
        if len(given) > 1:
            raise InvalidArgumentError(
                f"the labels of output {target.output!r} are given twice, as {given[0]!r} and {given[1]!r}"
            )
        labels[target.output] = _labels(given[0], arrays[given[0]], target, first)
        # weights given for an output take precedence over those for all outputs
        for name in [name for name in weight_names[target.output] if name in arrays][:1]:
            if name != WEIGHTS or target.weights_input or not any(each.weights_input for each in targets):
                weights[target.output] = _weights(name, arrays[name], target, first)
    return Labelled(inputs, labels, weights, rows)


def _names(signature: Signature, *names: str) -> list[str]:
    """Return the possible names of labels or weights, without those of inputs."""
    taken = {spec.name for spec in signature.inputs}
    return [name for name in dict.fromkeys(names) if name not in taken]


def _expected(signature: Signature, targets: Collection[Evaluation.Target]) -> str:
    inputs = ", ".join(spec.name for spec in signature.inputs)
    labels = ", ".join(target.output for target in targets)
    alone = f" (or {LABELS})" if len(targets) == 1 else ""
    return f"expected the inputs {inputs}, the labels {labels}{alone}, and optionally {WEIGHTS}"


def _labels(name: str, array: Array, target: Evaluation.Target, first: int) -> Array:
    expected = _shape(target.labels)
    fitted = _fitted(name, "labels", array, expected)
    if fitted.dtype.kind not in "biuf":
        raise InvalidArgumentError(f"labels {name!r}: expected numbers, got {array.dtype}")
    _require_finite(name, "labels", fitted, first)
    result: Array = fitted.astype(DATATYPES[target.labels.datatype].dtype)
    if result.dtype.kind == "i":
        _complain(
            result != fitted, lambda at: f"labels {name!r}: expected whole numbers, got {fitted[at]}", first
        )
    if target.classes:
        wrong = (result < 0) | (result >= target.classes)
        but = ""
        if target.HasField("ignored_class"):
            wrong &= result != target.ignored_class
            but = f" or {target.ignored_class}"
        last = target.classes - 1
        _complain(
            wrong,
            lambda at: f"labels {name!r}: expected a class from 0 to {last}{but}, got {result[at]}",
            first,
        )
    return result


def _weights(name: str, array: Array, target: Evaluation.Target, first: int) -> Array:
    if not target.weights_input:
        raise InvalidArgumentError(
            f"{name!r}: the loss and metrics of output {target.output!r} do not support sample weights; "
            "omit them"
        )
    if array.dtype.kind not in "biuf":
        raise InvalidArgumentError(f"weights {name!r}: expected numbers, got {array.dtype}")
    rank = len(target.weights.shape)
    squeezed = array.reshape(array.shape[:rank]) if _ends_in_ones(array, rank) else array
    if squeezed.ndim > rank:
        raise InvalidArgumentError(
            f"weights {name!r}: expected shape {show_shape(_shape(target.weights))}, got "
            f"{show_shape(array.shape)}"
        )
    _require_finite(name, "weights", squeezed, first)
    return squeezed.reshape(squeezed.shape + (1,) * (rank - squeezed.ndim)).astype(np.float32)


def _shape(spec: Any) -> list[int | str | None]:
    return [dim.size if dim.WhichOneof("kind") == "size" else (dim.symbol or None) for dim in spec.shape]


def _ends_in_ones(array: Array, rank: int) -> bool:
    return array.ndim > rank and all(size == 1 for size in array.shape[rank:])


def _fitted(name: str, kind: str, array: Array, expected: Sequence[int | str | None]) -> Array:
    """Return the array with the expected rank: as in Keras, a last dimension of 1 is added or removed."""
    fitted = array
    if array.ndim == len(expected) + 1 and array.shape[-1] == 1:
        fitted = array[..., 0]
    elif array.ndim == len(expected) - 1 and expected[-1] == 1:
        fitted = array[..., None]
    fits = fitted.ndim == len(expected) and all(
        not isinstance(want, int) or want == size for want, size in zip(expected, fitted.shape, strict=True)
    )
    if not fits:
        raise InvalidArgumentError(
            f"{kind} {name!r}: expected shape {show_shape(expected)}, got {show_shape(array.shape)}"
        )
    return fitted


def _require_finite(name: str, kind: str, array: Array, first: int) -> None:
    if array.dtype.kind == "f":
        _complain(
            ~np.isfinite(array),
            lambda at: f"{kind} {name!r}: expected finite numbers, got {array[at]}",
            first,
        )


def _complain(wrong: Array, what: Any, first: int) -> None:
    if not wrong.any():
        return
    at = tuple(np.argwhere(wrong)[0].tolist())
    where = f"row {first + at[0]}" + (f", element {show_shape(at[1:])}" if len(at) > 1 else "")
    raise InvalidArgumentError(f"{where}: {what(at)}")

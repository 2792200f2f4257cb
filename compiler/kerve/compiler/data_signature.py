"""Input signatures of models that do not know their inputs, inferred from the given data."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import keras
from numpy.typing import NDArray

from kerve.compiler.lowering.signature import knows_inputs
from kerve.compiler.verification.data import arrays_in

__all__ = ["signature_of"]

_LABELS = "y"  # as `input_data.py` and `fit` call them


def signature_of(source: Any, data: Path | None) -> Any:
    """Infer the input signature of a subclassed model from the arrays in `data`; None if not needed.

    Arrays saved without names are its positional arguments. Named arrays are arguments of those names, or
    the items of its only argument.
    """
    if data is None or not isinstance(source, keras.Model) or knows_inputs(source):
        return None
    specs = {name: _spec(source, array) for name, array in arrays_in(data).items()}
    listed = [specs[name] for index in range(len(specs)) if (name := f"arr_{index}") in specs]
    if listed:
        return tuple(listed)
    parameters = inspect.signature(source.call).parameters
    if "x" in specs and "x" not in parameters:
        return specs["x"]
    named = {name: spec for name, spec in specs.items() if name in parameters}
    return named or {name: spec for name, spec in specs.items() if name != _LABELS}


def _spec(model: keras.Model, array: NDArray[Any]) -> keras.InputSpec:
    """Return the spec of an array; Keras casts only floating-point inputs, to the model's input dtype."""
    kinds = {"f": str(model.input_dtype), "U": "string", "S": "string", "O": "string"}
    dtype = kinds.get(array.dtype.kind, array.dtype.name)
    return keras.InputSpec(shape=(None, *array.shape[1:]), dtype=dtype)

"""What a model takes, told by the data that comes with it, where the model itself cannot tell."""

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
    """Return the input signature of a subclassed model after the arrays in `data`; None if none is needed.

    Arrays that were saved without names are its arguments, in order. Others are arguments of those names, or
    the items of the one argument that it takes.
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
    """Keras takes fractions in the type of the model's inputs, and everything else as it is."""
    kinds = {"f": str(model.input_dtype), "U": "string", "S": "string", "O": "string"}
    dtype = kinds.get(array.dtype.kind, array.dtype.name)
    return keras.InputSpec(shape=(None, *array.shape[1:]), dtype=dtype)

"""Weights of quantized layers in the orders and shapes in which versions of Keras 3 saved them.

HDF5 files of whole models have the weights of a layer in the order of their creation: the float8 scales are
last in a layer that was quantized in memory, and first in a layer that was loaded. Keras 3.1 stored the bias
of int8 layers first in archives, and the scales of Dense with shape (1, units).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any
from unittest import mock

import keras
import numpy as np
from keras.src.legacy.saving import legacy_h5_format

__all__ = ["in_any_order"]

_LAYERS = (keras.layers.Dense, keras.layers.EinsumDense)
_SCALES = frozenset(
    f"{tensor}_{kind}"
    for tensor in ("inputs", "kernel", "outputs_grad")
    for kind in ("scale", "amax_history")
)


@contextmanager
def in_any_order() -> Iterator[None]:
    """Make Keras load the weights of quantized layers as any version of Keras 3 saved them."""
    hdf5: dict[str, Any] = {
        "load_subset_weights_from_hdf5_group": _with_names(
            legacy_h5_format.load_subset_weights_from_hdf5_group
        ),
        "_set_weights": _with_scales_last(legacy_h5_format._set_weights),
    }
    with ExitStack() as stack:
        stack.enter_context(mock.patch.multiple(legacy_h5_format, **hdf5))
        for layer in _LAYERS:
            load = _with_int8_kernel_first(layer.load_own_variables)
            stack.enter_context(mock.patch.object(layer, "load_own_variables", load))
        yield


class _Values(list[Any]):
    """Arrays with the names of their variables."""

    names: tuple[str, ...] = ()


def _with_names(read: Callable[[Any], list[Any]]) -> Callable[[Any], _Values]:
    @wraps(read)
    def load_subset_weights_from_hdf5_group(group: Any) -> _Values:
        values = _Values(read(group))
        paths = legacy_h5_format.load_attributes_from_hdf5_group(group, "weight_names")
        values.names = tuple(path.rpartition("/")[2] for path in paths)
        return values

    return load_subset_weights_from_hdf5_group


def _with_scales_last(assign: Callable[..., None]) -> Callable[..., None]:
    @wraps(assign)
    def set_weights(instance: Any, variables: list[Any], values: _Values, *args: Any, **options: Any) -> None:
        variables = sorted(variables, key=lambda variable: variable.name in _SCALES)
        order = sorted(range(len(values)), key=lambda index: values.names[index] in _SCALES)
        fitted = [_fitted(values[index], variable) for index, variable in zip(order, variables, strict=True)]
        assign(instance, variables, fitted, *args, **options)

    return set_weights


def _with_int8_kernel_first(load: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    @wraps(load)
    def load_own_variables(layer: Any, store: Any) -> None:
        if layer.built and layer.quantization_mode == "int8":
            values = [store[str(index)] for index in range(len(store.keys()))]
            values[:2] = sorted(values[:2], key=lambda value: value.dtype != np.int8)
            values[-1:] = [_fitted(value, layer.kernel_scale) for value in values[-1:]]
            store = {str(index): value for index, value in enumerate(values)}
        load(layer, store)

    return load_own_variables


def _fitted(value: Any, variable: Any) -> Any:
    """Return the value of a kernel's scale without the axes of length 1 that its variable lacks."""
    is_padded = variable.name == "kernel_scale" and value.shape == (1, *variable.shape)
    return value[0] if is_padded else value

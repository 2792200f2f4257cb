"""Int4 weights as Keras saved them before 3.14: packed along a contracted axis.

Keras now packs those of Dense and EinsumDense along the last axis, and quantizes the inputs of such layers
only on request. Loaded here, they keep their layout and compute as before: as int8, after unpacking.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import keras
from keras.src import quantizers
from keras.src.dtype_policies import dtype_policy

__all__ = ["as_written"]

_LAYERS = (keras.layers.Dense, keras.layers.EinsumDense)

#: The policy of int4 layers since Keras 3.14; None if the installed Keras is older and needs no patch.
_POLICY: Any = getattr(dtype_policy, "Int4DTypePolicy", None)

_EARLIER = re.compile(r"3\.(1[0-3]|\d)(\.|$)|$")


@contextmanager
def as_written(keras_version: str) -> Iterator[None]:
    """Build int4 layers as in the Keras that saved them; the version is empty if the file has none."""
    patched = _LAYERS if _POLICY is not None and _EARLIER.match(keras_version) else ()
    with ExitStack() as stack:
        for layer in patched:
            stack.enter_context(mock.patch.object(layer, "_int4_build", _building(layer._int4_build)))
        yield


def _building(build: Any) -> Any:
    def int4_build(layer: Any, kernel_shape: tuple[int, ...], config: Any = None) -> None:
        policy = layer.dtype_policy
        if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
            policy = policy[layer.path]
        if isinstance(policy, _POLICY):
            build(layer, kernel_shape, config)
            return
        axis = _packed_axis(layer)
        length = kernel_shape[axis]
        layer._int8_build((*kernel_shape[:axis], (length + 1) // 2, *kernel_shape[axis + 1 :]), config)
        layer._int4_call = partial(_int4_call, layer, length, axis)

    return int4_build


def _packed_axis(layer: Any) -> int:
    if not isinstance(layer, keras.layers.EinsumDense):
        return 0
    layer._set_quantization_info()
    return int(layer._kernel_reduced_axes[0])


def _int4_call(layer: Any, length: int, axis: int, inputs: Any, training: bool | None = None) -> Any:
    kernel = quantizers.unpack_int4(layer._kernel, length, axis=axis)
    return type(layer)._int8_call(_With(layer, kernel), inputs, training)


class _With:
    """A layer with another kernel."""

    def __init__(self, layer: Any, kernel: Any) -> None:
        self._layer = layer
        self._kernel = kernel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

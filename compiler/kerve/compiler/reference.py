"""A Keras model as a function from named arrays to named arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from kerve.compiler.lowering import Lowered

__all__ = ["keras_reference"]


def keras_reference(model: keras.Model, lowered: Lowered) -> Any:
    """Return what `model` computes in inference mode, under the names that its lowering gave."""

    def reference(inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        arguments = keras.tree.map_structure(lambda name: _tensor(inputs[name]), lowered.inputs)
        results = model(*arguments, training=False)
        names = keras.tree.flatten(lowered.outputs)
        return {
            name: np.asarray(keras.ops.convert_to_numpy(result))
            for name, result in zip(names, keras.tree.flatten(results), strict=True)
        }

    return reference


def _tensor(array: NDArray[Any]) -> Any:
    return keras.ops.convert_to_tensor(array.astype(str) if array.dtype == object else array)

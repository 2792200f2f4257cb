"""Triton's classification extension: top classes of an output, as `score:index` or `score:index:label`."""

import math

import numpy as np

from kerve.runtime.datatypes import BF16, Array, bfloat16_to_float32
from kerve.runtime.protocol.tensors import object_array
from kerve.runtime.signature import TensorSpec

__all__ = ["classify"]


def classify(spec: TensorSpec, array: Array, count: int, *, batched: bool) -> Array:
    """Return the top `count` classes of each row (of the whole array if not batched), best first, as BYTES.

    The output must be numeric.
    """
    values = bfloat16_to_float32(array) if spec.datatype == BF16.name else array
    scores = values.reshape(len(values), math.prod(values.shape[1:])) if batched else values.reshape(1, -1)
    # Stable: equal scores keep the order of the classes; NaN sorts before all numbers.
    keys = scores.astype(np.float64)
    order = np.lexsort((-keys, ~np.isnan(keys)), axis=1)[:, :count]
    texts = [
        show(scores[row, index], index, spec.labels).encode()
        for row, indices in enumerate(order.tolist())
        for index in indices
    ]
    return object_array(texts).reshape(order.shape if batched else order.shape[1:])


def show(score: float, index: int, labels: tuple[str, ...]) -> str:
    """Format one class; floats with six decimals, like C++'s std::to_string in Triton."""
    text = f"{score:.6f}" if isinstance(score, np.floating) else str(int(score))
    return f"{text}:{index}:{labels[index]}" if index < len(labels) else f"{text}:{index}"

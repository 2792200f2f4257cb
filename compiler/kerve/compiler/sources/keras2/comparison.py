"""Comparison of a model with its original, by running both on the same random inputs.

A translation is compared with its original, and a model rebuilt from its configuration with the saved graph.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from numpy.typing import NDArray

__all__ = ["first_difference", "first_mismatched_output"]

_BATCH = 3
#: Sizes for dynamic dimensions, tried until the original accepts one.
_SIZES = (7, 3, 32, 96, 224)
_SEED = 7
#: Scales of the random numbers, so that they span bucket boundaries (of ages, say).
_SCALES = (1, 10, 100)
_WORDS = ("", "the", "quick", "brown fox", "Kerve!", "0")
_TOLERANCE_OF_FLOATS = 1e-4
_TOLERANCE = {"float16": 2e-2, "bfloat16": 1e-1}
#: For rebuilt models: a graph and its layers round differently, the more so for large numbers; models with
#: another configuration differ by more.
_TOLERANCE_OF_BUILT = 1e-2
_MOST_WATCHED_BYTES = 1 << 30


def first_difference(
    old: tf_keras.Model, new: keras.Model, new_inputs: Any, tensors: Sequence[tuple[str, Any, Any]]
) -> str | None:
    """Return the name of the first layer whose outputs differ; None if the models are equal.

    `tensors` are (layer, old tensor, new tensor) in topological order. All of them are compared if they are
    small enough, since a saturating last layer hides earlier differences. Also returns None for a model that
    accepts no random inputs: the compile then verifies it on the user's data.
    """
    data = _accepted_inputs(old)
    if data is None:
        return None
    arguments = tf.nest.pack_sequence_as(old._nested_inputs, data)
    if tensors and sum(_bytes(before) for _, before, _ in tensors) <= _MOST_WATCHED_BYTES:
        watched = tf_keras.Model(old._nested_inputs, [before for _, before, _ in tensors])
        if _agree(watched, keras.Model(new_inputs, [after for _, _, after in tensors]), arguments):
            return None
    elif _agree(old, new, arguments):
        return None
    for name, before, after in tensors:
        if not _agree(tf_keras.Model(old._nested_inputs, before), keras.Model(new_inputs, after), arguments):
            return name
    return tensors[-1][0] if tensors else old.name


def first_mismatched_output(model: tf_keras.Model, saved: Any) -> str | None:
    """Return the name of an output that differs between a model and a signature saved with it.

    None if they agree or cannot be compared: because no random inputs are accepted, or because two calls of
    the model differ.
    """
    data = _accepted_inputs(model)
    if data is None:
        return None
    for scale in _SCALES:
        scaled = [x * tf.cast(scale, x.dtype) if x.dtype.is_floating else x for x in data]
        if (output := _unlike(model, saved, scaled)) is not None:
            return output
    return None


def _unlike(model: tf_keras.Model, saved: Any, data: list[Any]) -> str | None:
    arguments = tf.nest.pack_sequence_as(model._nested_inputs, data)
    try:  # scaled numbers may be out of range as ids
        built, again = _run(model, arguments), _run(model, arguments)
        results = saved(**dict(zip(model.input_names, data, strict=True)))
    except (tf.errors.OpError, ValueError, TypeError):
        return None
    finally:
        _reset(model)
    compared = zip(model.output_names, built, again, strict=True)
    for name, one, other in compared:
        if _close(one, other) and not _close(one, results[name].numpy(), _TOLERANCE_OF_BUILT):
            return name
    return None


def _bytes(tensor: Any) -> int:
    dims = [_SIZES[0] if dim is None else dim for dim in tensor.shape[1:]]
    return int(np.prod(dims, dtype=np.int64)) * _BATCH * max(tensor.dtype.size, 1)


def _agree(old: tf_keras.Model, new: keras.Model, arguments: Any) -> bool:
    expected = _run(old, arguments)
    try:
        actual = _run(new, arguments)
    except (tf.errors.OpError, ValueError, TypeError):  # not supported by Keras 3
        return False
    if all(_close(before, after) for before, after in zip(expected, actual, strict=True)):
        return True
    # Two calls of the original differ in its random outputs too. Those are compared by shape here; the
    # verification of the compiled model compares their distributions.
    again = _run(old, arguments)
    return all(
        _close(before, after) or (before.shape == after.shape and not _close(before, other))
        for before, after, other in zip(expected, actual, again, strict=True)
    )


def _accepted_inputs(old: tf_keras.Model) -> list[Any] | None:
    for size, whole_numbers in itertools.product(_SIZES, (False, True)):  # ids may be floats in Keras 2
        rng = np.random.default_rng(_SEED)
        samples = _Samples(rng, size, _vocabulary(old), whole_numbers, _mask_value(old))
        data = [samples.draw(tensor) for tensor in tf.nest.flatten(old.inputs)]
        try:
            _run(old, tf.nest.pack_sequence_as(old._nested_inputs, data))
        except (tf.errors.OpError, ValueError, TypeError):
            continue
        return data
    return None


def _vocabulary(old: tf_keras.Model) -> int:
    """Return the number of values that an integer input may take."""
    sizes = [
        getattr(layer, "input_dim", None) or getattr(layer, "num_tokens", None)
        for layer in old._flatten_layers()
    ]
    return min((size for size in sizes if isinstance(size, int)), default=8)


def _mask_value(old: tf_keras.Model) -> float:
    """Return the padding value of a model."""
    values = (
        layer.mask_value for layer in old._flatten_layers() if isinstance(layer, tf_keras.layers.Masking)
    )
    return float(next(values, 0.0))


@dataclass(frozen=True)
class _Samples:
    """A source of random inputs."""

    rng: np.random.Generator
    open_size: int
    vocabulary: int
    whole_numbers: bool
    mask_value: float

    def draw(self, tensor: Any) -> Any:
        """Return values for an input."""
        batch, *dims = tensor.shape
        shape = [batch or _BATCH, *(self.open_size if dim is None else dim for dim in dims)]
        if tensor.dtype == tf.string:
            return tf.constant(self.rng.choice(_WORDS, shape))
        if tensor.dtype == tf.bool:
            return tf.constant(self.rng.random(shape) < 0.5)
        if self.whole_numbers or tensor.dtype.is_integer:
            return tf.cast(self._ids(shape), tensor.dtype)
        values = self.rng.standard_normal(shape)
        if len(shape) > 2:  # steps with features
            self._pad(values, self.mask_value)
        return tf.cast(values, tensor.dtype)

    def _ids(self, shape: list[int]) -> Any:
        values = self.rng.integers(0, self.vocabulary, shape)
        if len(shape) > 1:
            self._pad(values, 0)
        return values

    def _pad(self, values: NDArray[Any], padding: float) -> None:
        """Pad the end of a row, from a random step, like a shorter sequence."""
        steps = values.shape[1]
        values[0, self.rng.integers(steps // 2, steps) :] = padding


def _run(model: Any, arguments: Any) -> list[NDArray[Any]]:
    results = tf.nest.flatten(model(arguments, training=False))
    _reset(model)
    return [np.asarray(result) for result in results]


def _reset(model: Any) -> None:
    """Reset the states of stateful layers."""
    for layer in model._flatten_layers():
        if getattr(layer, "stateful", False) and isinstance(layer, keras.layers.RNN):
            for state in keras.tree.flatten(layer.states):  # Keras does not reset those of stacked cells
                state.assign(keras.ops.zeros_like(state))
        elif getattr(layer, "stateful", False) and isinstance(layer, tf_keras.layers.RNN):
            layer.reset_states()


def _close(before: NDArray[Any], after: NDArray[Any], least: float = _TOLERANCE_OF_FLOATS) -> bool:
    if before.shape != after.shape:
        return False
    if before.dtype.kind in "OSU":
        return bool(np.array_equal(before, after))
    expected, actual = before.astype(np.float64), after.astype(np.float64)
    tolerance = max(least, _TOLERANCE.get(before.dtype.name, least))
    scale = max(1.0, float(np.nanmax(np.abs(expected), initial=0.0, where=np.isfinite(expected))))
    return bool(np.allclose(actual, expected, rtol=tolerance, atol=tolerance * scale, equal_nan=True))

"""Layers that only Keras 1 had, implemented in Keras 3, with the argument names of Keras 1."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

__all__ = ["KERAS_1_LAYERS"]


class _Dense(keras.layers.Layer):
    """The configuration common to dense layers."""

    def __init__(
        self,
        use_bias: bool = True,
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._use_bias = use_bias
        self._kernel_regularizer, self._bias_regularizer = kernel_regularizer, bias_regularizer


class Highway(_Dense):
    """A dense layer whose gate g mixes its output and its inputs: g * dense + (1 - g) * inputs."""

    def __init__(self, activation: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._activation = keras.activations.get(activation)

    def build(self, input_shape: Any) -> None:
        """Create the weights in the order in which Keras 1 saved them."""
        size = input_shape[-1]
        self._kernel = self.add_weight((size, size), name="W", regularizer=self._kernel_regularizer)
        self._gate_kernel = self.add_weight((size, size), name="W_carry")
        if self._use_bias:
            self._offset = self.add_weight((size,), name="b", regularizer=self._bias_regularizer)
            self._gate_offset = self.add_weight((size,), name="b_carry")

    def call(self, inputs: Any) -> Any:
        """Return the gated sum."""
        gate, dense = ops.matmul(inputs, self._gate_kernel), ops.matmul(inputs, self._kernel)
        if self._use_bias:
            gate, dense = gate + self._gate_offset, dense + self._offset
        gate = ops.sigmoid(gate)
        return self._activation(dense) * gate + (1.0 - gate) * inputs


class MaxoutDense(_Dense):
    """The maximum of several dense layers."""

    def __init__(self, units: int, nb_feature: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._units, self._count = units, nb_feature

    def build(self, input_shape: Any) -> None:
        """Create the weights of all of them."""
        shape = (self._count, input_shape[-1], self._units)
        self._kernels = self.add_weight(shape, name="W", regularizer=self._kernel_regularizer)
        if self._use_bias:
            shape_of_offsets = (self._count, self._units)
            self._offsets = self.add_weight(shape_of_offsets, name="b", regularizer=self._bias_regularizer)

    def call(self, inputs: Any) -> Any:
        """Return the maximum for each unit."""
        dense = ops.einsum("bi,fio->bfo", inputs, self._kernels)
        return ops.max(dense + self._offsets if self._use_bias else dense, axis=1)


class Cosine(keras.layers.Layer):
    """Merge in mode "cos": the dot product of two tensors, divided by those of each with itself."""

    def __init__(self, axes: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._dot = keras.layers.Dot(axes)

    def call(self, inputs: Any) -> Any:
        """Return the quotient, with an additional axis after the first."""
        first, second = inputs
        square = self._dot([first, first]) * self._dot([second, second])
        norm = ops.maximum(ops.sqrt(square), keras.config.epsilon())
        return ops.expand_dims(self._dot([first, second]) / norm, 1)


class ParametricSoftplus(keras.layers.Layer):
    """`alpha * log(1 + exp(beta * x))`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Create a pair of weights for each element."""
        self._alphas = self.add_weight(input_shape[1:], name="alphas")
        self._betas = self.add_weight(input_shape[1:], name="betas")

    def call(self, inputs: Any) -> Any:
        """Apply the function."""
        return ops.softplus(self._betas * inputs) * self._alphas


class SReLU(keras.layers.Layer):
    """The identity between two thresholds, linear with other slopes outside (arXiv:1512.07030)."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True

    def build(self, input_shape: Any) -> None:
        """Create four weights for each element; the right threshold is stored relative to the left."""
        names = ("t_left", "a_left", "t_right", "a_right")
        self._parameters = [self.add_weight(input_shape[1:], name=name) for name in names]

    def call(self, inputs: Any) -> Any:
        """Apply the function, adding the parts as Keras 1 does."""
        left, left_slope, distance, right_slope = self._parameters
        right = left + ops.abs(distance)
        above = ops.clip(inputs - left, 0.0, ops.abs(distance))
        below = left_slope * ops.minimum(inputs - left, 0.0)
        return left + above + below + ops.relu(inputs - right) * right_slope


class SampleNormalization(keras.layers.Layer):
    """BatchNormalization of Keras 1 in mode 1: normalizes each sample over its last axis."""

    def __init__(
        self, epsilon: float, gamma_regularizer: Any = None, beta_regularizer: Any = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.supports_masking = True
        self._epsilon = epsilon
        self._gamma_regularizer, self._beta_regularizer = gamma_regularizer, beta_regularizer

    def build(self, input_shape: Any) -> None:
        """Create the weights; the batch statistics are saved too, but not used."""
        shape = input_shape[-1:]
        self._gamma = self.add_weight(shape, name="gamma", regularizer=self._gamma_regularizer)
        self._beta = self.add_weight(shape, name="beta", regularizer=self._beta_regularizer)
        for name in ("running_mean", "running_std"):
            self.add_weight(shape, name=name, trainable=False)

    def call(self, inputs: Any) -> Any:
        """Normalize; Keras 1 adds epsilon twice."""
        mean = ops.mean(inputs, axis=-1, keepdims=True)
        deviation = ops.sqrt(ops.var(inputs, axis=-1, keepdims=True) + self._epsilon)
        return self._gamma * (inputs - mean) / (deviation + self._epsilon) + self._beta


KERAS_1_LAYERS = {
    layer.__name__: layer
    for layer in (Cosine, Highway, MaxoutDense, ParametricSoftplus, SReLU, SampleNormalization)
}

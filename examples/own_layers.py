"""Custom layers, as `kerve compile --import own_layers.py` needs them to read a file that uses them."""

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("examples")
class Projection(keras.layers.Layer):
    """A matrix product written with TensorFlow operations."""

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], self.units))

    def call(self, inputs: Any) -> Any:
        return tf.nn.relu(tf.matmul(inputs, self.kernel))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Projection":
        return cls(**config)


@keras.saving.register_keras_serializable("examples")
class Standardize(keras.layers.Layer):
    """Row-wise standardization written with keras.ops."""

    def call(self, inputs: Any) -> Any:
        mean, variance = keras.ops.moments(inputs, axes=[-1], keepdims=True)
        return (inputs - mean) * keras.ops.rsqrt(variance + 1e-3)

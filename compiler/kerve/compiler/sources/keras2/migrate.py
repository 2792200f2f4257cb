"""Conversion of configurations of Keras 1 and 2 to the form of the last Keras 2."""

from __future__ import annotations

from typing import Any

import numpy as np

from kerve.compiler.sources.keras2 import explicit_padding, keras1, keras1_graphs, legacy

__all__ = ["migrated"]

#: cuDNN layers run on GPUs only; these are equivalent, and Keras converts the weights when loading.
_CUDNN: dict[str, tuple[str, dict[str, Any]]] = {
    "CuDNNGRU": ("GRU", {"activation": "tanh", "recurrent_activation": "sigmoid", "reset_after": True}),
    "CuDNNLSTM": ("LSTM", {"activation": "tanh", "recurrent_activation": "sigmoid"}),
}

#: Values of keys that are missing because the writer is older than the key.
_BEFORE_THE_KEY: dict[str, dict[str, Any]] = {
    "GRU": {"reset_after": False},
    "GRUCell": {"reset_after": False},
    "MultiHeadAttention": {"query_shape": None, "key_shape": None, "value_shape": None},
}

_OLD_NAMES = {"BatchNormalizationV1": "BatchNormalization", "BatchNormalizationV2": "BatchNormalization"}


def migrated(config: Any, keras_version: str, is_theano: bool = False) -> Any:
    """Return the converted configuration of a model or layer.

    `keras_version` is that of the writer, `is_theano` whether it used Theano. Layers may be replaced by those
    of `legacy.LEGACY_LAYERS` and `explicit_padding.PADDED_LAYERS`.
    """
    if keras1.is_writer(keras_version):
        config = keras1_graphs.with_dim_orderings(config)
    return _migrated(config, keras_version, is_theano)


def _migrated(config: Any, keras_version: str, is_theano: bool) -> Any:
    if isinstance(config, list):
        return [_migrated(item, keras_version, is_theano) for item in config]
    if not isinstance(config, dict):
        return config
    fields = {key: _migrated(value, keras_version, is_theano) for key, value in config.items()}
    if fields.get("class_name") == "function":  # Keras 2.13 and later write this but can load only the name
        return fields["config"]
    if isinstance(fields.get("class_name"), str) and isinstance(fields.get("config"), dict):
        return _layer(fields, keras_version, is_theano)
    if fields.get("class_name") == "Sequential" and fields.get("config"):
        return keras1_graphs.sequential(fields)
    return fields


def _layer(fields: dict[str, Any], keras_version: str, is_theano: bool) -> dict[str, Any]:
    name, config = fields["class_name"], fields["config"]
    if keras1.is_writer(keras_version) or name in keras1.ONLY_IN_KERAS_1:
        name, config = keras1.modernized(name, config)
    name = _OLD_NAMES.get(name, name)
    if name != "Lambda":  # decodes such arguments itself
        config = {key: _number(value) for key, value in config.items()}
    inner = _BEFORE_THE_KEY.get(name, {}) | config
    if name in _CUDNN:
        name, same = _CUDNN[name]
        inner = inner | same
    name, inner = explicit_padding.padded(name, inner, is_theano)
    if name == "MultiHeadAttention" and "inbound_nodes" in fields:
        fields = {**fields, "inbound_nodes": _with_mask_tensors(fields["inbound_nodes"])}
    return {**fields, "class_name": legacy.class_name(name, inner, keras_version), "config": inner}


def _with_mask_tensors(node: Any) -> Any:
    """Return the calls of a MultiHeadAttention, which takes no lists, with constant masks as tensors."""
    if isinstance(node, list):
        return [_with_mask_tensors(item) for item in node]
    if not isinstance(node, dict) or not isinstance(mask := node.get("attention_mask"), list):
        return node
    if any(isinstance(item, str) for item in mask):  # the output of a layer
        return node
    values = np.asarray(mask, np.float32).tolist()
    # as tf_keras writes tensors to JSON
    return {
        **node,
        "attention_mask": {"class_name": "CompositeTensor", "spec": None, "tensors": [["float32", values]]},
    }


def _number(value: Any) -> Any:
    """Return the number that TensorFlow 1.11 wrote as a NumPy array, such as the 6.0 of a ReLU."""
    is_array = isinstance(value, dict) and set(value) == {"type", "value"} and value["type"] == "ndarray"
    return value["value"] if is_array else value

"""Translation of one layer of Keras 2 to an equivalent layer of Keras 3."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import keras
import tf_keras
from tf_keras.src.saving.legacy.saved_model.load import RevivedLayer

from kerve.compiler.activations import keras2_hard_sigmoid
from kerve.compiler.sources.keras2.bridges import NewLayer, OldFunction
from kerve.compiler.sources.keras2.merging import as_in_keras_2

__all__ = ["UntranslatableError", "clean_name", "layer"]


class UntranslatableError(Exception):
    """Keras 3 has no equivalent of this layer or of its configuration."""


_OTHER_NAMES = {"SyncBatchNormalization": "BatchNormalization"}

_OTHER_KEYS = {("LeakyReLU", "alpha"): "negative_slope"}

#: Keys that do not affect the outputs of a layer with given weights.
_WITHOUT_EFFECT = frozenset(
    {
        "batch_input_shape", "dynamic", "force_generator", "implementation", "input_length", "key_shape",
        "noise_shape", "query_shape", "ragged", "rng_type", "robust_masking", "softmax_robust_masking",
        "sparse", "synchronized", "value_shape", "vocabulary_size",
    }
)  # fmt: skip

#: Keys that Keras 3 lacks, with the value that corresponds to its behavior.
_NEUTRAL: dict[str, Any] = {
    "groups": 1,
    "time_major": False,
    "virtual_batch_size": None,
    "adjustment": None,
    "output_padding": None,
}

_LOOKUPS = ("IntegerLookup", "StringLookup", "TextVectorization")


#: Translates a layer of Keras 2 that is part of another.
Translate = Callable[[Any], Any]


def layer(old: tf_keras.layers.Layer, translate: Translate) -> keras.layers.Layer:
    """Return an unbuilt Keras 3 layer of the same configuration; raises `UntranslatableError`.

    `translate` is called for nested layers.
    """
    if isinstance(old, NewLayer):
        return old.new
    if isinstance(old, RevivedLayer):
        raise UntranslatableError(f"its SavedModel holds only functions of {old.name}")
    if not type(old).__module__.startswith("tf_keras."):
        raise UntranslatableError(f"{type(old).__name__} is a custom class, written for Keras 2")
    name = _OTHER_NAMES.get(type(old).__name__, type(old).__name__)
    new_class = getattr(keras.layers, name, None)
    if new_class is None:
        raise UntranslatableError(f"Keras 3 has no {name}")
    if name in _OTHER_LAYERS:
        return _OTHER_LAYERS[name](old)
    new = as_in_keras_2(new_class)(**_config(old, name, _parameters(new_class), translate))
    if type(old).compute_mask is tf_keras.layers.Layer.compute_mask:
        new.supports_masking = bool(old.supports_masking)
    for part in ("forward_layer", "backward_layer") if name == "Bidirectional" else ():
        masked = getattr(getattr(old, part), "zero_output_for_mask", None)
        getattr(new, part).zero_output_for_mask = masked
    return new


#: Layers that are created from other arguments.
_OTHER_LAYERS: dict[str, Callable[[Any], keras.layers.Layer]] = {
    "Lambda": lambda old: keras.layers.Lambda(
        old.function, arguments=old.arguments, mask=old.mask, name=clean_name(old.name)
    ),
    # Keras 3's Identity returns its input tensor itself, with its mask.
    "Identity": lambda old: keras.layers.Lambda(keras.ops.copy, name=clean_name(old.name)),
    # At inference Keras 2 resizes, but Keras 3 crops.
    "RandomCrop": lambda old: keras.layers.Resizing(
        old.height, old.width, crop_to_aspect_ratio=True, name=clean_name(old.name)
    ),
}


def clean_name(name: str) -> str:
    """Return a name that Keras 3 accepts."""
    return name.replace("/", "_")


def _config(old: Any, name: str, parameters: frozenset[str], translate: Translate) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for old_key, value in old.get_config().items():
        key = _OTHER_KEYS.get((name, old_key), old_key)
        if key == "trainable" or key.endswith(("_initializer", "_constraint")):
            continue
        if key in parameters:
            config[key] = _value(old, name, key, value, translate)
        elif key in _WITHOUT_EFFECT or _is_of_parent(old, key):
            continue
        elif key not in _NEUTRAL or value != _NEUTRAL[key]:
            raise UntranslatableError(f"Keras 3's {name} has no {key}={value!r}")
    if name in _LOOKUPS:
        config["vocabulary"] = old.get_vocabulary(include_special_tokens=False)
    return config


def _is_of_parent(old: Any, key: str) -> bool:
    """Return whether a key is inherited and unused, such as `filters` of a depthwise convolution."""
    return key in ("filters", "kernel_regularizer", "pool_function") and type(old).__name__.startswith(
        ("Depthwise", "Separable", "Max", "Average")
    )


def _value(old: Any, name: str, key: str, value: Any, translate: Translate) -> Any:
    if key == "name":
        return clean_name(value)
    if key == "dtype":
        return old._dtype_policy.name if old._dtype_policy.name != "_infer" else None
    if key.endswith("activation") or key == "activation":
        return _activation(getattr(old, key), translate)
    if key.endswith("regularizer"):
        return _regularizer(getattr(old, key, None))
    if key in ("layer", "backward_layer", "cell"):
        return translate(_inner(old, key))
    if key == "cells":
        return [translate(cell) for cell in old.cells]
    if name == "BatchNormalization" and key == "axis" and isinstance(value, list | tuple):
        if len(value) != 1:
            raise UntranslatableError(f"Keras 3's BatchNormalization has no axis={value!r}")
        return value[0]
    return value


def _inner(old: Any, key: str) -> Any:
    forward = getattr(old, "forward_layer", None) if key == "layer" else None
    return forward if forward is not None else getattr(old, key)


def _activation(function: Any, translate: Translate) -> Any:
    """Return the equivalent function of Keras 3."""
    if function is None:
        return None
    if isinstance(function, tf_keras.layers.Layer):
        return translate(function)
    if function is tf_keras.activations.hard_sigmoid:
        return keras2_hard_sigmoid
    name = getattr(function, "__name__", "")
    if getattr(tf_keras.activations, name, None) is function:
        return getattr(keras.activations, name)
    if _takes_symbols(function):
        return function
    return OldFunction(function, name if name.isidentifier() else None, takes_symbols=True)


def _takes_symbols(function: Callable[..., Any]) -> bool:
    """Return whether a custom function works with operations of Keras 3."""
    try:
        return isinstance(function(keras.KerasTensor((2, 3))), keras.KerasTensor)
    except Exception:  # noqa: BLE001  # custom code may raise anything on a symbolic tensor
        return False


def _regularizer(old: Any) -> Any:
    """Translate the regularizers that `evaluate` needs for the loss; others do not change the outputs."""
    name = type(old).__name__
    if old is None or not type(old).__module__.startswith("tf_keras."):
        return None
    return getattr(keras.regularizers, name).from_config(old.get_config())


@cache
def _parameters(new_class: type) -> frozenset[str]:
    """Return the keyword arguments of a class of Keras 3, including its parents' if it passes them on."""
    names: set[str] = set()
    for cls in new_class.__mro__:
        if "__init__" not in vars(cls):
            continue
        parameters = inspect.signature(vars(cls)["__init__"]).parameters.values()
        names |= {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    if issubclass(new_class, keras.layers.Layer):
        names |= {"name", "dtype"}
    return frozenset(names - {"self"})

"""The `output_padding` of transposed convolutions, which Keras 3.0 to 3.14 do not save.

It is inferred from the size of the layer's output, which the file contains as another layer's input shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from keras.src.backend.common import backend_utils

__all__ = ["LAYERS", "completed"]

_Fields = dict[str, Any]
_Shape = list[Any]  # None for a dynamic dimension

#: Layers that do not change the shape; Keras does not save the input shape of all of them.
_KEEP_SHAPE = frozenset(
    {
        "Activation",
        "AlphaDropout",
        "Dropout",
        "ELU",
        "GaussianDropout",
        "GaussianNoise",
        "Identity",
        "LeakyReLU",
        "ReLU",
        "Softmax",
        *(f"SpatialDropout{rank}D" for rank in (1, 2, 3)),
    }
)

LAYERS = ("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")


def completed(layers: list[Any]) -> list[Any]:
    """Return the layers of a model, with `output_padding` added where other layers determine it."""
    layers_only = [layer for layer in layers if isinstance(layer, dict)]
    calls = [layer.get("inbound_nodes") for layer in layers_only]
    given = {**_in_sequence(layers_only), **dict(_referred_to(calls))}
    return [_completed(layer, given) if _lacks(layer) else layer for layer in layers]


def _lacks(layer: Any) -> bool:
    return (
        isinstance(layer, dict)
        and layer.get("class_name") in LAYERS
        and isinstance(layer.get("config"), dict)
        and "output_padding" not in layer["config"]
    )


def _in_sequence(layers: list[Any]) -> dict[Any, Any]:
    """Return the output shapes of a Sequential's layers, by name: each is the next layer's input shape."""
    if any("inbound_nodes" in layer or not isinstance(layer.get("config"), dict) for layer in layers):
        return {}
    given: dict[Any, Any] = {}
    shape: Any = None
    for layer in reversed(layers):
        given[layer["config"].get("name")] = shape
        if _taken(layer) or layer.get("class_name") not in _KEEP_SHAPE:
            shape = _taken(layer)
    return given


def _taken(layer: _Fields) -> Any:
    build = layer.get("build_config")
    return build.get("input_shape") if isinstance(build, dict) else None


def _referred_to(node: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the layers whose first call's output is used by other layers, with its shape."""
    if isinstance(node, dict):
        history = node.get("keras_history")
        if isinstance(history, list) and history[1:] == [0, 0]:
            yield history[0], node.get("shape")
        node = list(node.values())
    if isinstance(node, list):
        for item in node:
            yield from _referred_to(item)


def _completed(layer: _Fields, given: dict[Any, Any]) -> _Fields:
    with suppress(KeyError, TypeError, ValueError, IndexError):  # Keras reports invalid configurations
        return _with_padding(layer, given)
    return layer


def _with_padding(layer: _Fields, given: dict[Any, Any]) -> _Fields:
    config = layer["config"]
    taken, result = _taken(layer), given.get(config.get("name"))
    if not taken or not result or len(taken) != len(result) or None in _sides(config, result):
        return layer
    padding = None if _result(config, taken, None) == result else _excess(config, taken, result)
    return {**layer, "config": {**config, "output_padding": padding}}


def _excess(config: _Fields, taken: _Shape, result: _Shape) -> list[int]:
    least = _result(config, taken, [0] * len(config["strides"]))
    return [there - here for there, here in zip(_sides(config, result), _sides(config, least), strict=True)]


def _sides(config: _Fields, shape: _Shape) -> _Shape:
    return shape[2:] if config["data_format"] == "channels_first" else shape[1:-1]


def _result(config: _Fields, taken: _Shape, padding: list[int] | None) -> _Shape:
    shape = backend_utils.compute_conv_transpose_output_shape(
        taken,
        config["kernel_size"],
        config["filters"],
        tuple(config["strides"]),
        config["padding"],
        padding,
        config["data_format"],
        config["dilation_rate"],
    )
    return list(shape)

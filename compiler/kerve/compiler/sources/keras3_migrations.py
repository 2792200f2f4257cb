"""Configurations of earlier versions of Keras 3 that the installed version reads differently."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kerve.compiler.sources import call_indices, output_padding

__all__ = ["ambiguities", "migrate"]

_Fields = dict[str, Any]

#: Keys that their layer no longer accepts, written by Keras 3.0 to 3.5; they do not affect outputs.
_GONE = {"RandomRotation": frozenset({"value_range"})}


@dataclass(frozen=True)
class _Unwritten:
    """A key that Keras 3 did not write for some layers before a version, so that its default is assumed."""

    key: str
    layers: tuple[str, ...]
    until: str
    #: The warning on what is assumed, with a placeholder for the layer's name.
    assumption: str
    #: Whether the key matters for a configuration that lacks it.
    matters: Callable[[_Fields], bool] = lambda _: True


_UNWRITTEN = (
    _Unwritten(
        key="alpha",
        layers=("ELU",),
        until="3.11",
        assumption="do not save the alpha of an ELU, so that of '{}' is taken to be 1.0, as Keras does; "
        "compare with the original model's outputs, or compile the model object",
    ),
    _Unwritten(
        key="output_padding",
        layers=output_padding.LAYERS,
        until="3.14",
        assumption="do not save the output_padding of a transposed convolution, and nothing else in the file "
        "determines that of '{}', so it is taken to be none; compare the sizes of the model's outputs, or "
        "compile the model object",
        matters=lambda config: set(config.get("strides", ())) != {1},
    ),
    _Unwritten(
        key="rms_scaling",
        layers=("LayerNormalization",),
        until="3.3",
        assumption="do not save rms_scaling, and nothing else in the file determines that of the "
        "LayerNormalization '{}', so it is taken to be False; compare with the original model's outputs, or "
        "compile the model object",
        # One weight with or without rms_scaling. Otherwise the number of weights shows which.
        matters=lambda config: config.get("center", True) != config.get("scale", True),
    ),
)


def migrate(config: Any) -> Any:
    """Return the configuration of a model in the form of the installed Keras.

    Raises `LoadError` if it does not determine what the model computes.
    """
    if isinstance(config, list):
        return [migrate(item) for item in config]
    if not isinstance(config, dict):
        return config
    fields = {key: migrate(value) for key, value in config.items()}
    inner = fields.get("config")
    if isinstance(inner, dict):
        gone = _GONE.get(str(fields.get("class_name")), frozenset())
        bare = {key: value for key, value in _bare(fields, inner).items() if key not in gone}
        fields["config"] = call_indices.renumbered(bare)
        if isinstance(layers := fields["config"].get("layers"), list):
            fields["config"]["layers"] = output_padding.completed(layers)
    return fields


def ambiguities(config: Any) -> list[str]:
    """Return warnings on keys that a configuration lacks though they may matter."""
    return [
        f"Keras 3.0 to {each.until} {each.assumption.format(layer['config'].get('name'))}"
        for each in _UNWRITTEN
        for name in each.layers
        for layer in _layers(config, name)
        if each.key not in layer["config"] and each.matters(layer["config"])
    ]


def _bare(fields: _Fields, inner: _Fields) -> _Fields:
    """Make models within a Sequential or a wrapper return a tensor, as they did before Keras 3.4.

    Since then a list of one output stays a list, which neither can pass on.
    """
    if fields.get("class_name") == "Sequential" and isinstance(inner.get("layers"), list):
        return {**inner, "layers": [_returning_a_tensor(layer) for layer in inner["layers"]]}
    return {**inner, "layer": _returning_a_tensor(inner["layer"])} if "layer" in inner else inner


def _returning_a_tensor(layer: Any) -> Any:
    if not isinstance(layer, dict) or layer.get("class_name") not in call_indices.FUNCTIONAL:
        return layer
    inner = layer["config"]
    single = {
        key: inner[key][0]
        for key in ("input_layers", "output_layers")
        if isinstance(inner.get(key), list) and len(inner[key]) == 1 and isinstance(inner[key][0], list)
    }
    return {**layer, "config": {**inner, **single}}


def _layers(node: Any, class_name: str) -> Iterator[_Fields]:
    if isinstance(node, list):
        for item in node:
            yield from _layers(item, class_name)
    if isinstance(node, dict):
        if node.get("class_name") == class_name and isinstance(node.get("config"), dict):
            yield node
        yield from _layers(list(node.values()), class_name)

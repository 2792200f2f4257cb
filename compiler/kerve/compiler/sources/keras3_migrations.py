"""What earlier versions of Keras 3 wrote otherwise than the installed one reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kerve.compiler.sources import call_indices, output_padding

__all__ = ["ambiguities", "migrate"]

_Fields = dict[str, Any]

#: Keys without effect on what a layer answers, which their layer takes no more; Keras 3.0 to 3.5 wrote them.
_GONE = {"RandomRotation": frozenset({"value_range"})}


@dataclass(frozen=True)
class _Unwritten:
    """A key that layers lacked in files until a version of Keras 3, so that its default is assumed."""

    key: str
    layers: tuple[str, ...]
    until: str
    #: What is assumed of a layer, whose name is filled in.
    assumption: str
    #: Whether a configuration without the key leaves anything open.
    matters: Callable[[_Fields], bool] = lambda _: True


_UNWRITTEN = (
    _Unwritten(
        key="alpha",
        layers=("ELU",),
        until="3.11",
        assumption="do not write down the alpha of an ELU, so that of '{}' is taken for 1.0, as Keras reads "
        "it; compare with the model's own answers, or compile the model object",
    ),
    _Unwritten(
        key="output_padding",
        layers=output_padding.LAYERS,
        until="3.14",
        assumption="do not write down the output_padding of a transposed convolution, and nothing else in "
        "the file tells that of '{}', so it is taken for none; compare the sizes of what the model gives, or "
        "compile the model object",
        matters=lambda config: set(config.get("strides", ())) != {1},
    ),
    _Unwritten(
        key="rms_scaling",
        layers=("LayerNormalization",),
        until="3.3",
        assumption="do not write down rms_scaling, and nothing else in the file tells that of the "
        "LayerNormalization '{}', so it is taken for False; compare with the model's own answers, or "
        "compile the model object",
        # one weight with rms_scaling and without; of others the number of weights tells
        matters=lambda config: config.get("center", True) != config.get("scale", True),
    ),
)


def migrate(config: Any) -> Any:
    """Return the configuration of a model as the installed Keras reads it.

    Raises `LoadError` where it does not say what the model computes.
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
    """Return what a configuration does not say though it may matter, in sentences."""
    return [
        f"Keras 3.0 to {each.until} {each.assumption.format(layer['config'].get('name'))}"
        for each in _UNWRITTEN
        for name in each.layers
        for layer in _layers(config, name)
        if each.key not in layer["config"] and each.matters(layer["config"])
    ]


def _bare(fields: _Fields, inner: _Fields) -> _Fields:
    """Let models that are called by Sequential and by wrappers return a tensor, as they did before Keras 3.4.

    Since then a list of one output is a list, which neither passes on.
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

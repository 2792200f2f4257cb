"""What earlier versions of Keras 3 wrote otherwise than the installed one reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from kerve.compiler.errors import LoadError
from kerve.compiler.sources import output_padding

__all__ = ["ambiguities", "migrate"]

_Fields = dict[str, Any]

#: Keys without effect on what a layer answers, which their layer takes no more; Keras 3.0 to 3.5 wrote them.
_GONE = {"RandomRotation": frozenset({"value_range"})}

_FUNCTIONAL = frozenset({"Functional", "Model"})


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
        fields["config"] = {key: value for key, value in _bare(fields, inner).items() if key not in gone}
        _check_calls(fields["config"])
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
    if not isinstance(layer, dict) or layer.get("class_name") not in _FUNCTIONAL:
        return layer
    inner = layer["config"]
    single = {
        key: inner[key][0]
        for key in ("input_layers", "output_layers")
        if isinstance(inner.get(key), list) and len(inner[key]) == 1 and isinstance(inner[key][0], list)
    }
    return {**layer, "config": {**inner, **single}}


def _check_calls(inner: _Fields) -> None:
    """Keras 3.2 writes of a layer that is called twice that its first result is used twice."""
    layers = inner.get("layers")
    if not isinstance(layers, list) or "output_layers" not in inner:
        return
    used: dict[str, set[int]] = {}
    for name, call in _references([*_calls(layers), inner["output_layers"]]):
        used.setdefault(name, set()).add(call)
    for layer in layers:
        name = str(layer.get("name"))
        calls = layer.get("inbound_nodes")
        if isinstance(calls, list) and 1 < len(calls) > len(used.get(name, ())):
            raise LoadError(
                f"the file says that '{name}' is called {len(calls)} times and not what becomes of each "
                "result, as Keras 3.2 wrote it; load its weights into the model in Python, and compile the "
                "object, or save it with another version of Keras"
            )


def _calls(layers: list[Any]) -> Iterator[Any]:
    return (layer.get("inbound_nodes") for layer in layers if isinstance(layer, dict))


def _references(node: Any) -> Iterator[tuple[str, int]]:
    """The results that are used: layers by name, and which of their calls."""
    if isinstance(node, dict):
        node = [node["keras_history"]] if "keras_history" in node else list(node.values())
    if not isinstance(node, list):
        return
    if len(node) == 3 and isinstance(node[0], str) and isinstance(node[1], int):
        yield node[0], node[1]
        return
    for item in node:
        yield from _references(item)


def _layers(node: Any, class_name: str) -> Iterator[_Fields]:
    if isinstance(node, list):
        for item in node:
            yield from _layers(item, class_name)
    if isinstance(node, dict):
        if node.get("class_name") == class_name and isinstance(node.get("config"), dict):
            yield node
        yield from _layers(list(node.values()), class_name)

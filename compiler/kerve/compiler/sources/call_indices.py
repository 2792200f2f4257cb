"""Indices of the calls of a layer, in functional models of Keras 3.

Up to Keras 3.2, files contain the calls made in the model, but their indices count all calls of the layer,
including those in other models. The indices in `output_layers` count the model's calls only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from kerve.compiler.errors import LoadError

__all__ = ["FUNCTIONAL", "renumbered"]

_Fields = dict[str, Any]

#: Class names of a model within another.
FUNCTIONAL = frozenset({"Functional", "Model"})


def renumbered(inner: _Fields) -> _Fields:
    """Return the configuration of a model, with indices that count the calls in the model.

    Raises `LoadError` if the configuration does not determine which call each index refers to.
    """
    layers = inner.get("layers")
    if not isinstance(layers, list) or "output_layers" not in inner:
        return inner
    calls = [layer.get("inbound_nodes") for layer in layers if isinstance(layer, dict)]
    used, returned = _by_layer(calls), _by_layer(inner["output_layers"])
    numbers: dict[str, Mapping[int, int]] = {}
    for layer in layers:
        name = str(layer.get("name"))
        if layer.get("inbound_nodes"):  # inputs have none
            first = int(layer.get("class_name") in FUNCTIONAL)  # whose own graph counts as a call
            last = {number - first for number in returned.get(name, ())}
            numbers[name] = _positions(name, len(layer["inbound_nodes"]), used.get(name, set()), last)
    return {**inner, "layers": [_numbered(layer, numbers) for layer in layers]}


def _positions(name: str, count: int, used: set[int], returned: set[int]) -> Mapping[int, int]:
    """Map the `used` indices to positions among the model's `count` calls; `returned` are positions."""
    if not used or max(used) < count:
        if 1 < count > len(used | returned):
            raise _unclear(name, count, "Keras 3.2")
        return {}
    places = sorted(set(range(count)) - returned) if len(used) < count else range(count)
    if len(places) != len(used):
        raise _unclear(name, count, "Keras 3.0 and 3.1")
    return dict(zip(sorted(used), places, strict=True))


def _unclear(name: str, count: int, writer: str) -> LoadError:
    calls = "once" if count == 1 else f"{count} times"
    return LoadError(
        f"'{name}' is called {calls}, and the file, as {writer} wrote it, does not state where each result "
        "is used; build the model in Python, load the weights from the file, and compile the object, or save "
        "it with another version of Keras"
    )


def _by_layer(node: Any) -> dict[str, set[int]]:
    numbers: dict[str, set[int]] = {}
    for name, number in _references(node):
        numbers.setdefault(name, set()).add(number)
    return numbers


def _references(node: Any) -> Iterator[tuple[str, int]]:
    """Yield the references to results: the layer's name and the index of the call."""
    if isinstance(node, dict):
        node = [node["keras_history"]] if "keras_history" in node else list(node.values())
    if not isinstance(node, list):
        return
    if _is_reference(node):
        yield node[0], node[1]
        return
    for item in node:
        yield from _references(item)


def _is_reference(node: list[Any]) -> bool:
    return len(node) == 3 and isinstance(node[0], str) and isinstance(node[1], int)


def _numbered(layer: Any, numbers: Mapping[str, Mapping[int, int]]) -> Any:
    if not isinstance(layer, dict) or not any(numbers.values()):
        return layer
    return {**layer, "inbound_nodes": _with_numbers(layer.get("inbound_nodes"), numbers)}


def _with_numbers(node: Any, numbers: Mapping[str, Mapping[int, int]]) -> Any:
    if isinstance(node, dict):
        return {key: _with_numbers(value, numbers) for key, value in node.items()}
    if not isinstance(node, list):
        return node
    if _is_reference(node):
        return [node[0], numbers.get(node[0], {}).get(node[1], node[1]), node[2]]
    return [_with_numbers(item, numbers) for item in node]

"""Axis orders that layers of Keras 1 do not save, and Sequential models, which may begin with a Merge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

__all__ = ["BRANCH", "sequential", "with_dim_orderings"]

#: The name prefix of the models that a Sequential begins with, which have no names in its configuration.
BRANCH = "branch_of_merge_"

_Fields = dict[str, Any]

#: Layers whose axis order is not in their configuration: it was a global setting.
_SILENT = frozenset(
    {"Cropping2D", "Cropping3D", "UpSampling2D", "UpSampling3D", "ZeroPadding2D", "ZeroPadding3D"}
)

#: The keys for a layer's input type, in either version.
_TYPES = ("dtype", "input_dtype")


def with_dim_orderings(config: Any) -> Any:
    """Return a model's configuration with the axis order of the other layers added to those that lack it."""
    stated = {node["dim_ordering"] for node in _dictionaries(config) if "dim_ordering" in node}
    return _stating(config, stated.pop()) if len(stated) == 1 else config


def _dictionaries(config: Any) -> Iterator[_Fields]:
    if isinstance(config, dict):
        yield config
    if isinstance(config, dict | list):
        for value in config.values() if isinstance(config, dict) else config:
            yield from _dictionaries(value)


def _stating(config: Any, order: str) -> Any:
    if isinstance(config, list):
        return [_stating(item, order) for item in config]
    if not isinstance(config, dict):
        return config
    fields = {key: _stating(value, order) for key, value in config.items()}
    if fields.get("class_name") in _SILENT:
        fields["config"] = {"dim_ordering": order, **fields["config"]}
    return fields


def sequential(fields: _Fields) -> _Fields:
    """Return a serialized Sequential, whose layers are already converted, in the form of Keras 2."""
    first, *rest = fields["config"]
    name = {"name": fields["name"]} if fields.get("name") else {}
    if "branches" in first["config"]:
        config = {"name": "merged", **name, **_merging(first, rest)}
        return {**fields, "class_name": "Functional", "config": config}
    # A Sequential without a name is a plain list.
    return {**fields, "config": {**name, "layers": fields["config"]} if name else fields["config"]}


def _merging(merge: _Fields, rest: list[_Fields]) -> _Fields:
    """Return a graph: inputs, a model for each branch, the merging layer, the other layers in sequence."""
    branches = merge["config"].pop("branches")
    inputs: list[_Fields] = []
    merged: list[_Fields] = []
    for index, branch in enumerate(branches):
        own = list(_inputs(branch, f"input_{index}"))
        inputs.extend(own)
        name = f"{BRANCH}{index}" if _is_model(branch) else branch["config"]["name"]
        merged.append(_called(branch, name, own))
    nodes = list(merged)
    for index, layer in enumerate((merge, *rest)):
        merged = [_called(layer, _name(layer) or f"sequential_{index}", merged)]
        nodes.extend(merged)
    return {
        "layers": [*inputs, *nodes],
        "input_layers": [[each["name"], 0, 0] for each in inputs],
        "output_layers": [_tensor(merged[0])[:3]],
    }


def _is_model(layer: _Fields) -> bool:
    return isinstance(layer["config"], list) or "layers" in layer["config"]


def _called(layer: _Fields, name: str, on: list[_Fields]) -> _Fields:
    config = layer["config"]
    config = {"layers": config} if isinstance(config, list) else config
    calls = [[_tensor(each) for each in on]]
    return {**layer, "name": name, "config": {**config, "name": name}, "inbound_nodes": calls}


def _tensor(layer: _Fields) -> list[Any]:
    """Return the reference to a layer's output: node 1 for a model, whose node 0 is its construction."""
    return [layer["name"], int(_is_model(layer)), 0, {}]


def _name(layer: _Fields) -> str:
    config = layer["config"]
    return str(layer.get("name") or (config.get("name") if isinstance(config, dict) else None) or "")


def _inputs(branch: _Fields, default: str) -> Iterator[_Fields]:
    """Yield the inputs of a branch, a model or a layer, under the names that Keras 1 gave them."""
    config = branch["config"]
    if isinstance(config, list):
        yield from _inputs(config[0], default)
    elif "input_layers" in config:
        layers = {_name(layer): layer for layer in config["layers"]}
        for name, *_ in config["input_layers"]:
            yield _input(name, layers[name]["config"])
    else:
        yield _input(f"{config.get('name', default)}_input", config)


def _input(name: str, config: _Fields) -> _Fields:
    kind = next((config[key] for key in _TYPES if config.get(key)), "float32")
    shape = config["batch_input_shape"]
    inner = {"name": name, "batch_input_shape": shape, "dtype": kind, "sparse": False}
    return {"class_name": "InputLayer", "name": name, "config": inner, "inbound_nodes": []}

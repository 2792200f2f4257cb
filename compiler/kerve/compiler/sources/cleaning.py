"""Removing from a configuration what only training needs.

Losses, optimizers, initializers and constraints do not change the outputs of a trained model, so custom ones
need not be available. Regularizers are part of what `evaluate` computes: dropping one is reported.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import keras

__all__ = ["cleaned"]

_OF_TRAINING = frozenset({"compile_config"})

_PACKAGES_OF_KERAS = frozenset({"builtins", "keras", "tensorflow", "tf_keras"})


def _plain(name: str) -> str:
    """Normalize the spellings of one name: he_normal, HeNormal, HeNormalV2."""
    short = name.rpartition(">")[2].rpartition(".")[2]
    return short.removesuffix("V1").removesuffix("V2").replace("_", "").lower()


def _names_in(module: Any, *former: str) -> frozenset[str]:
    return frozenset({_plain(name) for name in dir(module)} | set(former))


#: For each kind of object, the normalized names of all that Keras has or had.
_KNOWN = {
    "initializer": _names_in(keras.initializers, "initializer", "normal", "one", "uniform", "zero"),
    "regularizer": _names_in(keras.regularizers, "activityregularizer", "weightregularizer"),
    "constraint": _names_in(keras.constraints, "nonneg"),
}


def cleaned(config: Any, own: Collection[str]) -> tuple[Any, list[str]]:
    """Return the cleaned configuration, of any version of Keras, and warnings of what `evaluate` will miss.

    `own` are the names of the user's classes and functions, which are kept.
    """
    missed: dict[str, None] = {}
    return _cleaned(config, frozenset(own), missed), [
        f"the regularizer {name} is not known, so its part of the loss is left out; "
        "name the module that defines it with --import MODULE (custom_objects= in Python)"
        for name in missed
    ]


def _cleaned(node: Any, own: frozenset[str], missed: dict[str, None]) -> Any:
    if isinstance(node, list):
        return [_cleaned(item, own, missed) for item in node]
    if not isinstance(node, dict):
        return node
    fields = {key: value for key, value in node.items() if key not in _OF_TRAINING}
    if _names(node) & own:
        return fields  # the configurations of custom classes are left to those classes
    return {key: _field(key, value, own, missed) for key, value in fields.items()}


def _field(key: str, value: Any, own: frozenset[str], missed: dict[str, None]) -> Any:
    kind = next((kind for kind in _KNOWN if key.endswith(kind)), None)
    if kind is None or not isinstance(value, str | dict) or not _is_strange(value, kind, own):
        return _cleaned(value, own, missed)
    if kind == "regularizer":
        missed[min(_names(value))] = None
    return None


def _is_strange(value: str | dict[str, Any], kind: str, own: frozenset[str]) -> bool:
    names = _names(value)
    if not names or names & own:
        return False
    if isinstance(value, dict):
        package = str(value.get("module") or "keras").partition(".")[0]
        if package not in _PACKAGES_OF_KERAS or ">" in str(value.get("registered_name")):
            return True
    return not {_plain(name) for name in names} & _KNOWN[kind]


def _names(value: Any) -> set[str]:
    """Return the names under which a serialized object, or a name, may be among the user's objects."""
    if isinstance(value, str):
        return {value, value.rpartition(">")[2]}
    target = value.get("config" if value.get("class_name") == "function" else "class_name")
    names = {name for name in (target, value.get("registered_name")) if isinstance(name, str)}
    return names | {name.rpartition(">")[2] for name in names}

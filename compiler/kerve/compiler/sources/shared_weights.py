"""Loading weights stored in a group for each layer, with a check that every layer gets its own.

Keras saves the weights of a layer once, in the group where it first encounters it. A layer shared by a model
and a model nested in it is created once for each when loading, and all but the first find no weights.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest import mock

from kerve.compiler.errors import LoadError

__all__ = ["checked_weight_loading", "with_separate_copies"]

#: The attributes with the weights owned by a layer, in both versions of Keras.
_OWN = ("_trainable_variables", "_non_trainable_variables", "_trainable_weights", "_non_trainable_weights")

#: Objects for which loading failed and Keras's error, by the object's `id`.
_Failures = dict[int, tuple[Any, Exception]]


def with_separate_copies(config: Any) -> Any:
    """Return the configuration of a model such that each nested model creates its own copy of a shared layer.

    If Keras reuses a layer created for another model, it takes the calls there for calls of this model.
    """
    counts = Counter(_shared_among_models(config))
    return _without(config, {name for name, count in counts.items() if count > 1})


def _shared_among_models(config: Any) -> Iterator[Any]:
    if isinstance(config, dict):
        if "inbound_nodes" in config and "shared_object_id" in config:
            yield str(config["shared_object_id"])
        config = list(config.values())
    if isinstance(config, list):
        for item in config:
            yield from _shared_among_models(item)


def _without(config: Any, identities: Collection[str]) -> Any:
    if isinstance(config, list):
        return [_without(item, identities) for item in config]
    if not isinstance(config, dict):
        return config
    fields = {key: _without(value, identities) for key, value in config.items()}
    if "inbound_nodes" in fields and str(fields.get("shared_object_id")) in identities:
        del fields["shared_object_id"]
    return fields


@contextmanager
def checked_weight_loading(reader: ModuleType) -> Iterator[None]:
    """Make `reader`, the `saving_lib` of either Keras, load weights for every layer or raise `LoadError`."""
    with mock.patch.object(reader, "_load_state", _Loading(reader._load_state)):
        yield


class _Loading:
    """A wrapper of Keras's `_load_state`, which calls it recursively; records what each layer finds."""

    def __init__(self, load: Any) -> None:
        self._load = load
        self._depth = 0
        self._failures: _Failures = {}
        self._given: set[int] = set()
        self._lacking: dict[int, bool] = {}

    def __call__(
        self, saveable: Any, weights_store: Any, assets_store: Any, inner_path: str, **options: Any
    ) -> None:
        # Keras 3 collects failures, since a layer may occur again under another name; Keras 2 raises them.
        failed = options.get("failed_saveables")
        failures = self._failures if failed is None else options["error_msgs"]
        self._depth += 1
        try:
            self._load(saveable, weights_store, assets_store, inner_path, **options)
        except ValueError as error:
            failures[id(saveable)] = saveable, error
        finally:
            self._depth -= 1
        if id(saveable) in failures:
            lacks = _lacks(weights_store, inner_path)
            self._lacking[id(saveable)] = lacks and self._lacking.get(id(saveable), True)
        else:
            self._given.add(id(saveable))
        if not self._depth:
            self._complete(saveable, failures, set() if failed is None else failed)

    def _complete(self, model: Any, failures: _Failures, failed: set[int]) -> None:
        copies = {key for key in failures if self._lacking.get(key)}
        for copy in _completed(model, copies):
            failures.pop(id(copy))
            failed.discard(id(copy))
            self._given.add(id(copy))
        for _, error in self._failures.values():
            raise error
        if not failures:
            self._require_all(model)

    def _require_all(self, model: Any) -> None:
        """Raise `LoadError` for layers that Keras did not visit: it did not when saving the file either."""
        left = [
            f"'{layer.name}'" for _, layer in _named(model) if _owns(layer) and id(layer) not in self._given
        ]
        if left:
            shown = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
            raise LoadError(
                f"the file has no weights for {shown}: Keras does not save layers that another one keeps "
                "in sets or, before 3.15, in lists within lists or dicts; save it with model.export(), "
                "keep them in attributes or plain lists, or compile the model object"
            )


def _lacks(weights: Any, inner_path: str) -> bool:
    return weights is not None and bool(inner_path) and not len(weights.get(inner_path).keys())


def _owns(layer: Any) -> bool:
    """Return whether a layer has weights of its own, not only those of its sublayers."""
    return any(getattr(layer, name, None) for name in _OWN)


def _completed(model: Any, copies: set[int]) -> Iterator[Any]:
    """Copy the weights of the original layers to their copies; yields the copies that were set."""
    named = list(_named(model)) if copies else []
    for name, copy in named:
        if id(copy) not in copies:
            continue
        config = copy.get_config()
        originals = {
            id(layer): layer
            for other, layer in named
            if other == name and type(layer) is type(copy) and id(layer) not in copies
            if layer.get_config() == config
        }
        if len(originals) == 1:
            (original,) = originals.values()
            copy.set_weights(original.get_weights())
            yield copy


def _named(layer: Any, within: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield all sublayers, each with its path of names from the model that contains it."""
    for child in layer._flatten_layers(recursive=False, include_self=False):
        name = (*within, child.name)
        yield name, child
        yield from _named(child, () if hasattr(child, "predict_step") else name)

"""Weights that lie in groups, as the layers do: what each layer is given, and what nobody is.

Keras writes the weights of a layer once, where it meets it first. One that a model has in common with a model
within it is built once for each when the file is read, and all but the first find nothing there.
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

#: Where layers of either Keras keep the weights that are their own.
_OWN = ("_trainable_variables", "_non_trainable_variables", "_trainable_weights", "_non_trainable_weights")

#: What Keras says of those that got no weights, by their identity.
_Failures = dict[int, tuple[Any, Exception]]


def with_separate_copies(config: Any) -> Any:
    """Return the configuration of a model in which each model within builds its own copy of a layer.

    Where Keras finds what was built for another one, it takes the calls there for calls here.
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
    """Have `reader`, the `saving_lib` of either Keras, give each layer its weights, or raise `LoadError`."""
    with mock.patch.object(reader, "_load_state", _Loading(reader._load_state)):
        yield


class _Loading:
    """Keras's `_load_state`, which calls itself by its name, with an eye on what each layer finds."""

    def __init__(self, load: Any) -> None:
        self._load = load
        self._depth = 0
        self._failures: _Failures = {}
        self._given: set[int] = set()
        self._lacking: dict[int, bool] = {}

    def __call__(
        self, saveable: Any, weights_store: Any, assets_store: Any, inner_path: str, **options: Any
    ) -> None:
        # Keras 3 collects failures, since it may meet a layer again under another name; Keras 2 raises them.
        failed = options.get("failed_saveables")
        told = self._failures if failed is None else options["error_msgs"]
        self._depth += 1
        try:
            self._load(saveable, weights_store, assets_store, inner_path, **options)
        except ValueError as error:
            told[id(saveable)] = saveable, error
        finally:
            self._depth -= 1
        if id(saveable) in told:
            lacks = _lacks(weights_store, inner_path)
            self._lacking[id(saveable)] = lacks and self._lacking.get(id(saveable), True)
        else:
            self._given.add(id(saveable))
        if not self._depth:
            self._complete(saveable, told, set() if failed is None else failed)

    def _complete(self, model: Any, told: _Failures, failed: set[int]) -> None:
        copies = {key for key in told if self._lacking.get(key)}
        for copy in _completed(model, copies):
            told.pop(id(copy))
            failed.discard(id(copy))
            self._given.add(id(copy))
        for _, error in self._failures.values():
            raise error
        if not told:
            self._require_all(model)

    def _require_all(self, model: Any) -> None:
        """Raise `LoadError` for layers that Keras did not come by: it did not when the file was written."""
        left = [
            f"'{layer.name}'" for _, layer in _named(model) if _owns(layer) and id(layer) not in self._given
        ]
        if left:
            shown = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
            raise LoadError(
                f"the file has no weights for {shown}: Keras leaves out layers that another one keeps in "
                "sets and, before 3.15, in lists within lists or dicts; save the model with model.export(), "
                "keep them in attributes or plain lists, or compile the model object"
            )


def _lacks(weights: Any, inner_path: str) -> bool:
    return weights is not None and bool(inner_path) and not len(weights.get(inner_path).keys())


def _owns(layer: Any) -> bool:
    """Whether a layer has weights that are not those of a layer within it."""
    return any(getattr(layer, name, None) for name in _OWN)


def _completed(model: Any, copies: set[int]) -> Iterator[Any]:
    """Give layers the weights of the one that they are a copy of; yields those that have them now."""
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
    """The layers below one, each by the names that lead to it from the model that has it."""
    for child in layer._flatten_layers(recursive=False, include_self=False):
        name = (*within, child.name)
        yield name, child
        yield from _named(child, () if hasattr(child, "predict_step") else name)

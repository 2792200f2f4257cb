"""Build Sequential models of Keras 3 only once when loading them.

Keras rebuilds the model for each added layer, so that loading a few hundred layers takes minutes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import keras

__all__ = ["built_once"]


@contextmanager
def built_once() -> Iterator[None]:
    """Make Keras build the Sequential models that it loads only after adding their last layer."""
    read = keras.Sequential.from_config.__func__

    def from_config(cls: type[Any], config: Mapping[str, Any], custom_objects: Any = None) -> Any:
        count = len(config.get("layers", ()))

        class Deferred(cls):
            def add(self, layer: Any, rebuild: bool = True) -> None:
                super().add(layer, rebuild=rebuild and len(self._layers) + 1 >= count)

        model = read(Deferred, config, custom_objects)
        object.__setattr__(model, "__class__", cls)
        return model

    with mock.patch.object(keras.Sequential, "from_config", classmethod(from_config)):
        yield

"""Globals for Lambda functions: Keras saves their bytecode without the module that defined them."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

__all__ = ["KERAS_2", "KERAS_3", "with_lambda_globals"]

#: The modules behind `tf.keras`, whose backend still has the functions commonly used as `K`.
KERAS_2, KERAS_3 = "tf_keras", "keras._tf_keras.keras"


@contextmanager
def with_lambda_globals(reader: ModuleType, library: str, own: Mapping[str, Any]) -> Iterator[None]:
    """Provide the user's objects, and libraries by their usual names, as globals of functions in bytecode.

    `reader` is the module that calls `func_load`; `library` is `KERAS_2` or `KERAS_3`.
    """
    load = reader.func_load

    def func_load(code: Any, defaults: Any = None, closure: Any = None, globs: Any = None) -> Any:
        return load(code, defaults, closure, {**_usual(library), **(globs or {}), **own})

    reader.func_load = func_load  # type: ignore[attr-defined]
    try:
        yield
    finally:
        reader.func_load = load  # type: ignore[attr-defined]


def _usual(library: str) -> dict[str, Any]:
    module = importlib.import_module(library)
    parts = {name: getattr(module, name, None) for name in ("layers", "ops")}
    return {"K": module.backend, "keras": module, "math": math, "np": np, "tf": tf, **parts}

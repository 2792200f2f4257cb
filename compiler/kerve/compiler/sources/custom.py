"""Custom layers and functions, from imported modules and from the caller."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from kerve.compiler.errors import LoadError

__all__ = ["objects"]


def objects(imports: Iterable[str], given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Import the modules; returns the objects that they define, by name, updated with `given`.

    Classes registered with `register_keras_serializable` are found by Keras itself once imported.
    Raises `LoadError` for a module that cannot be imported.
    """
    found: dict[str, Any] = {}
    for name in imports:
        found |= _defined_in(_module(name))
    return found | dict(given or {})


def _module(name: str) -> ModuleType:
    try:
        if not name.endswith(".py"):
            return importlib.import_module(name)
        spec = importlib.util.spec_from_file_location(Path(name).stem, name)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script may call sys.exit
        raise LoadError(
            f"cannot import {name!r} ({type(error).__name__}: {error}); "
            "give a module that Python finds from here, or the path of a .py file"
        ) from error
    return module


def _defined_in(module: ModuleType) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if callable(value) and _home(value) == module.__name__
    }


def _home(value: Any) -> str | None:
    """Return the module that defines an object, or the function in a wrapper of TensorFlow."""
    return getattr(getattr(value, "__wrapped__", value), "__module__", None)

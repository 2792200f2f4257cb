"""Avoid imports that a compile does not need: a quarter of the CPU time of a small one."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

__all__ = ["import_libraries"]

#: Imported on first use: onnx_ir needs SymPy only for arithmetic on symbolic dimensions, which is rare.
_LATER = ("sympy", "onnx_ir._symbolic_shapes")

#: Keras imports scikit-learn if it is installed, and with it SciPy, for wrappers that no model file can
#: refer to, and pandas to recognize data frames, while data here is always arrays.
_UNUSED = ("sklearn", "pandas")


def import_libraries() -> None:
    """Import Keras and onnx_ir without the modules that a compile does not need.

    Later imports are not affected.
    """
    with _withheld(_UNUSED):
        importlib.import_module("keras")
    with _postponed(_LATER):
        importlib.import_module("onnx_ir")


@contextmanager
def _withheld(names: Sequence[str]) -> Iterator[None]:
    """Make modules appear not to be installed."""
    absent = [name for name in names if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # makes an import raise ModuleNotFoundError
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


@contextmanager
def _postponed(names: Sequence[str]) -> Iterator[None]:
    """Defer the execution of modules until one of their attributes is used."""
    finder = _Finder(names)
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder:
    def __init__(self, names: Sequence[str]) -> None:
        self._names = names

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the module's spec with a deferring loader; None for modules left to the other finders."""
        spec = PathFinder.find_spec(name, path, target) if name in self._names else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, inner: Loader) -> None:
        self._inner = inner

    def exec_module(self, module: ModuleType) -> None:
        """Defer the execution to the first access of a missing attribute."""
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = self._inner
        module.__class__ = _Postponed


class _Postponed(ModuleType):
    """A module that is executed when a missing attribute is accessed.

    (importlib's own LazyLoader executes it on any attribute access, and TensorFlow's autograph reads the
    `__file__` of every module.)
    """

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        self.__class__ = ModuleType  # type: ignore[assignment]  # it is one
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)

"""Which function lowers which Keras operation.

A handler is a free function that mirrors the `call` method of the class it stands for::

    @HANDLERS.register("layers.Dense")
    def dense(g: Lowering, layer: keras.layers.Dense, inputs: ir.Value) -> ir.Value: ...

It receives ONNX values where `call` receives tensors, under the same argument names, and returns ONNX
values in the structure that `call` returns. Arguments that are None, and `training=False`, are not
passed. Names are `layers.<Class>` for layers of Keras and `<module>.<Class>` for operations of
`keras.ops` (`numpy.Add`, `nn.Softmax`, `core.Cond`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["Handler", "Handlers"]

Handler = Callable[..., Any]


class Handlers:
    """A table from operation names to handlers; naming one operation twice is an error."""

    def __init__(self, parts: Iterable[Handlers] = ()) -> None:
        self._table: dict[str, Handler] = {}
        for part in parts:
            for name, handler in part._table.items():
                self.add(name, handler)

    def register(self, *names: str) -> Callable[[Handler], Handler]:
        """Decorate the handler of the named operations."""

        def decorate(handler: Handler) -> Handler:
            for name in names:
                self.add(name, handler)
            return handler

        return decorate

    def add(self, name: str, handler: Handler) -> None:
        """Enter one handler."""
        if name in self._table:
            raise ValueError(f"{name} has two handlers: {self._table[name]} and {handler}")
        self._table[name] = handler

    def find(self, operation: object) -> Handler | None:
        """Return the handler that is true for this operation, or None.

        A subclass of a known class is lowered like its parent only if it inherits the parent's `call`.
        """
        for cls in type(operation).__mro__:
            handler = self._table.get(_name(cls))
            if handler is not None:
                return handler if _call(type(operation)) is _call(cls) else None
        return None

    @property
    def names(self) -> list[str]:
        """The names of all operations that have a handler, sorted."""
        return sorted(self._table)


def _call(cls: type) -> object:
    return getattr(cls, "call", None)


def _name(cls: type) -> str:
    module = cls.__module__
    if module.startswith("keras.src.layers."):
        return f"layers.{cls.__name__}"
    if module.startswith("keras.src.ops."):
        return f"{module.removeprefix('keras.src.ops.')}.{cls.__name__}"
    return ""

"""The table of handlers: functions that lower Keras operations.

A handler is a free function that mirrors the `call` method of the class it stands for::

    @HANDLERS.register("layers.Dense")
    def dense(g: Lowering, layer: keras.layers.Dense, inputs: ir.Value) -> ir.Value: ...

It receives ONNX values where `call` receives tensors, under the same argument names, and returns ONNX values
in the structure that `call` returns; or `NotImplemented`, before it adds any node, if the layer's own `call`
should be replayed. Arguments that are None, and `training=False`, are not passed. Names are `layers.<Class>`
for layers of Keras, `<module>.<Class>` for operations of `keras.ops` (`numpy.Add`, `nn.Softmax`,
`core.Cond`), `activations.<Class>` for `keras.activations`, and `tensorflow.<Operator>` for operators of
TensorFlow that tf2onnx does not convert (`ops/tensorflow.py`).

The results are cast to the types that Keras infers (`g.spec`). A handler registered as `typed` determines the
types of its own results: Keras's inference is skipped, because it fails on dynamic sizes, or is wrong.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["Handler", "Handlers", "is_amended", "name_of"]

Handler = Callable[..., Any]


class Handlers:
    """A table from operation names to handlers; registering a name twice is an error."""

    def __init__(self, parts: Iterable[Handlers] = ()) -> None:
        self._table: dict[str, Handler] = {}
        self._typed: set[Handler] = set()
        for part in parts:
            for name, handler in part._table.items():
                self.add(name, handler, typed=handler in part._typed)

    def register(self, *names: str, typed: bool = False) -> Callable[[Handler], Handler]:
        """Decorate the handler of the named operations."""

        def decorate(handler: Handler) -> Handler:
            for name in names:
                self.add(name, handler, typed=typed)
            return handler

        return decorate

    def add(self, name: str, handler: Handler, *, typed: bool = False) -> None:
        """Add one handler."""
        if name in self._table:
            raise ValueError(f"{name} has two handlers: {self._table[name]} and {handler}")
        self._table[name] = handler
        if typed:
            self._typed.add(handler)

    def is_typed(self, handler: Handler) -> bool:
        """Whether the handler determines the types of its own results."""
        return handler in self._typed

    def named(self, name: str) -> Handler | None:
        """Return the handler of that name, or None."""
        return self._table.get(name)

    def find(self, operation: object) -> Handler | None:
        """Return the handler that applies to this operation, or None.

        A subclass of a known class is lowered like its parent only if it inherits `call` and whatever `call`
        may use, such as a convolution's `convolution_op`; patched objects and classes have no handler.
        """
        if is_amended(operation):
            return None
        for cls in type(operation).__mro__:
            handler = self._table.get(name_of(cls))
            if handler is not None:
                return None if _computes_otherwise(type(operation), cls) else handler
        return None

    @property
    def names(self) -> list[str]:
        """The names of all operations that have a handler, sorted."""
        return sorted(self._table)


#: Attributes that a subclass may override without changing the computation.
_HARMLESS = frozenset(
    {
        "add_weight",
        "build",
        "build_from_config",
        "compute_mask",
        "compute_output_shape",
        "compute_output_spec",
        "from_config",
        "get_build_config",
        "get_config",
        "load_own_variables",
        "loss",
        "quantize",
        "save_own_variables",
    }
)


def _computes_otherwise(cls: type, parent: type) -> bool:
    """Whether `cls` overrides an attribute of `parent` that the computation may depend on."""
    inherited = parent.__mro__
    return any(
        hasattr(parent, name) and name not in _HARMLESS and not name.startswith("__")
        for derived in cls.__mro__
        if derived not in inherited
        for name in vars(derived)
    )


def is_amended(operation: object) -> bool:
    """Whether a method was replaced on the object (`layer.call = ...`), or `call` on Keras's own class."""
    cls = type(operation)
    if any(inspect.isfunction(getattr(cls, name, None)) for name in vars(operation).keys() - _HARMLESS):
        return True
    call = getattr(cls, "call", None)
    return bool(name_of(cls)) and not getattr(call, "__module__", "").startswith("keras.")


_LAYERS = ("keras.src.layers.", "keras.src.utils.jax_layer", "keras.src.utils.torch_utils")


def name_of(cls: type) -> str:
    """Return the name under which a class of Keras may have a handler, "" for any other class."""
    module = cls.__module__
    if module.startswith(_LAYERS):
        return f"layers.{cls.__name__}"
    if module.startswith("keras.src.ops."):
        return f"{module.removeprefix('keras.src.ops.')}.{cls.__name__}"
    if module.startswith("keras.src.activations."):
        return f"activations.{cls.__name__}"
    return ""

"""Which layers and operations of Keras are converted, and how: the table of `docs/coverage.md`."""

from __future__ import annotations

import inspect
import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import keras

from kerve.compiler.lowering import HANDLERS
from kerve.compiler.lowering.layers.core import OTHER_FRAMEWORKS
from kerve.compiler.lowering.ops.unsupported_ops import REFUSED
from kerve.compiler.lowering.registry import name_of

__all__ = ["table"]

_HANDLED = "handler"
_REPLAYED = "replayed"

_HEADER = """# What is converted

Every public layer of `keras.layers` and every public function of `keras.ops` of Keras {version}, in inference
mode. `make reference` writes this page; a test compares it.

- **handler**: ONNX nodes are written directly for it.
- **replayed**: its own `call` runs on symbols, down to operations that have handlers.
- **refused**: it has no ONNX form; the error names layer and operation, with this reason.
"""

_FOOTER = """## Numerical edge cases

Values that are compared with Keras are finite and within the range of their type. For others, ONNX Runtime
(measured on CPUs) differs from TensorFlow as follows; to make them agree would slow down all models:

| what | ONNX Runtime | TensorFlow |
|---|---|---|
| NaN into LSTM and GRU | finite numbers | NaN from that step on |
| NaN in the input of `max`, `min`, GlobalMaxPooling | ignored, unless it comes first | NaN |
| NaN in the input of `argmax`, `argmin` | chosen if it comes first | ignored |
| NaN in the input of `sort`, `argsort`, `top_k` | the largest value | the smallest value |
| NaN or infinity in a resized image, except by `nearest` | NaN around it, too | only where it contributes |
| `softmax` of a row with NaN or +infinity | NaN | NaN or 0 |
| MaxPooling of a window with only -infinity | -infinity | the lowest float |
| `arctan2` of two infinities | NaN | the angle |
| `hypot` beyond 1e19 and below 1e-23 | infinity and 0 | the length |
| `sigmoid`, `silu`, `glu` below -9, except before a `log` | accurate to 6e-8 | accurate to the last digit |
| `gelu` below -3 | accurate to 1e-6 | accurate to the last digit, if not approximate |
| subnormal numbers (below 1.2e-38) | kept | 0 |
| `sum` of int64 beyond 2^53 | rounded as float64 | exact |
| `sum`, `prod`, `power` of integers that overflow their type | its limits, or 0 | wrap around |
"""

#: The functions of `keras.ops` call an operation on symbols as `ClassName(...)`.
_CLASS = re.compile(r"\b([A-Z]\w*)\(")


def table() -> str:
    """Return the page, in Markdown, for the installed Keras."""
    layers = _section("Layers", "layer", _layers())
    return "\n".join(
        [
            _HEADER.format(version=keras.__version__),
            *layers,
            *_section("Operations", "operation", _operations()),
            _FOOTER,
        ]
    )


def _section(title: str, column: str, rows: dict[str, str]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"| {column} | how |\n|---|---|"
    yield from (f"| `{name}` | {how} |" for name, how in sorted(rows.items()))
    yield ""


def _layers() -> dict[str, str]:
    """Return how each layer is converted; aliases of one class share a row."""
    names: dict[type, list[str]] = defaultdict(list)
    for name, item in vars(keras.layers).items():
        if inspect.isclass(item) and issubclass(item, keras.Layer):
            names[item].append(name)
    return {"`, `".join(sorted(alike)): _how(name_of(layer)) for layer, alike in names.items()}


def _operations() -> dict[str, str]:
    functions = {name: item for name, item in vars(keras.ops).items() if inspect.isfunction(item)}
    for part in (keras.ops.image, keras.ops.linalg):
        prefix = part.__name__.rpartition(".")[2]
        functions |= {f"{prefix}.{n}": item for n, item in vars(part).items() if inspect.isfunction(item)}
    return {name: _how(_operation(function)) for name, function in functions.items()}


def _operation(function: Any) -> str:
    """Return the name of the operation class that a function instantiates, "" if it instantiates none."""
    for name in _CLASS.findall(inspect.getsource(function)):
        made = function.__globals__.get(name)
        if inspect.isclass(made) and issubclass(made, keras.Operation):
            return name_of(made)
    return ""


def _how(name: str) -> str:
    reason, _ = (REFUSED | OTHER_FRAMEWORKS).get(name, ("", ""))
    if reason:
        return f"refused: {reason}"
    return _REPLAYED if HANDLERS.named(name) is None else _HANDLED

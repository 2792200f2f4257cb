"""Every operation of `keras.ops` is lowered by a handler, by its own code, or refused with a reason."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import keras
import keras.src.ops
import numpy as np
import pytest
from keras import ops

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import HANDLERS, lower
from kerve.compiler.lowering.ops.unsupported_ops import REFUSED

#: Operations without a handler, whose `call` is written with other operations.
_REPLAYED = {
    "core.SaturateCast",
    "function.Function",
    "image.CropImages",
    "image.PadImages",
    "image.Resize",
    "image.SSIM",
}

#: Parents of operations, which nobody calls.
_ABSTRACT = {"math.SegmentReduction", "operation.Operation"}


def _operations() -> set[str]:
    names = set()
    for module in pkgutil.iter_modules(keras.src.ops.__path__):
        if not module.name.endswith("_test"):
            contents = vars(importlib.import_module(f"keras.src.ops.{module.name}"))
            names |= {
                f"{module.name}.{name}"
                for name, item in contents.items()
                if inspect.isclass(item)
                and issubclass(item, keras.Operation)
                and item.__module__ == f"keras.src.ops.{module.name}"
            }
    return names


def test_no_operation_of_keras_is_forgotten() -> None:
    assert _operations() - set(HANDLERS.names) == _REPLAYED | _ABSTRACT


def test_no_handler_is_for_an_operation_that_keras_does_not_have() -> None:
    modules = {name.partition(".")[0] for name in _operations()}
    handled = {name for name in HANDLERS.names if name.partition(".")[0] in modules}
    assert handled <= _operations()


def test_what_is_refused_says_why_and_what_to_do() -> None:
    inputs = keras.Input((3, 3))
    model = keras.Model(inputs, ops.linalg.eigh(inputs))
    with pytest.raises(
        ConversionError, match=r"operation Eigh: ONNX has no matrix decomposition.*; compute it outside"
    ):
        lower(model)


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_refusals_are_sentences(name: str) -> None:
    what, remedy = REFUSED[name]
    assert what
    assert remedy
    assert not (what + remedy).endswith(".")


def test_singular_values_of_matrices_of_open_size_are_refused() -> None:
    inputs = keras.Input((None, 3))
    model = keras.Model(inputs, ops.norm(inputs, ord="nuc", axis=(1, 2)))
    with pytest.raises(ConversionError, match="singular values"):
        lower(model)


def test_a_keras_function_is_replayed(equal_to_keras: Any) -> None:
    a, b = keras.KerasTensor((None, 3)), keras.KerasTensor((None, 3))
    function = keras.Function([a, b], ops.tanh(a) * b + 1)
    inputs = keras.Input((3,))
    equal_to_keras(keras.Model(inputs, function([inputs, inputs * 2])), np.ones((2, 3), np.float32))

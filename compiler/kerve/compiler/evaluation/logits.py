"""The logits of predictions, from which Keras computes crossentropies if they are available.

Keras attaches the logits to the result of a softmax or sigmoid, and its crossentropies use them instead: a
probability of 1 - 1e-9 is 1 in float32, and those below 1e-7 are clipped. The update graph therefore takes
the logits as input too, from a named value of the model's graph; if the graph has no such value, it
approximates them from the predictions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import keras
import onnx_ir as ir

from kerve.compiler.lowering.symbol import Symbol, is_symbol

__all__ = ["Logits", "find_logits", "logits_from_prediction", "provide_logits"]

_ACTIVATIONS = ("Softmax", "Sigmoid")

#: The activation that a crossentropy of the TensorFlow backend recognizes by the operator.
_RECOGNISED = {
    "binary_crossentropy": "Sigmoid",
    "categorical_crossentropy": "Softmax",
    "sparse_categorical_crossentropy": "Softmax",
}

_TINY = 1e-37


@dataclass(frozen=True)
class Logits:
    """The logits of an output."""

    activation: str
    #: The value's name in the model's graph; empty if there is no value of the output's type.
    value: str
    #: Whether Keras attaches them to the result, for any crossentropy.
    kept: bool


def find_logits(outputs: Sequence[ir.Value], results: Sequence[Any]) -> dict[str, Logits]:
    """Return the logits of the outputs that have them; `results` are Keras's own."""
    found = {}
    for output, result in zip(outputs, results, strict=True):
        node, direct = output.producer(), True
        while node is not None and node.op_type in ("Cast", "Identity"):
            value = node.inputs[0]
            node, direct = None if value is None else value.producer(), False
        if node is None or node.op_type not in _ACTIVATIONS or node.inputs[0] is None:
            continue
        given = node.inputs[0]
        usable = direct and not given.is_graph_input() and not given.is_initializer()
        found[str(output.name)] = Logits(
            node.op_type, str(given.name) if usable else "", hasattr(result, "_keras_logits")
        )
    return found


def logits_from_prediction(prediction: Any, logits: Logits) -> Any:
    """Return logits that result in a prediction, as accurately as its rounding allows."""
    likely = keras.ops.log(keras.ops.maximum(prediction, _TINY))
    if logits.activation == "Softmax":
        return likely
    return likely - keras.ops.log(keras.ops.maximum(1.0 - prediction, 2.0**-25))


@contextmanager
def provide_logits(given: Mapping[int, tuple[Symbol, Logits]]) -> Iterator[None]:
    """Make crossentropies use the logits of predictions, given by the `id` of the prediction's value."""
    with ExitStack() as stack:
        for name, recognised in _RECOGNISED.items():
            for module in (keras.ops, keras.ops.nn, keras.src.ops, keras.src.ops.nn):
                replacement = _taking_logits(getattr(module, name), recognised, given)
                stack.enter_context(mock.patch.object(module, name, replacement))
        yield


def _taking_logits(
    original: Callable[..., Any], recognised: str, given: Mapping[int, tuple[Symbol, Logits]]
) -> Callable[..., Any]:
    def crossentropy(target: Any, output: Any, from_logits: bool = False, *args: Any, **kwargs: Any) -> Any:
        if is_symbol(output) and id(output.value) in given:
            symbol, logits = given[id(output.value)]
            if logits.kept or logits.activation == recognised:
                output, from_logits = symbol, True
        return original(target, output, from_logits, *args, **kwargs)

    return crossentropy

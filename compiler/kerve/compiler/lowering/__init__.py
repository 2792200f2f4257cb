"""From a Keras model to an ONNX graph: `lower(model)`."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import keras
import onnx_ir as ir
from onnx_ir.passes import common

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import guessed_dtypes, layers, ops, signature
from kerve.compiler.lowering.interception import intercept
from kerve.compiler.lowering.lowering import LAYER_KEY, Lowering
from kerve.compiler.lowering.registry import Handlers
from kerve.compiler.lowering.state import Restart, State, StateVariable, VariableOverrides, named_by_path
from kerve.compiler.lowering.symbol import symbols_in

__all__ = ["HANDLERS", "LAYER_KEY", "Lowered", "StateVariable", "lower"]

HANDLERS = Handlers([layers.HANDLERS, ops.HANDLERS])


@dataclass(frozen=True)
class Lowered:
    """A Keras model as ONNX, with the Keras structures of its inputs and outputs."""

    model: ir.Model
    #: Arguments of the Keras model's call, as structures of `signature.InputSpec`.
    arguments: signature.Arguments
    #: Names of the graph's outputs, in the structure that the Keras model returns.
    outputs: Any
    #: Variables that the call assigns, with the inputs and outputs that carry them.
    state: tuple[StateVariable, ...]
    #: Whether the call adds losses or its results carry masks, so that `evaluate` depends on the inputs.
    evaluation_needs_inputs: bool
    #: Whether the graph draws new random numbers in each call where Keras repeats those
    #: of an integer seed.
    reseeded: bool
    #: Paths of the layers that were traced by TensorFlow, or contain traced operations; "" is the model.
    traced: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def inputs(self) -> signature.Arguments:
        """Names of the graph's inputs, in the structure that the Keras model takes."""
        names: signature.Arguments = keras.tree.map_structure(lambda spec: spec.name, self.arguments)
        return names


def lower(model: keras.Model, *, opset: int = 21, input_signature: Any = None) -> Lowered:
    """Lower a built Keras model, in inference mode, to an ONNX model.

    `input_signature` (a structure of `keras.KerasTensor`, `keras.InputSpec` or `tf.TensorSpec`) is needed for
    models whose inputs are unknown: subclassed models that were never called, or that take several arguments.
    It is the first argument, a tuple of positional arguments, or a dictionary keyed by parameter names of
    `call`. Variables that the call assigns become inputs and outputs, after the model's own.

    Raises `ConversionError`, naming layer and operation, when something has no ONNX form.
    """
    arguments = signature.inputs_of(model, input_signature)
    signature.build(model, arguments)
    lowered = (_opened if input_signature is None else _typed)(model, opset, arguments)
    unasked = signature.other_call_forms(model) if input_signature is None else []
    return replace(lowered, warnings=(*unasked, *lowered.warnings))


def _opened(model: keras.Model, opset: int, arguments: signature.Arguments) -> Lowered:
    """Lower the model with a dynamic batch size where Keras recorded one size but accepts any."""
    opened = signature.with_open_batch(model, arguments)
    if opened != arguments:
        with suppress(ConversionError):  # the model's own code may depend on the batch size
            return _typed(model, opset, opened)
    return _typed(model, opset, arguments)


def _typed(model: keras.Model, opset: int, arguments: signature.Arguments) -> Lowered:
    """Lower the model, typing inputs of guessed dtype as integers if the graph only casts them to such."""
    try:
        lowered = _lower(model, opset, arguments)
    except ConversionError:
        integers = guessed_dtypes.with_all_integers(arguments)
        if integers == arguments:
            raise
        with suppress(ConversionError):
            return _lower(model, opset, integers)
        raise
    identified = guessed_dtypes.with_integer_ids(arguments, lowered.model.graph)
    return lowered if identified == arguments else _lower(model, opset, identified)


def _lower(model: keras.Model, opset: int, arguments: signature.Arguments) -> Lowered:
    state: list[Any] = []
    with VariableOverrides() as settled:
        while True:
            try:
                return _lower_with(State(named_by_path(state, model.name), settled), model, opset, arguments)
            except Restart as found:
                if found.value is None:
                    state.append(found.variable)
                else:
                    settled.give(found.variable, found.value)


def _lower_with(state: State, model: keras.Model, opset: int, arguments: signature.Arguments) -> Lowered:
    g = Lowering(opset, HANDLERS, state)
    symbols = keras.tree.map_structure(lambda spec: signature.enter(g, spec), arguments)
    with intercept(g):
        results = signature.call(model, symbols) if symbols_in(symbols) else g.trace(model, *symbols)
    outputs = signature.finish(g, model, results)
    lowered = ir.Model(g.graph, ir_version=10, producer_name="kerve")
    common.RemoveUnusedNodesPass()(lowered)  # the computation of the next seeds
    common.NameFixPass()(lowered)  # nodes converted by tf2onnx bring names of their own
    return Lowered(
        model=lowered,
        arguments=arguments,
        outputs=outputs,
        state=tuple(g.state.variables),
        evaluation_needs_inputs=bool(g.losses) or any(_is_masked(x) for x in keras.tree.flatten(results)),
        reseeded=g.reseeded,
        traced=tuple(dict.fromkeys(g.traced)),
        warnings=tuple(g.warnings),
    )


def _is_masked(x: Any) -> bool:
    return keras.src.backend.get_keras_mask(x) is not None

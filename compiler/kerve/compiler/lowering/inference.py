"""Inference of the types and shapes of an operation's results with Keras, and conversion to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import keras
import onnx_ir as ir

from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.registry import name_of
from kerve.compiler.lowering.symbol import Symbol, symbols_of

if TYPE_CHECKING:
    from kerve.compiler.lowering.lowering import Lowering

__all__ = ["conform", "guesses_dtype", "infer"]


#: Operations that convert Python numbers to tensors, for which Keras infers no types. They are given by name
#: because some versions of Keras lack some of them.
_MISJUDGED = frozenset(
    f"numpy.{name}" for name in ("Arctan2", "Dot", "Fmod", "Logaddexp", "Logaddexp2", "Outer")
)


def infer(operation: keras.Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Return Keras's specification of an operation's results; None if it depends on a dynamic size.

    Some operations can compute what they fail to infer (`one_hot` at a last axis that is counted from the
    front), or infer other types than they compute: those are inferred by TensorFlow.
    """
    try:
        if name_of(type(operation)) in _MISJUDGED and any(isinstance(each, int | float) for each in args):
            return keras.src.backend.compute_output_spec(operation.call, *args, **kwargs)
        return operation.compute_output_spec(*args, **kwargs)
    except (AttributeError, TypeError, ValueError) as error:
        if symbols_of(operation):
            return None
        try:
            return keras.src.backend.compute_output_spec(operation.call, *args, **kwargs)
        except Exception:  # noqa: BLE001  # TensorFlow's wording of the same error
            raise error from None


def guesses_dtype(operation: keras.Operation) -> bool:
    """Whether Keras takes the layer's compute dtype for the type of this operation's output."""
    return (
        isinstance(operation, keras.Layer)
        and type(operation).compute_output_spec is keras.Layer.compute_output_spec
        and not keras.src.utils.python_utils.is_default(operation.compute_output_shape)
    )


def conform(g: Lowering, values: Any, spec: Any, *, guessed: bool) -> Any:
    """Return symbols with the types and the static dimensions that Keras specifies for the values.

    A guessed type is the layer's compute dtype, which does not apply to integers that pass through.
    """
    if spec is None:
        return g.wrap(values)
    flat_specs = keras.tree.flatten(spec)
    flat_values = keras.tree.flatten(values)
    if len(flat_specs) != len(flat_values):
        raise g.refuse(
            f"its handler returned {len(flat_values)} tensors where Keras returns {len(flat_specs)}",
            "this is a defect of kerve, please report the model",
        )
    pairs = zip(flat_values, flat_specs, strict=True)
    flat = [_conform_one(g, value, want, guessed=guessed) for value, want in pairs]
    return keras.tree.pack_sequence_as(spec, flat)


def _conform_one(g: Lowering, value: ir.Value, want: keras.KerasTensor, *, guessed: bool) -> Symbol:
    if value.dtype is None:
        value.dtype = dtypes.to_onnx(want.dtype)
    if not guessed or (value.dtype is not None and dtypes.is_float(value.dtype)):
        value = g.cast(value, want.dtype)
    if value.shape is None:
        value.shape = ir.Shape(want.shape)
    elif len(value.shape) == len(want.shape) and not (value.is_initializer() or value.is_graph_input()):
        # Where both sizes are known, ONNX's is right; some operations of Keras infer wrong sizes.
        value.shape = ir.Shape(
            have if isinstance(have, int) or size is None else size
            for have, size in zip(value.shape, want.shape, strict=True)
        )
    return Symbol(value)

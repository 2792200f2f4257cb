"""What Keras says of the results of an operation before they are computed, and that they come so."""

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


#: Operations that make tensors of Python's numbers, of whose types Keras infers nothing. Their names, since
#: not every Keras has them all.
_MISJUDGED = frozenset(
    f"numpy.{name}" for name in ("Arctan2", "Dot", "Fmod", "Logaddexp", "Logaddexp2", "Outer")
)


def infer(operation: keras.Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Ask Keras what an operation returns; None if a size known only to the graph keeps it from saying.

    Some operations compute what they refuse to infer (`one_hot` at a last axis that is counted from the
    front): of those TensorFlow is asked, and of types where Keras infers others than it computes.
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
        except Exception:  # noqa: BLE001  # TensorFlow's own word for what Keras has said already
            raise error from None


def guesses_dtype(operation: keras.Operation) -> bool:
    """Whether Keras, asked for this operation's output, looks no further than the layer's compute dtype."""
    return (
        isinstance(operation, keras.Layer)
        and type(operation).compute_output_spec is keras.Layer.compute_output_spec
        and not keras.src.utils.python_utils.is_default(operation.compute_output_shape)
    )


def conform(g: Lowering, values: Any, spec: Any, *, guessed: bool) -> Any:
    """Return symbols of the type, and the static dimensions, that Keras says the values have.

    A guessed type is the layer's compute dtype, which says nothing about integers that pass through.
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
        # Where both know a size, ONNX's is that of this graph; some operations of Keras misjudge theirs.
        value.shape = ir.Shape(
            have if isinstance(have, int) or size is None else size
            for have, size in zip(value.shape, want.shape, strict=True)
        )
    return Symbol(value)

"""What Keras says of the results of an operation before they are computed."""

from __future__ import annotations

from typing import Any

import keras

from kerve.compiler.lowering.symbol import symbols_of

__all__ = ["guesses_dtype", "infer"]


#: Operations that make tensors of Python's numbers, of whose types Keras infers nothing.
_MISJUDGED = (
    keras.src.ops.numpy.Arctan2,
    keras.src.ops.numpy.Dot,
    keras.src.ops.numpy.Fmod,
    keras.src.ops.numpy.Logaddexp,
    keras.src.ops.numpy.Logaddexp2,
    keras.src.ops.numpy.Outer,
)


def infer(operation: keras.Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Ask Keras what an operation returns; None if a size known only to the graph keeps it from saying.

    Some operations compute what they refuse to infer (`one_hot` at a last axis that is counted from the
    front): of those TensorFlow is asked, and of types where Keras infers others than it computes.
    """
    try:
        if isinstance(operation, _MISJUDGED) and any(isinstance(each, int | float) for each in args):
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

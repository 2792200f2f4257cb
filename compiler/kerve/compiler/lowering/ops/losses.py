"""Losses and metrics of `keras.ops.nn`."""

from __future__ import annotations

from typing import Any

import keras
import onnx_ir as ir
from keras import ops

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import composite
from kerve.compiler.lowering.registry import Handlers

HANDLERS = Handlers()


def _binary_crossentropy(operation: Any, target: Any, output: Any) -> Any:
    target = ops.cast(target, output.dtype)
    if operation.from_logits:  # log(1 + exp(-|x|)) does not overflow
        return ops.relu(output) - output * target + ops.log1p(ops.exp(-ops.abs(output)))
    epsilon = keras.config.epsilon()
    output = ops.clip(output, epsilon, 1.0 - epsilon)
    return -(target * ops.log(output) + (1 - target) * ops.log(1 - output))


def _log_probabilities(operation: Any, output: Any) -> Any:
    axis = operation.axis
    if operation.from_logits:
        return ops.log_softmax(output, axis=axis)
    epsilon = keras.config.epsilon()
    return ops.log(ops.clip(output / ops.sum(output, axis=axis, keepdims=True), epsilon, 1.0 - epsilon))


def _categorical_crossentropy(operation: Any, target: Any, output: Any) -> Any:
    logs = _log_probabilities(operation, output)
    return -ops.sum(ops.cast(target, logs.dtype) * logs, axis=operation.axis)


def _sparse_categorical_crossentropy(operation: Any, target: Any, output: Any) -> Any:
    if not operation.from_logits:
        epsilon = keras.config.epsilon()
        output = ops.log(ops.clip(output, epsilon, 1.0 - epsilon))
    logs = ops.log_softmax(output, axis=-1)
    if len(target.shape) == len(output.shape) and target.shape[-1] == 1:
        target = ops.squeeze(target, -1)
    index = ops.expand_dims(ops.cast(target, "int64"), -1)
    return -ops.squeeze(ops.take_along_axis(logs, index, axis=-1), -1)


def _psnr(operation: Any, x1: Any, x2: Any) -> Any:
    peak = ops.log10(ops.cast(operation.max_val, x2.dtype))
    return 20 * peak - 10 * ops.log10(ops.mean(ops.square(x1 - x2)))


_COMPOSITES = {
    "nn.BinaryCrossentropy": _binary_crossentropy,
    "nn.CategoricalCrossentropy": _categorical_crossentropy,
    "nn.SparseCategoricalCrossentropy": _sparse_categorical_crossentropy,
}

for _keras_op, _fn in _COMPOSITES.items():
    HANDLERS.add(_keras_op, composite(_fn))

HANDLERS.add("nn.PSNR", composite(_psnr), typed=True)  # Keras infers float32


@HANDLERS.register("nn.CTCDecode")
def ctc_decode(g: Lowering, operation: Any, inputs: ir.Value, sequence_lengths: ir.Value) -> Any:
    """The best class of each step, repeats merged and blanks dropped."""
    if operation.strategy != "greedy":
        raise g.refuse(f"`ctc_decode` with strategy '{operation.strategy}'", "use the strategy 'greedy'")
    decoded, scores = g.call(_ctc_greedy(operation), inputs, sequence_lengths)
    return decoded, scores


def _ctc_greedy(operation: Any) -> Any:
    def decode(inputs: Any, lengths: Any) -> tuple[Any, Any]:
        steps, classes = ops.shape(inputs)[1:]
        blank = operation.mask_index if operation.mask_index >= 0 else classes + operation.mask_index
        best = ops.cast(ops.argmax(inputs, axis=-1), "int32")
        place = ops.expand_dims(ops.arange(steps, dtype="int32"), 0)
        valid = place < ops.expand_dims(ops.cast(lengths, "int32"), 1)
        kept = ops.logical_and(valid, ops.not_equal(best, blank))
        if operation.merge_repeated:
            before = ops.pad(best[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
            kept = ops.logical_and(kept, ops.not_equal(best, before))
        # Move kept labels to the front: sort by position, with dropped ones after all others.
        order = ops.argsort(ops.where(kept, place, place + steps), axis=-1)
        moved = ops.take_along_axis(ops.where(kept, best, ops.full_like(best, -1)), order, axis=1)
        highest = ops.cast(ops.max(inputs, axis=-1), keras.backend.result_type(inputs.dtype, "float32"))
        score = -ops.sum(ops.where(valid, highest, ops.zeros_like(highest)), axis=1, keepdims=True)
        return ops.expand_dims(moved, 0), score

    return decode

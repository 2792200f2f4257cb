"""Patches of Keras and tf2onnx that are active while a model is traced, so that it converts correctly."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest import mock

import keras
import onnx

from kerve.compiler.lowering.dtypes import FIRST_OPSET_FLOAT8

__all__ = ["FAILURE", "tf2onnx_compatibility"]

#: Attribute with the reason why tf2onnx failed to convert a node.
FAILURE = "kerve_failure"

#: Optimizers of tf2onnx that change results: remove_back_to_back takes the zeros in a Reshape for sizes of
#: another tensor and drops casts that round; merge_duplication merges two random draws into one;
#: optimize_transpose moves Transposes across products and turns them into Reshapes, which mixes up the axes
#: of 1x1 feature maps. Passes of ours do the rest of their work.
_UNSOUND = frozenset({"merge_duplication", "optimize_transpose", "remove_back_to_back"})

#: Operators of TensorFlow whose inputs are a condition and the arguments of their branches.
_BRANCHING = frozenset({"If", "StatelessIf"})


@contextmanager
def tf2onnx_compatibility(opset: int) -> Iterator[None]:
    """Patch Keras to avoid operators that tf2onnx does not convert, and tf2onnx not to convert wrongly."""
    import tensorflow as tf
    from tf2onnx import optimizer, shape_inference, tf_loader, tf_utils, tfonnx
    from tf2onnx.onnx_opset import controlflow

    def signbit(x: Any) -> Any:  # for `argmax`, which otherwise uses a bitcast
        return tf.logical_or(x < 0, tf.math.reciprocal(x) < 0)

    def draw_seed(_: Any) -> Any:  # draws from it become random operators without a seed
        return tf.zeros([2], tf.int32)

    def function(fn: Any = None, **_: Any) -> Any:  # XLA would hide grouped convolutions
        return fn if fn is not None else function

    backend = keras.src.backend
    types = {tf.bfloat16.as_datatype_enum: onnx.TensorProto.BFLOAT16}  # tf2onnx maps it to float16
    if opset >= FIRST_OPSET_FLOAT8:
        types[tf.dtypes.experimental.float8_e4m3fn.as_datatype_enum] = onnx.TensorProto.FLOAT8E4M3FN
        types[tf.dtypes.experimental.float8_e5m2.as_datatype_enum] = onnx.TensorProto.FLOAT8E5M2
    sound = {name: each for name, each in optimizer._optimizers.items() if name not in _UNSOUND}
    with (
        warnings.catch_warnings(action="ignore"),
        mock.patch.object(backend.numpy, "signbit", signbit),
        mock.patch.object(backend.random, "draw_seed", draw_seed),
        mock.patch.object(tf, "function", function),
        _plain_convolutions(),
        mock.patch.dict(tf_utils.TF_TO_ONNX_DTYPE, types),
        mock.patch.object(optimizer, "_optimizers", sound),
        mock.patch.object(optimizer, "optimize_graph", _copied_once(optimizer.optimize_graph)),
        mock.patch.object(tf_loader, "function_def_to_graph", _as_called(tf_loader.function_def_to_graph)),
        mock.patch.object(tf_loader, "tflist_to_onnx", _fitting_branches(tf_loader.tflist_to_onnx)),
        mock.patch.object(controlflow, "prefix_graph", _of_distinct(controlflow.prefix_graph)),
        mock.patch.multiple(
            shape_inference,
            infer_input_shapes=_but_broadcast(shape_inference.infer_input_shapes),
            infer_output_shapes_with_partial_inputs=_but_broadcast(
                shape_inference.infer_output_shapes_with_partial_inputs
            ),
        ),
        mock.patch.object(tfonnx, "tensorflow_onnx_mapping", _telling(tfonnx.tensorflow_onnx_mapping)),
    ):
        yield


def _copied_once(optimize: Callable[..., Any]) -> Callable[..., Any]:
    """Copy a graph once, in case an optimizer fails, instead of before each optimizer, which took half of the
    conversion time.
    """

    def optimizing(graph: Any, catch_errors: bool = True, **options: Any) -> Any:
        untouched = copy.deepcopy(graph) if catch_errors else None
        try:
            return optimize(graph, catch_errors=False, **options)
        except Exception:  # optimizers fail with anything
            if untouched is None:
                raise
        return optimize(untouched, catch_errors=True, **options)

    return optimizing


def _but_broadcast(infer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Skip shape inference of a SelectV2 whose inputs differ in rank: tf2onnx assumes equal shapes."""

    def inferred(operation: Any) -> Any:
        ranks = {each.shape.rank for each in operation.inputs[1:]} - {None}
        return False if operation.type == "SelectV2" and len(ranks) > 1 else infer(operation)

    return inferred


def _telling(convert_all: Callable[..., Any]) -> Callable[..., Any]:
    """Mark nodes whose conversion failed: tf2onnx only logs the failure and leaves the node half converted,
    possibly under the name of an ONNX operator.
    """

    def converting(graph: Any, conversions: Mapping[str, tuple[Any, Any]], *args: Any, **kwargs: Any) -> Any:
        noted = {name: (_noting(convert), options) for name, (convert, options) in conversions.items()}
        return convert_all(graph, noted, *args, **kwargs)

    return converting


def _noting(convert: Callable[..., Any]) -> Callable[..., Any]:
    def noting(context: Any, node: Any, *args: Any, **kwargs: Any) -> Any:
        operator = node.type
        try:
            return convert(context, node, *args, **kwargs)
        except Exception as error:  # converters fail with anything
            node.type, node.domain = operator, "tensorflow"
            node.set_attr(FAILURE, f"{type(error).__name__}: {error}")
            raise

    return noting


def _of_distinct(rename: Callable[[Any, str], None]) -> Callable[[Any, str], None]:
    """Give each output of a branch its own name: if a branch returns a value twice, tf2onnx renames only the
    first and loses the branch.
    """

    def distinct(graph: Any, scope: str) -> None:
        for index, output in enumerate(graph.outputs):
            if output in graph.outputs[:index]:
                known = {"shapes": [graph.get_shape(output)], "dtypes": [graph.get_dtype(output)]}
                graph.outputs[index] = graph.make_node("Identity", [output], **known).output[0]
        rename(graph, scope)

    return distinct


def _as_called(read: Callable[..., Any]) -> Callable[..., Any]:
    """Give arguments of a branch or loop the shapes that they are called with where Grappler recorded an
    unknown rank, with which half of tf2onnx's conversions fail.
    """

    def as_called(function: Any, input_shapes: Any = None) -> Any:
        for argument in function.arg_attr.values() if input_shapes else ():
            known = argument.attr.get("_output_shapes")
            if known is not None and any(shape.unknown_rank for shape in known.list.shape):
                del argument.attr["_output_shapes"]
        return read(function, input_shapes=input_shapes)

    return as_called


def _fitting_branches(read: Callable[..., Any]) -> Callable[..., Any]:
    """Give arguments of branches the shapes of their inputs: tf2onnx counts the condition, a scalar, as the
    first argument, so all shapes are off by one.
    """

    def fitting(graph: Any, *args: Any, **kwargs: Any) -> Any:
        *others, functions = read(graph, *args, **kwargs)
        for node in graph.get_operations():
            if node.type in _BRANCHING:
                shapes = [each.get_shape() for each in node.inputs[1:]]
                branches = (node.get_attr(name).name for name in ("then_branch", "else_branch"))
                functions.update(dict.fromkeys(branches, shapes))
        return (*others, functions)

    return fitting


def _plain_convolutions() -> AbstractContextManager[Any]:
    """Keep Keras 2, if it is in use, from compiling grouped convolutions with XLA, which hides them."""
    module = sys.modules.get("tf_keras.src.layers.convolutional.base_conv")
    if module is None:
        return nullcontext()

    def plain(layer: Any, inputs: Any, kernel: Any) -> Any:
        return layer.convolution_op(inputs, kernel)

    return mock.patch.object(module.Conv, "_jit_compiled_convolution_op", plain)

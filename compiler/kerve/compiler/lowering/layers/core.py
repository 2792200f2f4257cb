"""Dense, Activation, Identity, and the layers of other frameworks."""

from __future__ import annotations

from typing import Any

import keras
import onnx_ir as ir

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.registry import Handlers, name_of

__all__ = ["HANDLERS", "OTHER_FRAMEWORKS"]

HANDLERS = Handlers()


@HANDLERS.register("layers.Dense")
def dense(g: Lowering, layer: keras.layers.Dense, inputs: ir.Value) -> ir.Value:
    """MatMul over the last axis, then the bias, then the activation."""
    outputs = g.op.MatMul(g.cast(inputs, g.output_dtype), g.weight(layer.kernel))
    if layer.use_bias:
        outputs = g.op.Add(outputs, g.weight(layer.bias))
    return outputs if layer.activation is None else g.call(layer.activation, outputs)


@HANDLERS.register("layers.Activation")
def activation(g: Lowering, layer: keras.layers.Activation, inputs: ir.Value) -> ir.Value:
    """Lower the layer's activation function."""
    return g.call(layer.activation, inputs)


@HANDLERS.register("layers.Identity")
def identity(g: Lowering, layer: Any, inputs: Any) -> Any:  # a handler's signature
    """Return the input unchanged."""
    return inputs


#: Layers that are refused: (the reason, what to do).
OTHER_FRAMEWORKS = {
    f"layers.{name}": (
        f"it runs {framework} code, which Keras cannot inspect",
        "write it with Keras layers",
    )
    for name, framework in (("FlaxLayer", "JAX"), ("JaxLayer", "JAX"), ("TorchModuleWrapper", "PyTorch"))
}


@HANDLERS.register(*OTHER_FRAMEWORKS, typed=True)
def other_framework(g: Lowering, layer: Any, *_: Any, **__: Any) -> Any:
    """Refuse the layer: its code is not Keras's."""
    raise g.refuse(*OTHER_FRAMEWORKS[name_of(type(layer))])

"""The ONNX graph under construction, and the one place where a Keras operation becomes ONNX nodes.

model(symbols)                        Keras's own code runs
  -> layer(symbols) / ops.f(symbols)  interception.py sends each call here
       -> a handler                   lowering/layers, lowering/ops: nodes written directly
       -> or the layer's own `call`   replayed on symbols, down to operations that have handlers
       -> or tf2onnx                  tracing.py: that one layer or operation traced by TensorFlow
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, cast

import keras
import numpy as np
import onnx_ir as ir
from numpy.typing import ArrayLike, NDArray

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import autograph, dtypes, error_attribution, tracing
from kerve.compiler.lowering.inference import conform, guesses_dtype, infer
from kerve.compiler.lowering.initializers import Initializers, as_array
from kerve.compiler.lowering.kernels import KernelBuilder
from kerve.compiler.lowering.registry import Handler, Handlers
from kerve.compiler.lowering.state import State
from kerve.compiler.lowering.symbol import Symbol, is_symbol

__all__ = ["LAYER_KEY", "Lowering"]

#: Metadata key of a node for the path of the Keras layer that it came from.
LAYER_KEY = "kerve.layer"


class _WritesNode(Protocol):
    def __getattr__(self, op_type: str) -> Callable[..., ir.Value]: ...


class _WritesNodes(Protocol):
    def __getattr__(self, op_type: str) -> Callable[..., Sequence[ir.Value]]: ...


class Lowering:
    """An ONNX graph that grows as Keras's code runs on symbols.

    Handlers write nodes with `g.op` (`g.op.MatMul(x, w)`; Python numbers become constants of the other
    operand's type) and take weights with `g.weight`, other arrays with `g.constant`, Keras functions
    (activations, say) with `g.call`.
    """

    def __init__(self, opset: int, handlers: Handlers, state: State) -> None:
        self.opset = opset
        self.graph = ir.Graph([], [], nodes=[], opset_imports={"": opset}, name="model")
        self.functions: dict[ir.OperatorIdentifier, ir.Function] = {}
        self.warnings: list[str] = []
        #: Paths of the layers in which something was traced by TensorFlow.
        self.traced: list[str] = []
        #: Whether the graph draws new random numbers in each call where Keras repeats
        #: those of a fixed seed.
        self.reseeded = False
        #: Losses of `add_loss` and activity regularizers, computed when called: only
        #: evaluation needs them.
        self.losses: list[Callable[[], Any]] = []
        self.state = state
        self._handlers = handlers
        self._builder = KernelBuilder(self.graph)
        self._builder.narrowed = lambda op_type: self.warn(
            f"{op_type} computes in float32, because ONNX Runtime has no float64 kernel of it on a CPU"
        )
        self._layers: list[keras.Layer] = []
        self._specs: list[Any] = []
        self._initializers = Initializers(self.graph)
        self._replayed: list[type] = []
        #: Finished bodies of loops and branches: their values cannot be used outside.
        self._closed: set[ir.Graph] = set()

    # -- what handlers use ---------------------------------------------------------------------------

    @property
    def op(self) -> _WritesNode:
        """Write a node of one output: `g.op.Add(x, 1.0)`."""
        return cast("_WritesNode", self._builder.op)

    @property
    def ops(self) -> _WritesNodes:
        """Write a node of several outputs: `g.ops.Split(x, num_outputs=2, _outputs=2)`."""
        return cast("_WritesNodes", self._builder.op)

    @property
    def spec(self) -> Any:
        """Keras's specification of the current operation's results: a structure of `keras.KerasTensor`."""
        return self._specs[-1]

    @property
    def output_dtype(self) -> ir.DataType:
        """The ONNX type of the (first) output of the operation being lowered."""
        return dtypes.to_onnx(keras.tree.flatten(self.spec)[0].dtype)

    @property
    def output_shape(self) -> tuple[int | None, ...]:
        """The shape that Keras infers for the (first) output of the operation being lowered."""
        return tuple(keras.tree.flatten(self.spec)[0].shape)

    @property
    def layer_path(self) -> str:
        """The path of the layer being lowered below the model, as `encoder/attention`."""
        return "/".join(layer.name for layer in self._layers[1:])

    def constant(self, array: ArrayLike, name: str = "constant") -> ir.Value:
        """Add an array as an initializer; small ones are shared by all their users."""
        return self._initializers.constant(np.asarray(array), name, self.layer_path)

    def weight(
        self,
        variable: Any,
        transform: Callable[[NDArray[Any]], NDArray[Any]] | None = None,
        *,
        role: str = "",
        dtype: str | None = None,
    ) -> ir.Value:
        """Add a Keras variable as an initializer, once even if several layers share it.

        `transform` reorders its elements (its result must depend on the variable and `role` alone); `role`
        names the reordered form. The value is cast to `dtype`, by default the type that the variable has
        under the current autocast scope.
        """
        wanted = dtypes.to_onnx(dtype or keras.backend.standardize_dtype(variable.dtype))
        if not isinstance(variable, keras.Variable):  # computed from variables, like LoRA kernels
            computed = as_array(variable)
            array = transform(computed) if transform else computed
            return self.cast(self.constant(array, role or "computed"), wanted)
        return self.cast(self._initializers.weight(variable, transform, role), wanted)

    def append(self, node: ir.Node) -> Sequence[ir.Value]:
        """Add a node that was created elsewhere, infer the types of its results, and return these.

        If its types have no kernel, a new node is created between casts.
        """
        node.version = self.graph.opset_imports[node.domain]
        if not self._builder.has_kernel(node):
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            write = getattr(self._builder.op, node.op_type)
            written = write(*node.inputs, **attributes, _outputs=len(node.outputs))
            return [written] if isinstance(written, ir.Value) else list(written)
        for output, name in zip(node.outputs, self.names(node.op_type, len(node.outputs)), strict=True):
            output.name = name
        self._builder.add_node(node)
        return node.outputs

    def names(self, base: str, count: int) -> list[str]:
        """Return names that are unique in the whole model."""
        return self._builder.names(base, count)

    def copy(self, value: ir.Value) -> ir.Value:
        """Return a copy of a value (Identity)."""
        copy = self.op.Identity(value)
        copy.type, copy.shape = value.type, value.shape
        return copy

    def handler(self, name: str) -> Handler | None:
        """Return the handler of that name, or None."""
        return self._handlers.named(name)

    def cast(self, x: ir.Value, dtype: ir.DataType | str) -> ir.Value:
        """Return `x` in the given type; the same value if it already has it."""
        wanted = dtypes.to_onnx(dtype) if isinstance(dtype, str) else dtype
        dtypes.require(wanted, self.graph.opset_imports[""])
        return x if x.dtype == wanted else self.op.Cast(x, to=int(wanted))

    def cast_like(self, x: ir.Value, other: ir.Value) -> ir.Value:
        """Return `x` in the type of another value."""
        assert other.dtype is not None
        return self.cast(x, other.dtype)

    def dim(self, x: ir.Value, axis: int) -> int | ir.Value:
        """Return one dimension of `x`: an int where it is known, otherwise an INT64 tensor of shape [1]."""
        assert x.shape is not None
        size: int | ir.SymbolicDim = x.shape[axis]
        if isinstance(size, int):
            return size
        axis %= len(x.shape)
        return self.op.Shape(x, start=axis, end=axis + 1)

    def shape(self, dims: Sequence[int | ir.Value]) -> ir.Value:
        """Return a shape tensor (INT64 [n]) from ints and from tensors as `dim` returns them."""
        if all(isinstance(dim, int) for dim in dims):
            return self._shape_constant(dims)
        parts = [self._shape_constant([dim]) if isinstance(dim, int) else dim for dim in dims]
        return parts[0] if len(parts) == 1 else self.op.Concat(*parts, axis=0)

    def call(self, fn: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a Keras function, such as an activation, on ONNX values and return ONNX values."""
        return self.unwrap(fn(*self.wrap(args), **self.wrap(kwargs)))

    def refuse(self, what: str, remedy: str) -> ConversionError:
        """Return the error for something in the current layer that has no ONNX form."""
        inner = self._layers[-1] if self._layers else None
        kind = getattr(inner, "stands_for", type(inner).__name__)
        where = f"layer '{self.layer_path}' ({kind})" if self.layer_path else "the model"
        return ConversionError(f"{where}: {what}; {remedy}")

    def warn(self, what: str) -> None:
        """Add a warning about the current layer."""
        where = f"layer '{self.layer_path}'" if self.layer_path else "the model"
        warning = f"{where}: {what}"
        if warning not in self.warnings:
            self.warnings.append(warning)

    # -- structures ----------------------------------------------------------------------------------

    def wrap(self, structure: Any) -> Any:
        """Replace ONNX values by symbols."""
        return keras.tree.map_structure(lambda x: Symbol(x) if isinstance(x, ir.Value) else x, structure)

    def unwrap(self, structure: Any) -> Any:
        """Replace symbols, variables and eager tensors by ONNX values."""
        return keras.tree.map_structure(self._leaf, structure)

    def to_value(self, x: Any) -> ir.Value:
        """Return the ONNX value of a symbol, a variable, an array or a number."""
        value = self._leaf(x)
        return value if isinstance(value, ir.Value) else self.constant(np.asarray(value))

    def _leaf(self, x: Any) -> Any:
        if is_symbol(x):
            return self._in_sight(x.value)
        if self.state.holds(x):
            return self.state.read(x)
        if isinstance(x, keras.Variable):
            return self.weight(x)
        if isinstance(x, np.ndarray | np.generic):
            return self.constant(x)
        if keras.ops.is_tensor(x):
            return self.constant(as_array(x))
        return x

    def _in_sight(self, value: ir.Value) -> ir.Value:
        if value.graph in self._closed:
            raise tracing.TensorsOnlyError("a tensor made in a loop or branch is kept and used after it")
        return value

    # -- operations ----------------------------------------------------------------------------------

    def lower(self, operation: keras.Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Lower one call of a layer or of a `keras.ops` operation; return symbols."""
        with self._inside(operation):
            handler = self._handlers.find(operation)
            if handler is not None and getattr(operation, "quantization_mode", None) is None:
                outputs = self._handle(handler, operation, args, kwargs)
                if outputs is not NotImplemented:
                    return outputs
            if isinstance(operation, keras.Layer) or type(operation) not in self._replayed:
                return self._replay(operation, args, kwargs)
            return self._trace(operation, operation.call, args, kwargs)

    def trace(self, operation: keras.Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Trace one call of a layer or operation with TensorFlow; return symbols."""
        with self._inside(operation):
            return self._trace(operation, operation.call, args, kwargs)

    def _handle(self, handler: Handler, operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        spec = None if self._handlers.is_typed(handler) else infer(operation, args, kwargs)
        values_of_args, values_of_kwargs = self.unwrap(args), self.unwrap(_given(kwargs))
        mark = self._mark()
        self._specs.append(spec)
        try:
            values = handler(self, operation, *values_of_args, **values_of_kwargs)
        except Exception as error:
            if not error_attribution.is_kerve_defect(error):
                raise
            self._rollback(mark)
            return self._trace(
                operation, operation.call, args, kwargs, error, error_attribution.BUG_REPORT_REQUEST
            )
        finally:
            self._specs.pop()
        if values is NotImplemented:
            return values
        return conform(self, values, spec, guessed=guesses_dtype(operation))

    def _replay(self, operation: keras.Operation, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the operation's own `call` on symbols; trace it if that fails."""
        call = operation.quantized_call if getattr(operation, "quantization_mode", None) else operation.call
        failures = []
        self._replayed.append(type(operation))
        try:
            for code in (call, autograph.converted(call)) if isinstance(operation, keras.Layer) else (call,):
                mark = self._mark()
                try:
                    outputs = code(*args, **kwargs)
                    return keras.tree.map_structure(self._as_symbol, outputs)
                except ConversionError as error:
                    raise autograph.original(error) from error.__cause__
                except Exception as error:  # noqa: BLE001  # user code may fail in any way on symbols
                    self._rollback(mark)
                    failures.append(error)
        finally:
            self._replayed.pop()
        return self._trace(
            operation, call, args, kwargs, failures[0], error_attribution.bug_report_request(failures[0])
        )

    def _as_symbol(self, x: Any) -> Any:
        return x if x is None or is_symbol(x) else Symbol(self._leaf(x))

    def _trace(
        self,
        operation: keras.Operation,
        call: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        cause: Exception | None = None,
        plea: str = "",
    ) -> Any:
        """Trace one layer or operation with TensorFlow, and add the nodes that tf2onnx converts it to."""
        what = "" if isinstance(operation, keras.Layer) else f"operation {_called(operation)}: "
        try:
            outputs = tracing.trace(self, call, args, kwargs)
        except (tracing.ComplexResultError, tracing.UntraceableError) as error:
            if isinstance(error, tracing.ComplexResultError) and self._replayed:
                raise  # the layer or model around this one is traced as a whole
            raise self.refuse(f"{what}{error}", error.remedy) from (cause or error)
        self.traced.append(self.layer_path)
        if cause is not None and not isinstance(cause, tracing.TensorsOnlyError):  # which is no failure
            self.warn(f"{what}converted from TensorFlow's trace of it ({_first_line(cause)}){plea}")
        return outputs

    # -- bookkeeping ---------------------------------------------------------------------------------

    @contextmanager
    def subgraph(self, graph: ir.Graph) -> Iterator[ir.Graph]:
        """Add nodes to the body of a Loop, If or Scan while the context lasts."""
        outer = self._builder
        graph.opset_imports.setdefault("", self.opset)
        self._builder = KernelBuilder(graph, parent=outer)
        self._closed.discard(graph)
        try:
            yield graph
        finally:
            self._builder = outer
            self._closed.add(graph)

    @contextmanager
    def _inside(self, operation: keras.Operation) -> Iterator[None]:
        graph = self._builder.graph
        last = graph[-1] if len(graph) else None
        entered = isinstance(operation, keras.Layer)
        if entered:
            self._layers.append(operation)
        try:
            yield
        finally:
            for node in reversed(graph):
                if node is last:
                    break
                node.metadata_props.setdefault(LAYER_KEY, self.layer_path)
            if entered:
                self._layers.pop()

    def _mark(self) -> tuple[ir.Graph, int, dict[int, ir.Value], list[Callable[[], Any]]]:
        return self._builder.graph, len(self._builder.graph), self.state.values, list(self.losses)

    def _rollback(self, mark: tuple[ir.Graph, int, dict[int, ir.Value], list[Callable[[], Any]]]) -> None:
        graph, length, self.state.values, self.losses = mark
        extra = list(graph)[length:]
        tracing.detach_inputs(extra)
        graph.remove(extra)

    def _shape_constant(self, dims: Sequence[Any]) -> ir.Value:
        return self.constant(np.array(dims, dtype=np.int64), "shape")


def _called(operation: keras.Operation) -> str:
    """Return the name of an operation for messages: the class for Keras's own, whose names are numbered."""
    of_keras = type(operation).__module__.startswith("keras.")
    return type(operation).__name__ if of_keras else str(operation.name)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _given(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Drop arguments that are None, and `training=False`."""
    given = {name: value for name, value in kwargs.items() if value is not None}
    if not given.get("training", True):
        del given["training"]
    return given

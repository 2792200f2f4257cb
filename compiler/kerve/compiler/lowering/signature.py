"""The inputs and outputs of a Keras model: names, types and shapes, as its author wrote them."""

from __future__ import annotations

import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import keras
import onnx_ir as ir

from kerve.compiler.errors import ConversionError
from kerve.compiler.lowering import dtypes
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.symbol import Symbol

__all__ = [
    "BATCH",
    "Arguments",
    "InputSpec",
    "build",
    "call",
    "enter",
    "finish",
    "inputs_of",
    "knows_inputs",
    "other_call_forms",
    "unique_names",
    "with_open_batch",
]  # fmt: skip

#: The symbolic dimension that Keras leaves open on axis 0 of every input and output.
BATCH = "batch"

_PARTS = "pass the real and the imaginary part as two tensors"
_WIDER = "cast it to float16 or float32 within the model"

#: Types that no tensor of a served model may have, with what to do.
_NOT_SERVED = {
    ir.DataType.COMPLEX64: _PARTS,
    ir.DataType.COMPLEX128: _PARTS,
    ir.DataType.FLOAT8E4M3FN: _WIDER,
    ir.DataType.FLOAT8E5M2: _WIDER,
}

_AUTOMATIC_NAME = re.compile(r"keras_tensor(_\d+)?")


@dataclass(frozen=True)
class InputSpec:
    """One input of a model; dynamic dimensions are named."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    #: Whether the type is a guess: of calls of a subclassed model, Keras records only the shapes.
    guessed: bool = False


#: Positional and keyword arguments of a model's call: structures of `InputSpec`, or of values for these.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


def inputs_of(model: keras.Model, given: Any = None) -> Arguments:
    """Return the arguments that the model is called with, as structures of `InputSpec`.

    `given` is the first argument, a tuple of the positional arguments, or a dictionary of all arguments if
    its keys are parameters of `call`.
    """
    _refuse_without_call(model)
    if given is not None:
        return _named(model, *_arranged(model, given))
    if (graph := _graph(model)) is not None:
        return _named(None, (graph._inputs_struct,), {})
    recorded = _named(model, *_recorded(model))
    guessed: Arguments = keras.tree.map_structure(lambda spec: replace(spec, guessed=True), recorded)
    return guessed


def knows_inputs(model: keras.Model) -> bool:
    """Whether all inputs of a model are known: from its graph of layers, otherwise from its first call."""
    remembered = len(model._build_shapes_dict or ())
    enough = remembered >= max(1, len(_required(model))) and not other_call_forms(model)
    return _graph(model) is not None or enough


def other_call_forms(model: keras.Model) -> list[str]:
    """Return messages about optional arguments that the model is lowered without."""
    if _graph(model) is not None or len(model._build_shapes_dict or ()) > 1:
        return []
    parameters = list(inspect.signature(model.call).parameters.values())[1:]
    names = [p.name for p in parameters if p.default is None and p.name not in ("mask", "training")]
    if not names:
        return []
    return [
        f"model '{model.name}' ({type(model).__name__}) is compiled without {', '.join(names)}: Keras does "
        "not record whether it was called with more than its first argument; to include them, give "
        "input_signature= or data= with each of them"
    ]


def with_open_batch(model: keras.Model, arguments: Arguments) -> Arguments:
    """Return the arguments with a dynamic batch size where a fixed one merely came from the first call.

    A Sequential without an Input adopts the shape of its first data, batch size included.
    """
    if not isinstance(model, keras.Sequential) or any(
        getattr(layer, "stateful", False) for layer in model._flatten_layers()
    ):
        return arguments
    result: Arguments = keras.tree.map_structure(
        lambda spec: replace(spec, shape=(BATCH, *spec.shape[1:])) if spec.shape else spec, arguments
    )
    return result


def call(model: Callable[..., Any], arguments: Arguments) -> Any:
    """Call a model, in inference mode, with arguments as `inputs_of` arranges them.

    Results that are None are left out.
    """
    positional, keywords = arguments
    results = model(*positional, **keywords, training=False)
    if all(leaf is not None for leaf in keras.tree.flatten(results)):
        return results
    return _without_none(results)


def _without_none(results: Any) -> Any:
    if isinstance(results, dict):
        return {key: _without_none(value) for key, value in results.items() if value is not None}
    if isinstance(results, list | tuple):
        return [_without_none(value) for value in results if value is not None]
    return results


def build(model: keras.Model, arguments: Arguments) -> None:
    """Call the model symbolically if some layers are not built, so that Keras creates their weights."""
    if all(layer.built for layer in model._flatten_layers()):
        return
    try:
        call(model, keras.tree.map_structure(_keras_tensor, arguments))
    except Exception:  # noqa: BLE001  # lowering may succeed, or raise a clearer error
        return


def _graph(model: keras.Model) -> keras.Model | None:
    """Return the model's graph of layers, None if it has none."""
    graph = model._functional if isinstance(model, keras.Sequential) else model
    return graph if isinstance(graph, keras.Model) and hasattr(graph, "_inputs_struct") else None


def _keras_tensor(spec: InputSpec) -> keras.KerasTensor:
    shape = [dim if isinstance(dim, int) else None for dim in spec.shape]
    return keras.KerasTensor(shape, spec.dtype, name=spec.name)


def enter(g: Lowering, spec: InputSpec) -> Symbol:
    """Add an input to the graph."""
    _require_served(f"input '{spec.name}'", dtypes.to_onnx(spec.dtype))
    value = ir.val(spec.name, dtypes.to_onnx(spec.dtype), ir.Shape(spec.shape))
    g.graph.inputs.append(value)
    return Symbol(value)


def finish(g: Lowering, model: keras.Model, results: Any) -> Any:
    """Make the results of the model the outputs of the graph; return their names in the same structure."""
    g.graph.inputs.extend(g.state.inputs)
    leaves = keras.tree.flatten_with_path(results)
    if results is None or not leaves:
        raise ConversionError(f"model '{model.name}' returns no tensor; return what is to be served")
    names = unique_names(_output_names(model, leaves), taken={str(value.name) for value in g.graph.inputs})
    for name, (_, symbol) in zip(names, leaves, strict=True):
        _require_served(f"output '{name}'", symbol.value.dtype)
        _make_way(g, name)
        value = _own(g, _readable(g, symbol.value))
        value.name = name
        value.shape = ir.Shape(value.shape or ())
        g.graph.outputs.append(value)
    for name, last in g.state.last:
        value = _own(g, last)
        value.name = name
        g.graph.outputs.append(value)
    return keras.tree.pack_sequence_as(results, names)


def _require_served(what: str, dtype: ir.DataType) -> None:
    """Raise for a type whose tensors ONNX Runtime can neither take as inputs nor return as outputs."""
    remedy = _NOT_SERVED.get(dtype)
    if remedy is not None:
        raise ConversionError(
            f"{what} is {dtypes.from_onnx(dtype)}, which ONNX Runtime neither accepts nor returns; {remedy}"
        )


def _make_way(g: Lowering, name: str) -> None:
    """Rename a weight or constant that has the name of an output, by appending a number."""
    taken = g.graph.initializers
    if name in taken:
        count = next(n for n in itertools.count(1) if f"{name}_{n}" not in taken)
        taken[name].name = f"{name}_{count}"


def _own(g: Lowering, value: ir.Value) -> ir.Value:
    """Return a value that serves only as this output, so that it can be renamed."""
    if not (value.is_graph_input() or value.is_initializer() or value.is_graph_output()):
        return value
    copy = g.op.Identity(value)
    copy.type, copy.shape = value.type, value.shape
    return copy


def _readable(g: Lowering, value: ir.Value) -> ir.Value:
    """Cast a bfloat16 value, a type that NumPy lacks, to float32, which represents it exactly."""
    if value.dtype != ir.DataType.BFLOAT16:
        return value
    wide = g.cast(value, ir.DataType.FLOAT)
    wide.shape = value.shape
    return wide


def _output_names(model: keras.Model, leaves: Sequence[tuple[tuple[Any, ...], Any]]) -> list[str]:
    graph = model._functional if isinstance(model, keras.Sequential) else model
    given = getattr(graph, "output_names", None)
    if given is not None and len(given) == len(leaves):
        automatic = list(given)
    else:
        automatic = ["output"] if len(leaves) == 1 else [f"output_{index}" for index in range(len(leaves))]
    return [_path_name(path) or name for (path, _), name in zip(leaves, automatic, strict=True)]


def _path_name(path: Sequence[Any]) -> str:
    """Join a path in a nested structure from its first string key on; leading list indices are dropped."""
    return "_".join(str(key) for key in itertools.dropwhile(lambda key: not isinstance(key, str), path))


def _named(model: keras.Model | None, positional: tuple[Any, ...], keywords: dict[str, Any]) -> Arguments:
    arguments = (positional, keywords)
    own = (
        ["input"] if model is None else _argument_names(model, len(positional)),
        {each: each for each in keywords},
    )
    leaves = keras.tree.flatten_with_path(arguments)
    names = [
        _input_name(path, leaf) or _numbered(own[kind][key], path, arguments[kind][key])
        for (kind, key, *path), leaf in leaves
    ]
    specs = [_spec(name, leaf) for name, (_, leaf) in zip(unique_names(names), leaves, strict=True)]
    packed: Arguments = keras.tree.pack_sequence_as(arguments, specs)
    return packed


def _input_name(path: Sequence[Any], leaf: Any) -> str:
    """Name an input by its dictionary keys; a more deeply nested one by its own name, if it has one."""
    name = str(getattr(leaf, "name", None) or "")
    if len(path) > 1 and name and not _AUTOMATIC_NAME.fullmatch(name):
        return name
    return _path_name(path) or _own_name(leaf, name)


def _own_name(leaf: Any, name: str) -> str:
    if not _AUTOMATIC_NAME.fullmatch(name):
        return name
    history = getattr(leaf, "_keras_history", None)
    return str(history.operation.name) if history is not None and history.operation is not None else ""


def _numbered(name: str, path: Sequence[Any], argument: Any) -> str:
    return name if len(keras.tree.flatten(argument)) == 1 else f"{name}_{path[-1]}"


def _spec(name: str, leaf: Any) -> InputSpec:
    if not hasattr(leaf, "shape"):
        raise ConversionError(f"input '{name}' is {leaf!r}, not a tensor; leave it out of the model's inputs")
    if leaf.shape is None:
        raise ConversionError(f"input '{name}' has no known rank; give its shape with input_signature=")
    dims = [
        size if isinstance(size, str) else _dim(size, BATCH if axis == 0 else f"{name}_{axis}")
        for axis, size in enumerate(leaf.shape)
    ]
    return InputSpec(name, keras.backend.standardize_dtype(leaf.dtype or "float32"), tuple(dims))


def _dim(size: Any, name: str) -> int | str:
    return name if size is None else int(size)


def _refuse_without_call(model: keras.Model) -> None:
    """Raise for a model without call() that only trains others (GAN, VAE with train_step), naming those."""
    if _graph(model) is not None or type(model).call is not keras.Model.call:
        return
    parts = [name for name, part in vars(model).items() if isinstance(part, keras.Model)]
    instead = f"; compile the models in it instead: {', '.join(parts)}" if parts else ""
    raise ConversionError(
        f"model '{model.name}' ({type(model).__name__}) has no call(): there is nothing to compile{instead}"
    )


def _recorded(model: keras.Model) -> Arguments:
    """Return the arguments that a subclassed model was built with."""
    what = f"model '{model.name}' ({type(model).__name__})"
    shapes, required = model._build_shapes_dict or {}, _required(model)
    if not shapes or None in shapes.values():
        raise ConversionError(
            f"{what} was never called, or Keras did not record its inputs; call it once "
            "on data before compiling it, or give input_signature= or data="
        )
    if len(shapes) < len(required):
        raise ConversionError(
            f"{what} takes {', '.join(required)}, of which Keras records only the first; give them with "
            f"input_signature={{{', '.join(f'{name!r}: InputSpec(...)' for name in required)}}}, "
            "or data= with an array for each"
        )
    specs = {key.removesuffix("_shape"): _open_batch(model, shape) for key, shape in shapes.items()}
    if len(specs) > 1:
        return _arranged(model, specs)
    (spec,), first = specs.values(), next(iter(inspect.signature(model.call).parameters.values()))
    if first.kind is first.VAR_KEYWORD:
        return (), spec
    return (tuple(spec) if first.kind is first.VAR_POSITIONAL else (spec,)), {}


def _required(model: keras.Model) -> list[str]:
    """Return the names of the required arguments of `call`."""
    return [
        p.name
        for p in inspect.signature(model.call).parameters.values()
        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) and p.default is p.empty and p.name != "training"
    ]


def _arranged(model: keras.Model, given: Any) -> Arguments:
    """Return `given` as positional and keyword arguments of `call`."""
    if isinstance(given, tuple):
        return given, {}
    if isinstance(given, dict):
        with suppress(TypeError):
            bound = inspect.signature(model.call).bind_partial(**given)
            if set(_required(model)) <= set(given):
                return bound.args, bound.kwargs
    return (given,), {}


def _open_batch(model: keras.Model, shape: Any) -> Any:
    def spec(dims: Any) -> keras.KerasTensor:
        return keras.KerasTensor((None, *dims[1:]), dtype=model.input_dtype)

    if shape is None:
        raise ConversionError(
            f"model '{model.name}' ({type(model).__name__}) was called with None among tensors; leave it out "
            "with input_signature="
        )
    if isinstance(shape, dict):
        return {key: _open_batch(model, value) for key, value in shape.items()}
    if shape and all(size is None or isinstance(size, int) for size in shape):
        return spec(shape)
    return type(shape)(_open_batch(model, value) for value in shape)


def _argument_names(model: keras.Model, count: int) -> list[str]:
    """Return the names of the first `count` positional arguments."""
    parameters = inspect.signature(model.call).parameters.values()
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    several = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "input")
    further = count - len(names)
    return names + ([several] if further == 1 and not names else [f"{several}_{n}" for n in range(further)])


def unique_names(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Make names unique by appending numbers; `taken` are names in use, such as inputs' for outputs."""
    seen = set(taken)
    result = []
    for name in names:
        unique, count = name, 0
        while unique in seen:
            count += 1
            unique = f"{name}_{count}"
        seen.add(unique)
        result.append(unique)
    return result

"""Selection of types for which ONNX Runtime has a CPU kernel, from its own kernel registry.

ONNX allows more types than ONNX Runtime has kernels for (no integer `Tan`, no boolean `Where`, no double
`Conv`). For such a node, the builder here uses the nearest type that has a kernel, between two casts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import onnx
import onnx_ir as ir
import onnxscript
from onnxruntime.capi import onnxruntime_pybind11_state as onnxruntime

__all__ = ["KernelBuilder", "computable"]

#: For each type, those that represent (nearly) all of its values, the nearest first. Types without a
#: substitute are omitted. ONNX Runtime widens float16 by itself, where ONNX allows it at all.
_WIDER: dict[ir.DataType, tuple[ir.DataType, ...]] = {
    ir.DataType.BOOL: (ir.DataType.UINT8, ir.DataType.INT32, ir.DataType.FLOAT),
    ir.DataType.INT8: (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT),
    ir.DataType.UINT8: (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT),
    ir.DataType.INT16: (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT),
    ir.DataType.UINT16: (ir.DataType.INT32, ir.DataType.INT64, ir.DataType.FLOAT),
    ir.DataType.INT32: (ir.DataType.INT64, ir.DataType.DOUBLE, ir.DataType.FLOAT),
    ir.DataType.UINT32: (ir.DataType.INT64, ir.DataType.DOUBLE, ir.DataType.FLOAT),
    ir.DataType.INT64: (ir.DataType.DOUBLE, ir.DataType.FLOAT),
    ir.DataType.UINT64: (ir.DataType.INT64, ir.DataType.DOUBLE, ir.DataType.FLOAT),
    ir.DataType.FLOAT16: (ir.DataType.FLOAT,),
    ir.DataType.BFLOAT16: (ir.DataType.FLOAT,),
    ir.DataType.DOUBLE: (ir.DataType.FLOAT,),
    ir.DataType.FLOAT8E4M3FN: (ir.DataType.FLOAT,),
    ir.DataType.FLOAT8E5M2: (ir.DataType.FLOAT,),
}

#: ONNX functions that ONNX Runtime inlines, with the operator in their body that has the fewest kernels.
_TAKEN_APART = {"HardSwish": "HardSigmoid"}

_Types = dict[str, ir.DataType]


@dataclass(frozen=True)
class _Operator:
    """The contents of a schema, cached: reading them for each node took a third of the lowering time."""

    #: Name of each input and its type variable, "" if that does not stand for a tensor type.
    inputs: tuple[tuple[str, str], ...]
    #: Minimum and maximum number of inputs.
    fewest: int
    most: int
    attributes: Mapping[str, ir.AttributeType]
    required: frozenset[str]

    def parameters(self, args: Sequence[Any]) -> list[tuple[str, Any]]:
        """Pair each argument with the type variable of its parameter; the last one may be variadic."""
        last = len(self.inputs) - 1
        return [(self.inputs[min(index, last)][1], arg) for index, arg in enumerate(args)]

    def is_partitioned(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether the positional arguments are the inputs and the keyword arguments the attributes."""
        inputs_given = self.fewest <= len(args) <= self.most
        return inputs_given and self.required <= kwargs.keys() <= self.attributes.keys()


class KernelBuilder(onnxscript.GraphBuilder):
    """A graph builder whose nodes all have a kernel, and names that are unique across subgraphs."""

    #: Called with the operators that compute in float32 because they have no float64 kernel.
    narrowed: Callable[[str], None] = staticmethod(lambda _: None)

    def _adapt_outputs(self, outputs: Any, op_type: str) -> Sequence[ir.Value]:
        if not isinstance(outputs, int):
            return cast("Sequence[ir.Value]", super()._adapt_outputs(outputs, op_type))
        return [ir.Value(name=name) for name in self.names(op_type, outputs)]

    def names(self, base: str, count: int) -> list[str]:
        """Return names that are unique in the whole model."""
        self._root.written = number = getattr(self._root, "written", -1) + 1
        suffixes = [""] if count == 1 else [f"_{index}" for index in range(count)]
        return [f"{base}_{number}{suffix}" for suffix in suffixes]

    def has_kernel(self, node: ir.Node) -> bool:
        """Whether a node that was created elsewhere has a kernel for the types of its inputs."""
        schema = self._get_schema(node.op_type, node.domain, node.version)
        if schema is None or node.domain or node.op_type == "Cast":
            return True
        given = _bind(schema, node.inputs)
        return computable(node.op_type, schema, given) == given

    def _get_schema(self, op_type: str, domain: str, version: int | None) -> onnx.defs.OpSchema | None:
        return _schema(op_type, domain, version)

    def _partition_inputs_attributes(
        self, schema: onnx.defs.OpSchema | None, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> tuple[Sequence[Any], dict[str, Any]]:
        if schema is None or not _operator(schema).is_partitioned(args, kwargs):
            separated: tuple[Sequence[Any], dict[str, Any]]
            separated = super()._partition_inputs_attributes(schema, args, kwargs)
            return separated
        return args, {name: kwargs[name] for name in _operator(schema).attributes if name in kwargs}

    def _cast_attributes(
        self, schema: onnx.defs.OpSchema | None, attributes: dict[str, Any]
    ) -> dict[str, Any]:
        """Convert attributes to the types in the schema; the base class would guess them from the values."""
        if schema is None:
            return attributes
        types = _operator(schema).attributes
        return {
            name: ir.convenience.convert_attribute(name, value, types[name])
            for name, value in attributes.items()
            if value is not None
        }

    def call_op(self, op_type: str, args: Sequence[Any], kwargs: dict[str, Any], /, **options: Any) -> Any:
        """Add a node, and casts around it where its types have no kernel."""
        while args and args[-1] is None:  # an omitted input differs from a present one without a value
            args = args[:-1]
        schema = self._get_schema(op_type, options.get("domain", ""), options.get("version"))
        if schema is None or op_type == "Cast":
            return super().call_op(op_type, args, kwargs, **options)
        args, kwargs = self._partition_inputs_attributes(schema, args, kwargs)
        given = _bind(schema, args)
        wanted = computable(op_type, schema, given)
        changed = {variable for variable, dtype in given.items() if wanted[variable] != dtype}
        if not changed:
            return super().call_op(op_type, args, kwargs, **options)
        if any(given[v] == ir.DataType.DOUBLE and wanted[v] == ir.DataType.FLOAT for v in changed):
            self._root.narrowed(op_type)
        wide = [
            self.op.Cast(arg, to=int(wanted[variable])) if variable in changed and arg is not None else arg
            for variable, arg in _operator(schema).parameters(args)
        ]
        results = super().call_op(op_type, wide, kwargs, **options)
        outputs = [results] if isinstance(results, ir.Value) else list(results)
        back = [
            self.op.Cast(output, to=int(given[formal.type_str])) if formal.type_str in changed else output
            for output, formal in zip(outputs, _formals(schema.outputs, len(outputs)), strict=True)
        ]
        return back[0] if isinstance(results, ir.Value) else back


def computable(op_type: str, schema: onnx.defs.OpSchema, given: Mapping[str, ir.DataType]) -> _Types:
    """Return the types, by type variable of the schema, in which an operator on `given` types can run."""
    known = _kernels()[_TAKEN_APART.get(op_type, op_type)]
    kernels = [types for first, last, types in known if first <= schema.since_version <= last]
    for types in _alternatives(dict(given)):
        if any(_accepts(schema, kernel, types) for kernel in kernels):
            return types
    return dict(given)  # a function that is expanded on loading, or rejected by ONNX Runtime


def _alternatives(given: _Types) -> Iterator[_Types]:
    yield given
    for variable, dtype in given.items():
        for wider in _WIDER.get(dtype, ()):
            yield {**given, variable: wider}
    shared = set(given.values())
    if len(given) > 1 and len(shared) == 1:
        for wider in _WIDER.get(shared.pop(), ()):
            yield dict.fromkeys(given, wider)


def _accepts(schema: onnx.defs.OpSchema, kernel: Mapping[str, frozenset[str]], types: _Types) -> bool:
    names = {variable: (variable, name) for name, variable in _operator(schema).inputs}
    allowed = _allowed(schema.name, schema.since_version, schema.domain)
    return all(
        f"tensor({dtype.name.lower()})" in allowed[variable] for variable, dtype in types.items()
    ) and all(
        _type_string(dtype) in kernel[name]
        for variable, dtype in types.items()
        for name in names[variable]
        if name in kernel
    )


def _type_string(dtype: ir.DataType) -> str:
    same = ir.DataType.FLOAT if dtype == ir.DataType.FLOAT16 else dtype  # ONNX Runtime widens it on loading
    return f"tensor({same.name.lower()})"


def _bind(schema: onnx.defs.OpSchema, args: Sequence[Any]) -> _Types:
    """Return the types that the arguments bind to the schema's type variables."""
    bound: _Types = {}
    for variable, arg in _operator(schema).parameters(args):
        if variable and isinstance(arg, ir.Value) and arg.dtype is not None:
            bound.setdefault(variable, arg.dtype)
    return bound


def _formals(formals: Sequence[Any], count: int) -> list[Any]:
    """Return `count` parameters, repeating the last, variadic one as needed."""
    return [formals[min(index, len(formals) - 1)] for index in range(count)]


@cache
def _schema(op_type: str, domain: str, version: int | None) -> onnx.defs.OpSchema | None:
    """Return a schema, cached: ONNX creates a new object for each call."""
    with suppress(onnx.defs.SchemaError):
        return onnx.defs.get_schema(op_type, version, domain) if version is not None else None
    return None


@cache
def _operator(schema: onnx.defs.OpSchema) -> _Operator:
    attributes = schema.attributes
    return _Operator(
        tuple(
            (each.name, each.type_str if each.is_homogeneous and "(" not in each.type_str else "")
            for each in schema.inputs
        ),
        schema.min_input,
        schema.max_input,
        {name: ir.AttributeType(int(each.type)) for name, each in attributes.items()},
        frozenset(name for name, each in attributes.items() if each.required),
    )


@cache
def _allowed(op_type: str, version: int, domain: str) -> Mapping[str, frozenset[str]]:
    """Return the types that ONNX allows for the type variables of an operator."""
    constraints = onnx.defs.get_schema(op_type, version, domain).type_constraints
    return {each.type_param_str: frozenset(each.allowed_type_strs) for each in constraints}


@cache
def _kernels() -> Mapping[str, list[tuple[int, int, dict[str, frozenset[str]]]]]:
    table: dict[str, list[tuple[int, int, dict[str, frozenset[str]]]]] = defaultdict(list)
    for kernel in onnxruntime.get_all_opkernel_def():
        if kernel.provider == "CPUExecutionProvider" and kernel.domain in ("", "ai.onnx"):
            types = {name: frozenset(allowed) for name, allowed in kernel.type_constraints.items()}
            table[kernel.op_name].append((*kernel.version_range, types))
    return table

"""Binds an ensemble's steps to the models that they name, and checks that they fit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.config.complete import data_type, protocol_type, read_labels
from kerve.runtime.config.reshaping import Reshapes, own_dims
from kerve.runtime.ensemble.scheme import Scheme, Step, shown
from kerve.runtime.errors import ArtifactError
from kerve.runtime.signature import Dimension, Signature, TensorSpec, show_shape

__all__ = ["Bound", "Member", "bind"]


@dataclass(frozen=True)
class Member:
    """The properties of a member that its ensemble needs."""

    signature: Signature
    # Maximum rows of a request; 0 for a model without a batch dimension.
    max_batch_size: int


@dataclass(frozen=True)
class Bound:
    """The signature of a bound ensemble, as its clients see it."""

    signature: Signature
    # The signature with the shapes that the members see, if tensors are reshaped.
    inside: Signature
    reshapes: Reshapes
    # 0: without a batch dimension.
    max_batch_size: int


@dataclass(frozen=True)
class TensorPort:
    """The producer or a consumer of a tensor."""

    spec: TensorSpec
    what: str
    # Whether axis 0 of the spec is the batch dimension.
    batched: bool


def bind(scheme: Scheme, config: pb.ModelConfig, members: Sequence[Member], where: Path) -> Bound:
    """Return the signature of an ensemble; raises ArtifactError if its steps do not fit their models.

    If the configuration declares no tensors, the inputs are those that no step produces, and the outputs
    those that no step consumes.
    """
    steps = list(zip(scheme.steps, members, strict=True))
    rows = batch_size(config, steps, where)
    sources: dict[str, TensorPort] = {}
    for step, member in steps:
        known = {spec.name: spec for spec in member.signature.outputs}
        for own, tensor in step.outputs.items():
            check_name(own, known, "output", step, where)
            sources[tensor] = TensorPort(
                known[own], f"output {own!r} of step {step.model!r}", member.signature.batched
            )
    sources |= declared_inputs(config, batched=rows > 0, where=where)
    for step, member in steps:
        known = {spec.name: spec for spec in member.signature.inputs}
        for own, tensor in step.inputs.items():
            check_name(own, known, "input", step, where)
            batched = member.signature.batched
            taker = TensorPort(known[own], f"input {own!r} of step {step.model!r}", batched)
            # If the ensemble declares no inputs, the first step that consumes an input defines it.
            source = sources.setdefault(
                tensor, TensorPort(replace(known[own], name=tensor), taker.what, batched)
            )
            check_fit(tensor, source, taker, where)
        for spec in member.signature.inputs:
            if not spec.optional and spec.name not in step.inputs:
                raise ArtifactError(
                    f"{where}: step {step.model!r}: input_map lacks the model's input {spec.name!r}"
                )
    inputs = [tensor.name for tensor in config.input] or [
        tensor for tensor in in_order(steps, "inputs") if tensor not in scheme.produced
    ]
    if not inputs:
        raise ArtifactError(f"{where}: the ensemble has no input: every step depends on another")
    outputs = declared_outputs(config, sources, batched=rows > 0, where=where) or [
        as_own(sources[tensor].spec, tensor, batched=rows > 0)
        for tensor in in_order(steps, "outputs")
        if tensor not in scheme.consumed
    ]
    inside = Signature(
        tuple(as_own(sources[name].spec, name, batched=rows > 0) for name in inputs), tuple(outputs), rows > 0
    )
    reshapes = Reshapes(config, where, batched=inside.batched)
    return Bound(reshapes.seen(inside), inside, reshapes, rows)


def in_order(steps: Sequence[tuple[Step, Member]], kind: Literal["inputs", "outputs"]) -> list[str]:
    """Return the inputs or outputs of the steps, in the order of the steps and of their models' tensors:
    protobuf maps are unordered.
    """
    names: dict[str, None] = {}
    for step, member in steps:
        mapped: Mapping[str, str] = getattr(step, kind)
        for spec in getattr(member.signature, kind):
            if spec.name in mapped:
                names[mapped[spec.name]] = None
    return list(names)


def batch_size(config: pb.ModelConfig, steps: Sequence[tuple[Step, Member]], where: Path) -> int:
    """Return the maximum rows of a request; 0 without a batch dimension.

    A member that is not batched does not limit an ensemble that declares its tensors.
    """
    limits = [(member.max_batch_size, step.model) for step, member in steps]
    if not config.input and not config.max_batch_size:
        return min(limits)[0]
    if config.input:
        limits = [limit for limit in limits if limit[0]]
    smallest, least = min(limits, default=(config.max_batch_size, ""))
    if config.max_batch_size > smallest:
        raise ArtifactError(
            f"{where}: max_batch_size is {config.max_batch_size}, but step {least!r} takes "
            + (f"{smallest} rows at most" if smallest else "no batches: its max_batch_size is 0")
        )
    return max(0, config.max_batch_size)


def declared_inputs(config: pb.ModelConfig, *, batched: bool, where: Path) -> dict[str, TensorPort]:
    """Return the inputs that the configuration declares."""
    found = {}
    for tensor in config.input:
        if tensor.data_type == pb.TYPE_INVALID:
            raise ArtifactError(f"{where}: input {tensor.name!r}: expected data_type, got none")
        spec = TensorSpec(
            tensor.name,
            protocol_type(tensor.data_type),
            shape_of(own_dims(tensor), batched),
            optional=tensor.optional,
        )
        found[tensor.name] = TensorPort(spec, "the ensemble's input", batched)
    return found


def declared_outputs(
    config: pb.ModelConfig, sources: Mapping[str, TensorPort], *, batched: bool, where: Path
) -> list[TensorSpec]:
    """Return the outputs that the configuration declares, checked against the steps that produce them."""
    found = []
    for tensor in config.output:
        source = sources[tensor.name]
        datatype = source.spec.datatype
        if tensor.data_type not in (pb.TYPE_INVALID, data_type(datatype)):
            datatype = protocol_type(tensor.data_type)
        shape = shape_of(own_dims(tensor), batched)
        wanted = replace(source.spec, name=tensor.name, datatype=datatype, shape=shape)
        check_fit(tensor.name, source, TensorPort(wanted, "the ensemble's output", batched), where)
        labels = read_labels(where, tensor.label_filename) or source.spec.labels
        found.append(replace(wanted, labels=labels, optional=False))
    return found


def shape_of(declared: Sequence[int], batched: bool) -> tuple[Dimension, ...]:
    """Return a declared shape, including the batch dimension."""
    dims = tuple(size if size >= 0 else None for size in declared)
    return ("batch", *dims) if batched else dims


def as_own(spec: TensorSpec, name: str, *, batched: bool) -> TensorSpec:
    """Return a member's spec as the ensemble's, without its symbolic sizes, which are local to the member."""
    sizes = tuple(size if isinstance(size, int) else None for size in spec.shape)
    return replace(spec, name=name, shape=("batch", *sizes[1:]) if batched else sizes)


def check_name(name: str, known: Mapping[str, TensorSpec], kind: str, step: Step, where: Path) -> None:
    """Raise ArtifactError if the model has no such tensor."""
    if name not in known:
        raise ArtifactError(
            f"{where}: step {step.model!r}: {kind}_map names {kind} {name!r}, which the model does not have; "
            f"it has: {shown(known)}"
        )


def check_fit(tensor: str, source: TensorPort, taker: TensorPort, where: Path) -> None:
    """Raise ArtifactError unless a produced tensor fits its consumer."""
    for given, taken, kind in (
        (source.spec.datatype, taker.spec.datatype, "datatype"),
        (show_shape(source.spec.shape), show_shape(taker.spec.shape), "shape"),
    ):
        matches = given == taken if kind == "datatype" else may_become(source, taker)
        if not matches:
            raise ArtifactError(
                f"{where}: tensor {tensor!r}: {source.what} has {kind} {given}, {taker.what} has {taken}"
            )
    if source.spec.optional and not taker.spec.optional and source.what == "the ensemble's input":
        raise ArtifactError(f"{where}: input {tensor!r} is optional, but {taker.what} is not")


def may_become(source: TensorPort, taker: TensorPort) -> bool:
    """Return whether a tensor fits its consumer, possibly with a batch axis of one row added or removed.

    As in Triton: if only one side is batched, the tensor is the single row of a batch.
    """
    given, taken = source.spec.shape, taker.spec.shape
    if may_equal(given, taken):
        return True
    if source.batched == taker.batched:
        return False
    return may_equal(given[1:], taken) if source.batched else may_equal(given, taken[1:])


def may_equal(left: Sequence[Dimension], right: Sequence[Dimension]) -> bool:
    """Return whether a tensor can have both shapes; dynamic sizes are checked at run time."""
    return len(left) == len(right) and all(
        not isinstance(one, int) or not isinstance(other, int) or one == other
        for one, other in zip(left, right, strict=True)
    )

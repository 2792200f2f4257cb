"""Reads how a model's sequences are computed, from `sequence_batching` or the manifest's states."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from kerve.artifact.v1 import manifest_pb2
from kerve.inference import model_config_pb2 as pb
from kerve.runtime.artifact import Artifact
from kerve.runtime.config.complete import DEFAULT_IDLE, data_type, fits
from kerve.runtime.datatypes import BYTES, DATATYPES
from kerve.runtime.errors import ArtifactError, InvalidArgumentError
from kerve.runtime.protocol.tensors import from_raw
from kerve.runtime.sequences.plan import Control, Kind, Plan, State, Value
from kerve.runtime.signature import Dimension, Signature, TensorSpec, show_shape

__all__ = ["plan_of"]

# Triton's subfolder of a model's folder for the files of initial states.
INITIAL_FOLDER = "initial_state"

CORRID_TYPES = (pb.TYPE_UINT64, pb.TYPE_INT64, pb.TYPE_UINT32, pb.TYPE_INT32, pb.TYPE_STRING)


def plan_of(config: pb.ModelConfig, artifact: Artifact, signature: Signature, instances: int) -> Plan | None:
    """Return how a version's sequences are computed; None if it has none.

    `signature`: all inputs and outputs of the graph. Raises ArtifactError if the configuration does not fit
    the graph.
    """
    kept = artifact.manifest.state if artifact.manifest else ()
    if not config.HasField("sequence_batching") and not kept:
        return None
    batching, folder = config.sequence_batching, artifact.path.parent
    idle = (batching.max_sequence_idle_microseconds or DEFAULT_IDLE) / 1e6
    most = max(0, batching.oldest.max_candidate_sequences) * instances
    if kept and not batching.state and not batching.control_input:
        states = tuple(manifest_state(each, signature, folder) for each in kept)
        return Plan(signature, states, required=False, idle=idle, most=most)
    states = tuple(configured_state(each, signature, folder) for each in batching.state)
    controls = tuple(
        configured_control(each, signature, folder) for each in one_of_each(batching.control_input, folder)
    )
    fed = [*(state.input.name for state in states), *(control.input.name for control in controls)]
    if twice := {name for name in fed if fed.count(name) > 1}:
        raise ArtifactError(
            f"{folder}: sequence_batching: input {min(twice)!r} has two sources (states or controls)"
        )
    shown = {output.name for output in config.output}
    taken = {state.output for state in states} - shown
    public = replace(
        signature,
        inputs=tuple(spec for spec in signature.inputs if spec.name not in fed),
        outputs=tuple(spec for spec in signature.outputs if spec.name not in taken),
    )
    return Plan(public, states, controls, idle=idle, most=most)


def manifest_state(each: manifest_pb2.StateSpec, signature: Signature, folder: Path) -> State:
    """Return a state from the manifest."""
    spec = find(signature.inputs, each.input, "the manifest's state", folder)
    find(signature.outputs, each.output, "the manifest's state", folder)
    shape = row_shape(spec.shape, signature)
    raw = each.initial or zeros(spec, shape)
    return State(spec, each.output, checked(spec, shape, raw, f"{folder}: state {each.input!r}"))


def configured_state(each: pb.ModelSequenceBatching.State, signature: Signature, folder: Path) -> State:
    """Return a state of `sequence_batching`."""
    where = f"{folder}: sequence_batching: state {each.input_name!r}"
    spec = find(signature.inputs, each.input_name, "sequence_batching: state", folder)
    output = find(signature.outputs, each.output_name, "sequence_batching: state", folder)
    check_declared(spec, each.data_type, each.dims, signature, where)
    check_declared(output, each.data_type, each.dims, signature, where)
    dims = list(each.dims) or [-1] * (len(spec.shape) - signature.batched)
    shape = row_shape((None, *free(dims)) if signature.batched else free(dims), signature)
    if len(each.initial_state) > 1:
        raise ArtifactError(f"{where}: expected at most one initial_state, got {len(each.initial_state)}")
    if not each.initial_state or each.initial_state[0].WhichOneof("state_data") != "data_file":
        if each.initial_state and each.initial_state[0].dims:
            shape = initial_shape(each.initial_state[0], each, where)
        return State(spec, each.output_name, Value(shape, zeros(spec, shape)))
    initial = each.initial_state[0]
    raw = read_initial(folder, initial.data_file, where)
    return State(spec, each.output_name, checked(spec, initial_shape(initial, each, where), raw, where))


def initial_shape(
    initial: pb.ModelSequenceBatching.InitialState, state: pb.ModelSequenceBatching.State, where: str
) -> tuple[int, ...]:
    """Return the shape of the initial value; raises ArtifactError if it does not fit the state."""
    if initial.data_type not in (pb.TYPE_INVALID, state.data_type) or not fits(
        [*initial.dims], free(state.dims)
    ):
        raise ArtifactError(
            f"{where}: initial_state has {pb.DataType.Name(initial.data_type)} "
            f"{show_shape(initial.dims)}, the state {pb.DataType.Name(state.data_type)} "
            f"{show_shape(free(state.dims))}"
        )
    return tuple(initial.dims)


def read_initial(folder: Path, name: str, where: str) -> bytes:
    """Return the contents of an initial state's file."""
    base = folder / INITIAL_FOLDER
    file = base / name
    if not file.resolve().is_relative_to(base.resolve()):
        raise ArtifactError(f"{where}: data_file {name!r} lies outside {base}")
    try:
        return file.read_bytes()
    except OSError as error:
        raise ArtifactError(f"{where}: data_file {name!r} cannot be read: {error}") from error


def one_of_each(
    controls: Sequence[pb.ModelSequenceBatching.ControlInput], folder: Path
) -> Iterable[tuple[str, pb.ModelSequenceBatching.Control]]:
    """Yield the name and the control of each input; raises ArtifactError unless each input has one control,
    of a kind that no other has.
    """
    seen: set[int] = set()
    for each in controls:
        if len(each.control) != 1:
            raise ArtifactError(
                f"{folder}: sequence_batching: control_input {each.name!r}: expected one control, "
                f"got {len(each.control)}"
            )
        (control,) = each.control
        if control.kind in seen:
            raise ArtifactError(
                f"{folder}: sequence_batching specifies multiple {Kind.Kind.Name(control.kind)} tensors"
            )
        seen.add(control.kind)
        yield each.name, control


def configured_control(
    given: tuple[str, pb.ModelSequenceBatching.Control], signature: Signature, folder: Path
) -> Control:
    """Return a control of `sequence_batching`."""
    name, control = given
    where = f"{folder}: sequence_batching: control_input {name!r}"
    spec = find(signature.inputs, name, "sequence_batching: control_input", folder)
    if any(isinstance(size, int) and size != 1 for size in spec.shape[signature.batched :]):
        raise ArtifactError(
            f"{where}: expected an input of shape [1], the graph has {show_shape(spec.shape)}"
        )
    if control.kind == Kind.CONTROL_SEQUENCE_CORRID:
        if control.data_type not in CORRID_TYPES or control.data_type != data_type(spec.datatype):
            raise ArtifactError(
                f"{where}: expected data_type {' or '.join(map(pb.DataType.Name, CORRID_TYPES))}, as the "
                f"graph has it ({spec.datatype}); got {pb.DataType.Name(control.data_type)}"
            )
        return Control(spec, control.kind)
    values: Mapping[str, Sequence[float]] = {
        "INT32": control.int32_false_true,
        "FP32": control.fp32_false_true,
        "BOOL": control.bool_false_true,
    }
    found = {datatype: pair for datatype, pair in values.items() if pair}
    if [*found] != [spec.datatype] or len(found[spec.datatype]) != 2:
        raise ArtifactError(
            f"{where}: expected {spec.datatype.lower()}_false_true with two values, as the graph takes "
            f"{spec.datatype}; a control is INT32, FP32 or BOOL"
        )
    false, true = (
        np.array(value, DATATYPES[spec.datatype].dtype).tobytes() for value in found[spec.datatype]
    )
    return Control(spec, control.kind, (false, true))


def find(specs: Iterable[TensorSpec], name: str, what: str, folder: Path) -> TensorSpec:
    """Return a tensor of the graph by name; raises ArtifactError if there is none."""
    known = {spec.name: spec for spec in specs}
    if name not in known:
        raise ArtifactError(f"{folder}: {what} {name!r} is not in the graph; it has: {', '.join(known)}")
    return known[name]


def check_declared(
    spec: TensorSpec, declared: pb.DataType.ValueType, dims: Sequence[int], signature: Signature, where: str
) -> None:
    """Raise ArtifactError unless a state's declaration fits the graph."""
    own = spec.shape[signature.batched :]
    if declared != data_type(spec.datatype) or (dims and not fits(free(dims), own)):
        raise ArtifactError(
            f"{where}: the configuration declares {pb.DataType.Name(declared)} {show_shape(free(dims))}, "
            f"the graph has {pb.DataType.Name(data_type(spec.datatype))} {show_shape(own)}"
            + (" for each row" if signature.batched else "")
        )


def free(dims: Iterable[int]) -> list[Dimension]:
    """Convert a configuration's dims to those of a signature."""
    return [size if size >= 0 else None for size in dims]


def row_shape(shape: Sequence[Dimension], signature: Signature) -> tuple[int, ...]:
    """Return the shape of a state's initial value, without the batch axis; dynamic sizes become 1."""
    return tuple(size if isinstance(size, int) else 1 for size in shape[signature.batched :])


def zeros(spec: TensorSpec, shape: tuple[int, ...]) -> bytes:
    """Return the contents of a tensor of zeros, or of empty strings."""
    size = 4 if spec.datatype == BYTES.name else DATATYPES[spec.datatype].dtype.itemsize
    return bytes(size * math.prod(shape))


def checked(spec: TensorSpec, shape: tuple[int, ...], raw: bytes, where: str) -> Value:
    """Return the value in raw contents; raises ArtifactError if they do not fit the shape."""
    try:
        from_raw("initial state", spec.datatype, shape, raw)
    except InvalidArgumentError as error:
        raise ArtifactError(f"{where}: {error}") from error
    return Value(shape, raw)

"""Checks a model's configuration against its graph, and completes it (Triton's auto-complete)."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.config.effects import REFUSED, set_paths
from kerve.runtime.config.reshaping import own_dims
from kerve.runtime.config.settings import MOST_ROWS
from kerve.runtime.errors import ArtifactError
from kerve.runtime.signature import Dimension, Signature, TensorSpec, show_shape

__all__ = [
    "DEFAULT_IDLE",
    "ENSEMBLE",
    "PLATFORM",
    "complete",
    "data_type",
    "protocol_type",
    "read_labels",
    "refuse_unsupported",
    "settle",
]

# Triton's name for an ONNX model, on which clients' defaults depend.
PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"
# Triton's name for an ensemble, which has no backend.
ENSEMBLE = "ensemble"

# Triton's default of the microseconds without a request after which a sequence is dropped.
DEFAULT_IDLE = 1_000_000

DATA_TYPES = {"BYTES": pb.TYPE_STRING}


def data_type(datatype: str) -> pb.DataType.ValueType:
    """Return Triton's number for a datatype of the protocol."""
    return DATA_TYPES.get(datatype) or pb.DataType.Value(f"TYPE_{datatype}")


def protocol_type(number: pb.DataType.ValueType) -> str:
    """Return the protocol's name of a datatype."""
    return "BYTES" if number == pb.TYPE_STRING else pb.DataType.Name(number).removeprefix("TYPE_")


def refuse_unsupported(config: pb.ModelConfig, where: Path) -> None:
    """Raise ArtifactError if a configuration uses an unsupported feature."""
    for path in set_paths(config):
        if path in REFUSED:
            raise ArtifactError(f"{where}: {path}: this server does not support {REFUSED[path]}; remove it")
    if config.HasField("ensemble_scheduling"):
        refuse_of_ensemble(config, where)
    elif config.platform not in ("", PLATFORM) or config.backend not in ("", BACKEND):
        raise ArtifactError(
            f"{where}: expected platform {PLATFORM!r} or backend {BACKEND!r}, "
            f"got {config.platform or config.backend!r}; this server runs ONNX models, "
            f"and ensembles of them with platform {ENSEMBLE!r} and ensemble_scheduling"
        )
    if Path(config.default_model_filename).name != config.default_model_filename:
        raise ArtifactError(
            f"{where}: default_model_filename: expected the name of a file, got "
            f"{config.default_model_filename!r}"
        )


def refuse_of_ensemble(config: pb.ModelConfig, where: Path) -> None:
    """Raise ArtifactError for settings that an ensemble cannot have, since it computes nothing itself."""
    if config.platform not in ("", ENSEMBLE) or config.backend:
        raise ArtifactError(
            f"{where}: ensemble_scheduling: expected platform {ENSEMBLE!r} and no backend, "
            f"got {config.backend or config.platform!r}"
        )
    if config.instance_group:
        raise ArtifactError(f"{where}: instance_group: an ensemble has no instances; set it in its members")


def settle(
    signature: Signature, config: pb.ModelConfig, folder: Path, replaceable: Sequence[TensorSpec] = ()
) -> Signature:
    """Return the signature that the configuration declares, with the graph's shapes.

    If the configuration declares tensors, `max_batch_size` decides whether axis 0 is the batch; otherwise the
    graph does, as in Triton's auto-complete. `replaceable`: constants of the graph, which are inputs if the
    configuration declares them. Raises ArtifactError if the configuration does not fit the graph.
    """
    batched = signature.batched
    if config.max_batch_size > 0 and not batched:
        batched = may_batch(signature)
        if not batched:
            raise ArtifactError(
                f"{folder}: max_batch_size is {config.max_batch_size}, but axis 0 of the graph's "
                "tensors is not "
                "one free dimension; set max_batch_size to 0"
            )
    elif config.max_batch_size == 0 and config.input:
        batched = False
    inputs = list(signature.inputs)
    if config.input:
        known = (*signature.inputs, *replaceable)
        inputs = [*declared(known, config.input, "input", batched=batched, folder=folder)]
    inputs += undeclared(signature.inputs, inputs, fed(config))
    if left := {spec.name for spec in signature.inputs} - {spec.name for spec in inputs}:
        raise ArtifactError(
            f"{folder}: the configuration does not declare the graph's input {sorted(left)[0]!r}"
        )
    outputs = list(signature.outputs)
    if config.output:
        outputs = [*declared(signature.outputs, config.output, "output", batched=batched, folder=folder)]
    outputs += undeclared(signature.outputs, outputs, {state.output_name for state in states_of(config)})
    if batched and not signature.batched:
        inputs, outputs = ([with_batch(spec) for spec in specs] for specs in (inputs, outputs))
    return Signature(tuple(inputs), tuple(outputs), batched)


def states_of(config: pb.ModelConfig) -> Sequence[pb.ModelSequenceBatching.State]:
    """Return the implicit states of a configuration."""
    return config.sequence_batching.state


def fed(config: pb.ModelConfig) -> set[str]:
    """Return the inputs that the server feeds in sequences, which a configuration need not declare."""
    controls = {control.name for control in config.sequence_batching.control_input}
    return controls | {state.input_name for state in states_of(config)}


def undeclared(
    specs: Sequence[TensorSpec], declared: Sequence[TensorSpec], names: Collection[str]
) -> list[TensorSpec]:
    """Return the named specs that are not declared."""
    known = {spec.name for spec in declared}
    return [spec for spec in specs if spec.name in names and spec.name not in known]


def may_batch(signature: Signature) -> bool:
    """Return whether axis 0 of every tensor is dynamic."""
    specs = (*signature.inputs, *signature.outputs)
    return bool(signature.inputs) and all(spec.shape and not isinstance(spec.shape[0], int) for spec in specs)


def with_batch(spec: TensorSpec) -> TensorSpec:
    """Return a spec with axis 0 as the batch dimension."""
    return replace(spec, shape=("batch", *spec.shape[1:]))


def declared(
    specs: Sequence[TensorSpec],
    wanted: Sequence[pb.ModelInput] | Sequence[pb.ModelOutput],
    kind: str,
    *,
    batched: bool,
    folder: Path,
) -> Iterable[TensorSpec]:
    """Yield the specs that a configuration declares, in its order."""
    known = {spec.name: spec for spec in specs}
    for tensor in wanted:
        if tensor.name not in known:
            raise ArtifactError(
                f"{folder}: the configuration declares {kind} {tensor.name!r}; the graph has: "
                f"{', '.join(known)}"
            )
        spec = known[tensor.name]
        dims = [size if size >= 0 else None for size in own_dims(tensor)]
        shape: list[Dimension] = [spec.shape[0], *dims] if batched and spec.shape else [*dims]
        if tensor.data_type not in (pb.TYPE_INVALID, data_type(spec.datatype)) or not fits(shape, spec.shape):
            raise ArtifactError(
                f"{folder}: {kind} {spec.name!r}: the configuration declares "
                f"{pb.DataType.Name(tensor.data_type)} {show_shape(shape)}, the graph has "
                f"{pb.DataType.Name(data_type(spec.datatype))} {show_shape(spec.shape)}"
                + ("; axis 0 is the batch, which dims must not include" if batched else "")
            )
        narrow = tuple(size if size is not None else own for size, own in zip(shape, spec.shape, strict=True))
        if isinstance(tensor, pb.ModelOutput):
            yield replace(
                spec, shape=narrow, labels=read_labels(folder, tensor.label_filename) or spec.labels
            )
        elif tensor.optional and not spec.optional:
            raise ArtifactError(
                f"{folder}: input {spec.name!r} is optional in the configuration, but the graph needs it; "
                "remove optional, or give the graph an initializer of that name"
            )
        else:
            yield replace(spec, shape=narrow)


def fits(shape: Sequence[Dimension], own: Sequence[Dimension]) -> bool:
    """Return whether a declared shape fits the graph's."""
    return len(shape) == len(own) and all(
        wanted is None or not isinstance(have, int) or wanted == have
        for wanted, have in zip(shape, own, strict=True)
    )


def read_labels(folder: Path, name: str) -> tuple[str, ...]:
    """Return the class labels in a file of the model's folder, one per line; empty without a file."""
    if not name:
        return ()
    file = folder / name
    if not file.resolve().is_relative_to(folder.resolve()):
        raise ArtifactError(f"{folder}: label_filename {name!r} lies outside the model's folder")
    try:
        return tuple(line.strip() for line in file.read_text().splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"{folder}: label_filename {name!r} cannot be read: {error}") from error


def leaves_open(group: pb.ModelInstanceGroup) -> bool:
    """Return whether a group leaves its devices or number of instances to the server."""
    on_gpu = group.kind == group.KIND_GPU
    return not group.passive and (
        group.kind in (group.KIND_AUTO, group.KIND_MODEL) or group.count < 1 or (on_gpu and not group.gpus)
    )


def complete(
    config: pb.ModelConfig, name: str, signature: Signature, groups: Sequence[pb.ModelInstanceGroup]
) -> pb.ModelConfig:
    """Return the configuration in effect, with all defaults filled in."""
    full = pb.ModelConfig.FromString(config.SerializeToString())
    full.name = name
    ensemble = full.HasField("ensemble_scheduling")
    if ensemble:
        full.platform = ENSEMBLE
    else:
        full.platform, full.backend = PLATFORM, BACKEND
        full.default_model_filename = full.default_model_filename or "model.onnx"
    if full.version_policy.WhichOneof("policy_choice") is None:
        full.version_policy.latest.num_versions = 1
    if signature.batched:
        full.max_batch_size = full.max_batch_size or MOST_ROWS
        if full.WhichOneof("scheduling_choice") is None:
            full.dynamic_batching.SetInParent()
    if full.HasField("sequence_batching"):
        complete_sequences(full.sequence_batching)
    if not ensemble and (not full.instance_group or any(map(leaves_open, full.instance_group))):
        whole = [*map(partial(filled, full.instance_group), groups)]
        del full.instance_group[:]
        full.instance_group.extend(whole)
    for specs, tensors in ((signature.inputs, full.input), (signature.outputs, full.output)):
        given = {tensor.name: tensor for tensor in tensors}
        for spec in specs:
            tensor = given.get(spec.name) or tensors.add(name=spec.name)
            tensor.data_type = data_type(spec.datatype)
            shape = spec.shape[1:] if signature.batched else spec.shape
            tensor.dims[:] = [size if isinstance(size, int) else -1 for size in shape]
    return full


def filled(own: Sequence[pb.ModelInstanceGroup], group: pb.ModelInstanceGroup) -> pb.ModelInstanceGroup:
    """Return a group of the placement, with the other fields of the configured group if there is only one;
    with several it is ambiguous which one applies.
    """
    if len(own) != 1:
        return group
    whole = pb.ModelInstanceGroup.FromString(own[0].SerializeToString())
    whole.ClearField("gpus")
    whole.MergeFrom(group)
    whole.name = own[0].name or group.name
    return whole


def complete_sequences(batching: pb.ModelSequenceBatching) -> None:
    """Fill in Triton's defaults."""
    batching.max_sequence_idle_microseconds = batching.max_sequence_idle_microseconds or DEFAULT_IDLE
    if batching.WhichOneof("strategy_choice") is None:
        batching.direct.SetInParent()

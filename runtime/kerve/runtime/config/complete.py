"""Holds a model's configuration against its graph, and fills in what it leaves open (Triton's
auto-complete).
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.config.batching import MOST_ROWS
from kerve.runtime.errors import ArtifactError
from kerve.runtime.signature import Dimension, Signature, TensorSpec, show_shape

__all__ = ["PLATFORM", "complete", "data_type", "refuse_unsupported", "settle"]

# Triton's name for an ONNX model; clients choose their defaults by it.
PLATFORM = "onnxruntime_onnx"
BACKEND = "onnxruntime"

# What would change the meaning of a request if it were ignored.
UNSUPPORTED = {
    "batch_input": "inputs made by the server",
    "batch_output": "outputs scattered by the server",
    "sequence_batching": "sequence batching",
    "ensemble_scheduling": "ensembles",
    "model_operations": "libraries of custom operators",
    "model_repository_agents": "repository agents",
}

DATA_TYPES = {"BYTES": pb.TYPE_STRING}


def data_type(datatype: str) -> pb.DataType.ValueType:
    """Return Triton's number for a datatype of the protocol."""
    return DATA_TYPES.get(datatype) or pb.DataType.Value(f"TYPE_{datatype}")


def refuse_unsupported(config: pb.ModelConfig, where: Path) -> None:
    """Raise ArtifactError when a configuration asks for what is not offered."""
    given = {field.name for field, _ in config.ListFields()}
    for name, offer in UNSUPPORTED.items():
        if name in given:
            raise ArtifactError(f"{where}: {name}: this server does not offer {offer}; remove it")
    if config.model_transaction_policy.decoupled:
        raise ArtifactError(f"{where}: model_transaction_policy: an ONNX model gives one answer; remove it")
    if config.platform not in ("", PLATFORM) or config.backend not in ("", BACKEND):
        raise ArtifactError(
            f"{where}: expected platform {PLATFORM!r} or backend {BACKEND!r}, "
            f"got {config.platform or config.backend!r}; this server runs ONNX models"
        )
    if Path(config.default_model_filename).name != config.default_model_filename:
        raise ArtifactError(
            f"{where}: default_model_filename: expected the name of a file, got "
            f"{config.default_model_filename!r}"
        )
    tensors: tuple[pb.ModelInput | pb.ModelOutput, ...] = (*config.input, *config.output)
    for tensor in tensors:
        if tensor.HasField("reshape"):
            raise ArtifactError(
                f"{where}: {tensor.name}: reshape is not offered; declare the graph's own shape"
            )
    if any(tensor.allow_ragged_batch for tensor in config.input):
        raise ArtifactError(f"{where}: ragged batches are not offered; remove allow_ragged_batch")


def settle(signature: Signature, config: pb.ModelConfig, folder: Path) -> Signature:
    """Return the signature as the configuration has it; ArtifactError when the two do not belong together.

    A configuration that declares tensors also says, by `max_batch_size`, whether axis 0 is the batch; one
    that
    declares none leaves that to the graph, as Triton's auto-complete does.
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
    inputs = [*declared(signature.inputs, config.input, "input", batched=batched, folder=folder)]
    if left := {spec.name for spec in signature.inputs} - {spec.name for spec in inputs}:
        raise ArtifactError(f"{folder}: the configuration leaves out the graph's input {sorted(left)[0]!r}")
    outputs = [*declared(signature.outputs, config.output, "output", batched=batched, folder=folder)]
    if batched and not signature.batched:
        inputs, outputs = ([with_batch(spec) for spec in specs] for specs in (inputs, outputs))
    return Signature(tuple(inputs), tuple(outputs), batched)


def may_batch(signature: Signature) -> bool:
    """Return whether axis 0 of every tensor is free."""
    specs = (*signature.inputs, *signature.outputs)
    return all(spec.shape and not isinstance(spec.shape[0], int) for spec in specs)


def with_batch(spec: TensorSpec) -> TensorSpec:
    """Return a spec whose axis 0 is the batch."""
    return replace(spec, shape=("batch", *spec.shape[1:]))


def declared(
    specs: Sequence[TensorSpec],
    wanted: Sequence[pb.ModelInput] | Sequence[pb.ModelOutput],
    kind: str,
    *,
    batched: bool,
    folder: Path,
) -> Iterable[TensorSpec]:
    """Yield the specs that a configuration declares, in its order; all of them when it declares none."""
    if not wanted:
        yield from specs
        return
    known = {spec.name: spec for spec in specs}
    for tensor in wanted:
        if tensor.name not in known:
            raise ArtifactError(
                f"{folder}: the configuration declares {kind} {tensor.name!r}; the graph has: "
                f"{', '.join(known)}"
            )
        spec = known[tensor.name]
        dims = [size if size >= 0 else None for size in tensor.dims]
        shape: list[Dimension] = [spec.shape[0], *dims] if batched and spec.shape else [*dims]
        if tensor.data_type not in (pb.TYPE_INVALID, data_type(spec.datatype)) or not fits(shape, spec.shape):
            raise ArtifactError(
                f"{folder}: {kind} {spec.name!r}: the configuration declares "
                f"{pb.DataType.Name(tensor.data_type)} {show_shape(shape)}, the graph has "
                f"{pb.DataType.Name(data_type(spec.datatype))} {show_shape(spec.shape)}"
                + (" with the batch as axis 0, which dims leave out" if batched else "")
            )
        narrow = tuple(size if size is not None else own for size, own in zip(shape, spec.shape, strict=True))
        if isinstance(tensor, pb.ModelOutput):
            yield replace(
                spec, shape=narrow, labels=read_labels(folder, tensor.label_filename) or spec.labels
            )
        else:
            yield replace(spec, shape=narrow, optional=tensor.optional or spec.optional)


def fits(shape: Sequence[Dimension], own: Sequence[Dimension]) -> bool:
    """Return whether a declared shape is one that the graph takes or gives."""
    return len(shape) == len(own) and all(
        wanted is None or not isinstance(have, int) or wanted == have
        for wanted, have in zip(shape, own, strict=True)
    )


def read_labels(folder: Path, name: str) -> tuple[str, ...]:
    """Return the class labels in a file of the model's folder, one a line; none for no file."""
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
    """Return whether the server decided where a group computes, or how many instances it has."""
    on_gpu = group.kind == group.KIND_GPU
    return not group.passive and (
        group.kind in (group.KIND_AUTO, group.KIND_MODEL) or group.count < 1 or (on_gpu and not group.gpus)
    )


def complete(
    config: pb.ModelConfig, name: str, signature: Signature, groups: Sequence[pb.ModelInstanceGroup]
) -> pb.ModelConfig:
    """Return the configuration as the model is served: everything that was left open is filled in."""
    full = pb.ModelConfig.FromString(config.SerializeToString())
    full.name, full.platform, full.backend = name, PLATFORM, BACKEND
    full.default_model_filename = full.default_model_filename or "model.onnx"
    if full.version_policy.WhichOneof("policy_choice") is None:
        full.version_policy.latest.num_versions = 1
    if signature.batched:
        full.max_batch_size = full.max_batch_size or MOST_ROWS
        full.dynamic_batching.SetInParent()
    if not full.instance_group or any(map(leaves_open, full.instance_group)):
        del full.instance_group[:]
        full.instance_group.extend(groups)
    for specs, tensors in ((signature.inputs, full.input), (signature.outputs, full.output)):
        given = {tensor.name: tensor for tensor in tensors}
        for spec in specs:
            tensor = given.get(spec.name) or tensors.add(name=spec.name)
            tensor.data_type = data_type(spec.datatype)
            shape = spec.shape[1:] if signature.batched else spec.shape
            tensor.dims[:] = [size if isinstance(size, int) else -1 for size in shape]
    return full

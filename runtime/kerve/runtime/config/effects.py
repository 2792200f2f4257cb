"""The effect of each field of Triton's ModelConfig: one table for the code, its warnings and the docs."""

from collections.abc import Iterable, Iterator
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from kerve.inference import model_config_pb2 as pb

__all__ = [
    "HONOURED",
    "NO_EFFECT",
    "PARAMETERS",
    "REFUSED",
    "clear",
    "effect_of",
    "paths",
    "set_paths",
    "without_effect",
]

NO_EFFECT = "no effect"

#: By path, the fields that would change the meaning of a request if they were ignored.
REFUSED = {
    "batch_input": "inputs created by the server",
    "batch_output": "outputs scattered by the server",
    "sequence_batching.iterative_sequence": "several responses to a request",
    "model_repository_agents": "repository agents",
    "model_transaction_policy.decoupled": "several responses to a request",
    "input.allow_ragged_batch": "ragged batches",
    "input.is_shape_tensor": "shape tensors (of TensorRT engines)",
    "input.is_non_linear_format_io": "TensorRT's tensor formats",
    "output.is_shape_tensor": "shape tensors (of TensorRT engines)",
    "output.is_non_linear_format_io": "TensorRT's tensor formats",
}

#: The effect of the others. A message stands for all of its fields, unless some of them are listed.
HONOURED = {
    "name": "no effect: the folder's name is used; a different name is a warning",
    "platform": "`onnxruntime_onnx`, or `ensemble`; others are refused",
    "backend": "`onnxruntime`; others are refused",
    "version_policy": "the versions to serve; the newest one by default",
    "max_batch_size": "maximum rows of a batch; above 0, axis 0 of the graph's tensors must be a free dimension. 0, with declared inputs: axis 0 is not the batch",
    "input.name": "must match the graph",
    "input.data_type": "must match the graph",
    "input.dims": "must match the graph; may fix a free dimension",
    "input.reshape": "the shape in the graph; clients see `dims`",
    "input.optional": "requests may omit the input",
    "output.name": "must match the graph",
    "output.data_type": "must match the graph",
    "output.dims": "must match the graph; may fix a free dimension",
    "output.reshape": "the shape in the graph; clients see `dims`",
    "output.label_filename": "file in the model's folder with the names of the classes, one per line",
    "dynamic_batching.preferred_batch_size": "a batch waits until it has the smallest of these sizes, and takes the largest available",
    "dynamic_batching.max_queue_delay_microseconds": "how long a batch waits for more requests; 0 by default: a batch is what arrived while the model was busy",
    "dynamic_batching.preserve_ordering": "responses are sent in the order of the requests",
    "dynamic_batching.priority_levels": "number of priorities, up to 1024; 1 is the highest",
    "dynamic_batching.default_priority_level": "priority of requests without one; 1 by default",
    "dynamic_batching.default_queue_policy": "size and timeout of a queue; size 0: `--max-queue-size`",
    "dynamic_batching.priority_queue_policy": "the same, for one priority",
    "ensemble_scheduling.step": "the models of an ensemble, each run as soon as its inputs are available; `model_version` -1 is the newest",
    "ensemble_scheduling.max_inflight_requests": "maximum concurrent requests of the ensemble, 128 by default; others wait in its queue",
    "sequence_batching.max_sequence_idle_microseconds": "a sequence without a request for this long is dropped; one second by default",
    "sequence_batching.control_input": "an input with a control value of the sequence: START, END, READY as INT32, FP32 or BOOL, CORRID as a number or text; hidden from clients",
    "sequence_batching.state": "an output that is an input of the next request of the sequence; initially zeros, or `data_file` of the folder `initial_state`; both are hidden from clients",
    "sequence_batching.direct": "with `minimum_slot_utilization`, a batch waits for that share of `max_batch_size`, at most `max_queue_delay_microseconds`; sequences have no slots",
    "sequence_batching.oldest": "maximum open sequences: `max_candidate_sequences` times the instances, by default `--max-sequences`; other fields as in `dynamic_batching`",
    "instance_group.kind": "`KIND_GPU`: the GPUs selected by `--device`, an error without any; `KIND_CPU`: the CPU; others: the "
    "devices selected by `--device`",
    "instance_group.count": "number of concurrent executors; on GPUs, copies of the model per device",
    "instance_group.gpus": "the numbers of the devices",
    "instance_group.passive": "the group has no executors",
    "default_model_filename": "file of the graph in a version's folder, `model.onnx` by default",
    "model_warmup.name": "name of the sample in messages",
    "model_warmup.batch_size": "number of repetitions of the row described by `inputs`; 1 for a model without a batch dimension",
    "model_warmup.inputs": "one row of zeros, of random data, or from a file in `warmup/` of the model's folder; an invalid or failing sample fails the load",
    "model_warmup.count": "number of runs of the sample, 1 by default",
    "model_operations": "libraries of custom operators; must be loaded by `kerve serve --custom-op-library`, because only the command line may load native code",
    "response_cache.enable": "equal requests are answered from the response cache; needs `kerve serve --cache-size`",
}

#: Keys of `parameters` that have an effect, named as in Triton's ONNX Runtime backend.
PARAMETERS = {
    "intra_op_thread_count": "`threads`",
    "memory.enable_memory_arena_shrinkage": "`shrink_memory`, for a value that names `cpu:0`",
    "enable_mem_arena": "0: memory is not kept between runs",
}

#: Fields that have no effect in an ensemble, only in its members.
OF_MEMBERS = ("model_warmup", "default_model_filename", "parameters")


def effect_of(path: str) -> str:
    """Return the effect of a field as text."""
    if path in REFUSED:
        return f"refused: this server does not support {REFUSED[path]}"
    if path == "parameters":
        known = "; ".join(f"`{key}`: {effect}" for key, effect in PARAMETERS.items())
        return f"{known}; others have no effect"
    return HONOURED.get(path, NO_EFFECT)


def paths(field: FieldDescriptor) -> Iterator[str]:
    """Yield the paths of a field of ModelConfig in the tables: its own, or those of its parts."""
    split_fields = {path.partition(".")[0] for path in (*HONOURED, *REFUSED) if "." in path}
    if field.message_type is not None and field.name in split_fields:
        yield from (f"{field.name}.{part.name}" for part in field.message_type.fields)
    else:
        yield field.name


def without_effect(config: pb.ModelConfig) -> list[str]:
    """Return the paths of the fields that a configuration sets without effect, each once."""
    found: dict[str, None] = {}
    ensemble = config.HasField("ensemble_scheduling")
    for field, value in config.ListFields():
        if ensemble and field.name in OF_MEMBERS:
            found[field.name] = None
        elif field.name == "parameters":
            found |= {f"parameters[{key!r}]": None for key in sorted(value) if key not in PARAMETERS}
        else:
            found |= {path: None for path in given(field, value) if effect_of(path) == NO_EFFECT}
    return list(found)


def set_paths(config: pb.ModelConfig) -> Iterator[str]:
    """Yield the paths of the fields that a configuration sets."""
    for field, value in config.ListFields():
        yield from given(field, value)


def clear(config: pb.ModelConfig, path: str) -> None:
    """Clear a field of a configuration."""
    name, _, part = path.partition(".")
    if not part:
        config.ClearField(name)  # type: ignore[arg-type]  # the stub takes literals only
        return
    for message in messages(getattr(config, name)):
        message.ClearField(part)


def given(field: FieldDescriptor, value: Any) -> Iterator[str]:
    """Yield the paths of a field that is set."""
    if [*paths(field)] == [field.name]:
        yield field.name
        return
    for message in messages(value):
        yield from (f"{field.name}.{part.name}" for part, _ in message.ListFields())


def messages(value: Any) -> Iterable[Message]:
    """Return the messages of a singular or repeated field."""
    return [value] if isinstance(value, Message) else value

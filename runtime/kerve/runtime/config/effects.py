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

#: Unsupported fields that would change the meaning of a request if ignored, by path.
REFUSED = {
    "batch_input": "inputs made by the server",
    "batch_output": "outputs scattered by the server",
    "sequence_batching.iterative_sequence": "more than one answer to a request",
    "model_repository_agents": "repository agents",
    "model_transaction_policy.decoupled": "more than one answer to a request",
    "input.allow_ragged_batch": "ragged batches",
    "input.is_shape_tensor": "shape tensors, which TensorRT's engines have",
    "input.is_non_linear_format_io": "TensorRT's formats of tensors",
    "output.is_shape_tensor": "shape tensors, which TensorRT's engines have",
    "output.is_non_linear_format_io": "TensorRT's formats of tensors",
}

#: The effects of supported fields. A message stands for all of its fields, unless some of them are listed.
HONOURED = {
    "name": "nothing: the name is that of the folder; another one is named in a warning",
    "platform": "`onnxruntime_onnx`, or `ensemble`; others are refused",
    "backend": "`onnxruntime`; others are refused",
    "version_policy": "the versions that are served; the newest one by default",
    "max_batch_size": "rows of a batch at most; above 0 it asks for a graph whose axis 0 is free. 0, with declared inputs: axis 0 is not the batch",
    "input.name": "held against the graph",
    "input.data_type": "held against the graph",
    "input.dims": "held against the graph; may narrow a free dimension",
    "input.reshape": "the shape that the graph has, where clients see `dims`",
    "input.optional": "a request may leave the input out",
    "output.name": "held against the graph",
    "output.data_type": "held against the graph",
    "output.dims": "held against the graph; may narrow a free dimension",
    "output.reshape": "the shape that the graph has, where clients see `dims`",
    "output.label_filename": "names of classes, one a line, in a file of the model's folder",
    "dynamic_batching.preferred_batch_size": "a batch waits for the smallest of these, and takes the largest that is there",
    "dynamic_batching.max_queue_delay_microseconds": "how long a batch waits for more; 0 by default: it is what waited while the model was busy",
    "dynamic_batching.preserve_ordering": "answers leave in the order in which requests came",
    "dynamic_batching.priority_levels": "number of priorities, 1024 at most; 1 is the highest",
    "dynamic_batching.default_priority_level": "of a request that names none; 1 where it is not set",
    "dynamic_batching.default_queue_policy": "room and time of a queue; a size of 0 is `--max-queue-size`",
    "dynamic_batching.priority_queue_policy": "the same, for one priority",
    "ensemble_scheduling.step": "the models that make up an ensemble, each run as soon as its inputs are there; `model_version` -1 is the newest",
    "ensemble_scheduling.max_inflight_requests": "requests of the ensemble that are under way at once, 128 by default; others wait in its queue",
    "sequence_batching.max_sequence_idle_microseconds": "a sequence without a request for so long is forgotten; one second by default",
    "sequence_batching.control_input": "an input that tells the model of the sequence: START, END, READY as INT32, FP32 or BOOL, CORRID as a number or text; clients do not see it",
    "sequence_batching.state": "an output that is kept and fed to the next request of the sequence; it begins with zeros, or with `data_file` of the folder `initial_state`; clients see neither",
    "sequence_batching.direct": "with `minimum_slot_utilization`, a batch waits for that share of `max_batch_size`, `max_queue_delay_microseconds` at most; sequences have no slots",
    "sequence_batching.oldest": "`max_candidate_sequences` times the instances may be open, else `--max-sequences`; the other fields are those of `dynamic_batching`",
    "instance_group.kind": "`KIND_GPU`: the GPUs that `--device` took, and an error without any; `KIND_CPU`: the CPU; others: what "
    "`--device` took",
    "instance_group.count": "executors that compute at the same time; on a GPU, copies of the model on each device",
    "instance_group.gpus": "the devices, by their numbers",
    "instance_group.passive": "the group has no executors",
    "default_model_filename": "the graph's file in a version's folder, `model.onnx` by default",
    "model_warmup.name": "what messages call the sample",
    "model_warmup.batch_size": "how often the one row that `inputs` describe is repeated; 1 in a model without a batch dimension",
    "model_warmup.inputs": "one row of zeros, of random data, or from a file in `warmup/` of the model's folder; a sample that does not fit or fails refuses the load",
    "model_warmup.count": "how often the sample is run, once by default",
    "model_operations": "libraries of custom operators, which `kerve serve --custom-op-library` must have loaded: native code comes from the command line only",
    "response_cache.enable": "equal requests are answered from memory, where `kerve serve` has a `--cache-size`",
}

#: Keys of `parameters` that have an effect, named as in Triton's ONNX Runtime backend.
PARAMETERS = {
    "intra_op_thread_count": "`threads`",
    "memory.enable_memory_arena_shrinkage": "`shrink_memory`, for a value that names `cpu:0`",
    "enable_mem_arena": "0: memory is not kept from one run to the next",
}

#: Fields without effect in an ensemble: they belong to its members.
OF_MEMBERS = ("model_warmup", "default_model_filename", "parameters")


def effect_of(path: str) -> str:
    """Return the effect of a field, as text."""
    if path in REFUSED:
        return f"refused: this server does not offer {REFUSED[path]}"
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

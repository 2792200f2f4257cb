"""The page of a model's own configuration: kerve's keys, and what becomes of each field of Triton's."""

from collections.abc import Iterator
from dataclasses import fields as fields_of

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.config.complete import UNSUPPORTED
from kerve.runtime.config.settings import OWN_KEYS
from kerve.runtime.devices.options import CudaOptions
from writers.markdown import code, plain, table

__all__ = ["EFFECTS", "page"]

_HEAD = """# Configuration of a model

Written by `make reference` from the code that reads it; a test compares it.

How a model is served stands beside its versions, in `<repository>/<model>/config.toml`, or in Triton's `config.pbtxt`,
which `config.toml` refines. [`kerve convert-config`](commands.md#kerve-convert-config) makes the former of the latter.
Without either a model is served with the defaults. A key that is in neither table below is an error.
"""

_FIELDS = """## Fields of Triton's ModelConfig

Under their own names, in TOML or in text form. Their types, and the fields that these are made of, are in the
[contract](model-configuration.md). *Refused* fails the load, and the index says why; *no effect* is read and reported by
the ModelConfig call.
"""

_CUDA = """### The table `cuda`

How the model uses a GPU, where it is placed on one. All but `buffers` are options of
[ONNX Runtime's CUDA provider](https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html).
"""

_REFUSED = "refused: this server does not offer"

#: What becomes of a field, by its path; of a message's, where the message itself is not told.
EFFECTS = {
    "name": "no effect: the name is that of the folder",
    "platform": "`onnxruntime_onnx`; others are refused",
    "backend": "`onnxruntime`; others are refused",
    "version_policy": "the versions that are served; the newest one by default",
    "max_batch_size": "rows of a batch at most; above 0 it asks for a graph whose axis 0 is free. 0, with declared inputs: axis 0 is not the batch",
    "input.name": "held against the graph",
    "input.data_type": "held against the graph",
    "input.dims": "held against the graph; may narrow a free dimension",
    "input.optional": "a request may leave the input out",
    "input.reshape": f"{_REFUSED} it; declare the graph's own shape",
    "input.allow_ragged_batch": f"{_REFUSED} ragged batches",
    "output.name": "held against the graph",
    "output.data_type": "held against the graph",
    "output.dims": "held against the graph; may narrow a free dimension",
    "output.reshape": f"{_REFUSED} it; declare the graph's own shape",
    "output.label_filename": "names of classes, one a line, in a file of the model's folder",
    "dynamic_batching.preferred_batch_size": "a batch waits for the smallest of these, and takes the largest that is there",
    "dynamic_batching.max_queue_delay_microseconds": "how long a batch waits for more; 0 by default: it is what waited while the model was busy",
    "dynamic_batching.preserve_ordering": "answers leave in the order in which requests came",
    "dynamic_batching.priority_levels": "number of priorities; 1 is the highest",
    "dynamic_batching.default_priority_level": "of a request that names none",
    "dynamic_batching.default_queue_policy": "room and time of a queue; a size of 0 is `--max-queue-size`",
    "dynamic_batching.priority_queue_policy": "the same, for one priority",
    "instance_group.kind": "`KIND_GPU`: the GPUs that `--device` took, and an error without any; `KIND_CPU`: the CPU; others: what `--device` took",
    "instance_group.count": "executors that compute at the same time; on a GPU, copies of the model on each device",
    "instance_group.gpus": "the devices, by their numbers",
    "instance_group.passive": "the group has no executors",
    "default_model_filename": "the graph's file in a version's folder, `model.onnx` by default",
    "parameters": "`intra_op_thread_count` is `threads`; others have no effect",
    "model_transaction_policy.decoupled": f"{_REFUSED} more than one answer to a request",
    "response_cache.enable": "equal requests are answered from memory, where `kerve serve` has a `--cache-size`",
    **{name: f"{_REFUSED} {offer}" for name, offer in UNSUPPORTED.items()},
}


def page() -> str:
    """Return the page, in Markdown."""
    own = table(
        ("key", "type", "what it is"),
        ((code(name), code(key.kind.__name__), plain(key.help)) for name, key in OWN_KEYS.items()),
    )
    cuda = table(
        ("key", "default", "what it is"),
        (
            (code(each.name), code(_toml(each.default)), plain(each.metadata["help"]))
            for each in fields_of(CudaOptions)
        ),
    )
    fields = table(("field", "what becomes of it"), _rows(pb.ModelConfig.DESCRIPTOR))
    return "\n".join([_HEAD, f"## Keys of kerve's own\n\n{own}", f"{_CUDA}\n{cuda}", f"{_FIELDS}\n{fields}"])


def _toml(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


def _rows(config: Descriptor) -> Iterator[tuple[str, str]]:
    """Yield the fields of the configuration; of a message that is told by its fields, these."""
    told = {path.partition(".")[0] for path in EFFECTS if "." in path}
    for field in config.fields:
        inner = field.message_type.fields if field.message_type and field.name in told else [field]
        for each in inner:
            path = _path(field, each)
            yield code(path), plain(EFFECTS.get(path, "no effect"))


def _path(field: FieldDescriptor, inner: FieldDescriptor) -> str:
    return field.name if inner is field else f"{field.name}.{inner.name}"

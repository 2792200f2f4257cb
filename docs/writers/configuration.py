"""The page of a model's own configuration: kerve's keys, and what becomes of each field of Triton's."""

from collections.abc import Iterator
from dataclasses import fields as fields_of

from google.protobuf.descriptor import Descriptor

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.config.effects import effect_of, paths
from kerve.runtime.config.settings import OWN_KEYS
from kerve.runtime.devices.options import CudaOptions
from writers.markdown import code, plain, table

__all__ = ["page"]

_HEAD = """# Configuration of a model

Written by `make reference` from the code that reads it; a test compares it.

How a model is served stands beside its versions, in `<repository>/<model>/config.toml`, or in Triton's `config.pbtxt`,
which `config.toml` refines. [`kerve convert-config`](commands.md#kerve-convert-config) makes the former of the latter.
Without either a model is served with the defaults. A key that is in none of the tables below is an error.
"""

_FIELDS = """## Fields of Triton's ModelConfig

Under their own names, in TOML or in text form. Their types, and the fields that these are made of, are in the
[contract](model-configuration.md). *Refused* fails the load, and the index says why; *no effect* is read, reported by
the ModelConfig call, and named in a warning when the model is loaded.
"""

_CUDA = """### The table `cuda`

How the model uses a GPU, where it is placed on one. All but `buffers` are options of
[ONNX Runtime's CUDA provider](https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html).
"""


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
    for field in config.fields:
        for path in paths(field):
            yield code(path), plain(effect_of(path))

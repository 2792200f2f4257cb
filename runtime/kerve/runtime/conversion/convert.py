"""What a file is, by what it says; and what becomes of it."""

from dataclasses import dataclass, field
from typing import Any

from kerve.runtime.conversion import tensorflow_serving, text, triton

__all__ = ["Converted", "convert"]


@dataclass
class Converted:
    """What a configuration is here."""

    # What `config.toml` says, by the model's name; "" where the file names none.
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    # What `kerve serve` is told.
    flags: list[tuple[str, str]] = field(default_factory=list)
    # Fields that could not be taken over, and why not.
    left_out: list[str] = field(default_factory=list)


def convert(contents: str) -> Converted:
    """Convert Triton's config.pbtxt, or a models.config, batching parameters or monitoring configuration of
    TensorFlow Serving; InvalidArgumentError when it is none of them.
    """
    message = text.read(contents)
    if message.keys() & {"model_config_list", "custom_model_config"}:
        models, repositories, left_out = tensorflow_serving.convert_models(message)
        flags = [("--repository", each) for each in repositories]
        return Converted(models, flags, left_out)
    if "prometheus_config" in message:
        return Converted(left_out=tensorflow_serving.convert_monitoring(message))
    if is_batching(message):
        table, left_out = tensorflow_serving.convert_batching(message)
        return Converted({"": table}, [], left_out)
    table, left_out = triton.convert_model(contents)
    return Converted({"": table}, [], left_out)


def is_batching(message: text.Message) -> bool:
    """Return whether a message is of batching parameters: the one field that Triton has too is a number
    there.
    """
    own = tensorflow_serving.BATCHING.keys() - {"max_batch_size"}
    wrapped = any(isinstance(each, dict) for each in message.get("max_batch_size", []))
    return wrapped or bool(message.keys() & own)

"""Detects the kind of a configuration file by its contents, and converts it."""

from dataclasses import dataclass, field
from typing import Any

from kerve.runtime.conversion import tensorflow_serving, text, triton

__all__ = ["Converted", "convert"]


@dataclass
class Converted:
    """A converted configuration."""

    # The contents of `config.toml`, by the model's name; "" if the file names none.
    models: dict[str, dict[str, Any]] = field(default_factory=dict)
    # Options of `kerve serve`.
    flags: list[tuple[str, str]] = field(default_factory=list)
    # Fields that could not be converted, with the reasons.
    left_out: list[str] = field(default_factory=list)


def convert(contents: str) -> Converted:
    """Convert Triton's config.pbtxt, or a models.config, batching parameters or monitoring configuration of
    TensorFlow Serving; raises InvalidArgumentError if it is none of them.
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
    """Return whether a message contains batching parameters: the only field in common with Triton is a plain
    number there.
    """
    own = tensorflow_serving.BATCHING.keys() - {"max_batch_size"}
    wrapped = any(isinstance(each, dict) for each in message.get("max_batch_size", []))
    return wrapped or bool(message.keys() & own)

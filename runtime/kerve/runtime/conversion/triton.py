"""Triton's `config.pbtxt` to kerve's `config.toml`, which has its fields under their own names."""

from typing import Any

from google.protobuf import text_format
from google.protobuf.message import Message

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.config.complete import BACKEND, ENSEMBLE, PLATFORM
from kerve.runtime.config.effects import REFUSED, clear, set_paths
from kerve.runtime.errors import InvalidArgumentError

__all__ = ["convert_model"]


def convert_model(text: str) -> tuple[dict[str, Any], list[str]]:
    """Return the table of a `config.toml`, and what could not be taken over.

    InvalidArgumentError names a field that Triton does not have.
    """
    try:
        config = text_format.Parse(text, pb.ModelConfig())
    except (text_format.ParseError, RecursionError) as error:
        raise InvalidArgumentError(f"this is not a model configuration of Triton: {error}") from error
    left_out = []
    for path in dict.fromkeys(set_paths(config)):
        if path in REFUSED:
            clear(config, path)
            left_out.append(f"{path}: this server does not offer {REFUSED[path]}")
    for field, own in (("platform", (PLATFORM, ENSEMBLE)), ("backend", (BACKEND,))):
        if (given := getattr(config, field)) not in ("", *own):
            config.ClearField(field)  # type: ignore[arg-type]  # the stub takes literals only
            left_out.append(f"{field}: {given!r}: this server runs ONNX models; compile the model to ONNX")
    for group in config.instance_group:
        if group.kind == pb.ModelInstanceGroup.KIND_GPU:
            group.kind = pb.ModelInstanceGroup.KIND_CPU
            group.ClearField("gpus")
            left_out.append("instance_group: KIND_GPU is KIND_CPU here: no GPU is served")
    config.ClearField("name")  # the folder's
    return table(config), left_out


def table(message: Message) -> dict[str, Any]:
    """Return the fields that a message sets, under their own names."""
    found: dict[str, Any] = {}
    for field, value in message.ListFields():
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            inner = field.message_type.fields_by_name["value"]
            found[field.name] = {str(key): plain(inner, value[key]) for key in sorted(value)}
        elif field.is_repeated:
            found[field.name] = [plain(field, each) for each in value]
        else:
            found[field.name] = plain(field, value)
    return found


def plain(field: Any, value: Any) -> Any:
    """Return one value of a field as TOML has it."""
    if field.message_type is not None:
        return table(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value

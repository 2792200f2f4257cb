"""Converts Triton's `config.pbtxt` to kerve's `config.toml`, which has the same field names."""

from typing import Any

from google.protobuf import text_format
from google.protobuf.message import Message

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.config.complete import BACKEND, ENSEMBLE, PLATFORM
from kerve.runtime.config.effects import REFUSED, clear, set_paths
from kerve.runtime.errors import InvalidArgumentError

__all__ = ["convert_model"]


def convert_model(text: str) -> tuple[dict[str, Any], list[str]]:
    """Return the table of a `config.toml`, and the fields that could not be converted.

    Raises InvalidArgumentError for a field that Triton does not have.
    """
    try:
        config = text_format.Parse(text, pb.ModelConfig())
    except (text_format.ParseError, RecursionError) as error:
        raise InvalidArgumentError(f"this is not a model configuration of Triton: {error}") from error
    left_out = []
    for path in dict.fromkeys(set_paths(config)):
        if path in REFUSED:
            clear(config, path)
            left_out.append(f"{path}: this server does not support {REFUSED[path]}")
    for field, own in (("platform", (PLATFORM, ENSEMBLE)), ("backend", (BACKEND,))):
        if (given := getattr(config, field)) not in ("", *own):
            config.ClearField(field)  # type: ignore[arg-type]  # the stub takes literals only
            left_out.append(f"{field}: {given!r}: this server runs ONNX models; compile the model to ONNX")
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
    """Return one value of a field in its TOML form."""
    if field.message_type is not None:
        return table(value)
    if field.enum_type is not None:
        return field.enum_type.values_by_number[value].name
    return value

"""Converts TensorFlow Serving's files: list of models, batching parameters, monitoring configuration."""

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from kerve.runtime.conversion.text import Message, Value
from kerve.runtime.errors import InvalidArgumentError

__all__ = ["convert_batching", "convert_models", "convert_monitoring"]

# Fields of batching parameters, whose values may be wrapped (`{ value: 8 }`), with their paths in
# config.toml; None and a reason if there is no equivalent.
BATCHING: Mapping[str, tuple[tuple[str, ...] | None, str]] = {
    "max_batch_size": (("max_batch_size",), ""),
    "batch_timeout_micros": (("dynamic_batching", "max_queue_delay_microseconds"), ""),
    "allowed_batch_sizes": (("batch_buckets",), ""),
    "max_enqueued_batches": (None, "queues are bounded in requests: see --max-queue-size"),
    "num_batch_threads": (None, "see instance_group, and threads of each instance"),
    "thread_pool_name": (None, "every model has its own threads"),
    "pad_variable_length_inputs": (None, "inputs are padded along the batch only"),
    "enable_large_batch_splitting": (None, "requests of more rows than max_batch_size are always split"),
    "max_execution_batch_size": (None, "set max_batch_size to this value; larger requests are split"),
}


def convert_batching(message: Message) -> tuple[dict[str, Any], list[str]]:
    """Return the table of a `config.toml`, and the fields that could not be converted."""
    table: dict[str, Any] = {}
    left_out = []
    for name, given in message.items():
        path, reason = BATCHING.get(name, (None, "unknown field"))
        if path is None:
            left_out.append(f"{name}: {reason}")
            continue
        values = [unwrapped(name, each) for each in given]
        target = table
        for step in path[:-1]:
            target = target.setdefault(step, {})
        target[path[-1]] = values if name == "allowed_batch_sizes" else values[-1]
    return table, left_out


def convert_models(message: Message) -> tuple[dict[str, dict[str, Any]], list[str], list[str]]:
    """Return the table of each model's `config.toml` by name, the repositories, and the fields that could not
    be converted.
    """
    tables: dict[str, dict[str, Any]] = {}
    repositories: list[str] = []
    left_out = [f"{name}: unknown field" for name in message if name != "model_config_list"]
    for model_list in submessages(message, "model_config_list"):
        left_out += [f"model_config_list.{name}: unknown field" for name in model_list if name != "config"]
        for model in submessages(model_list, "config"):
            name, base = str(last(model, "name", "")), PurePosixPath(str(last(model, "base_path", "")))
            if not name:
                raise InvalidArgumentError("model_config_list: expected a name for each config, got none")
            tables[name] = {}
            for field, given in model.items():
                if field in MODEL:
                    tables[name] |= MODEL[field](given, name, left_out)
                elif field not in ("name", "base_path"):
                    left_out.append(f"{name}: {field}: unknown field")
            if base.name != name:
                left_out.append(
                    f"{name}: base_path: {base} must be named {name} in its repository; rename or link it"
                )
            if (repository := str(base.parent)) not in repositories:
                repositories.append(repository)
    return tables, repositories, left_out


def convert_monitoring(message: Message) -> list[str]:
    """Return the fields that cannot be converted; others need no setting: metrics are always at /metrics."""
    left_out = [f"{name}: unknown field" for name in message if name != "prometheus_config"]
    for prometheus in submessages(message, "prometheus_config"):
        for name in prometheus:
            value = last(prometheus, name, None)
            if name == "path" and value != "/metrics":
                left_out.append(f"prometheus_config.path: {value}: metrics are at /metrics here")
            elif name == "enable" and value is False:
                left_out.append(
                    "prometheus_config.enable: metrics are always enabled; --http-port 0 disables HTTP"
                )
            elif name not in ("path", "enable"):
                left_out.append(f"prometheus_config.{name}: unknown field")
    return left_out


def platform(given: list[Value], name: str, left_out: list[str]) -> dict[str, Any]:
    """Check a model's platform: compiled models are ONNX."""
    if given[-1] == "tensorflow":
        left_out.append(f"{name}: model_platform: compile it: kerve compile BASE_PATH/VERSION --name {name}")
    elif given[-1] != "onnx":
        left_out.append(f"{name}: model_platform: {given[-1]}: this server runs ONNX models")
    return {}


def version_policy(given: list[Value], name: str, left_out: list[str]) -> dict[str, Any]:
    """Convert a model's version policy, which equals Triton's."""
    policy: dict[str, Any] = {}
    fields = {"latest": "num_versions", "specific": "versions"}
    for choice, inner in message_of("model_version_policy", given[-1]).items():
        chosen = message_of(choice, inner[-1])
        known = {field: values for field, values in chosen.items() if field == fields.get(choice)}
        left_out += [
            f"{name}: model_version_policy.{choice}.{field}: unknown field"
            for field in chosen.keys() - known.keys()
        ]
        if choice not in ("all", "latest", "specific"):
            left_out.append(f"{name}: model_version_policy.{choice}: unknown field")
            continue
        policy[choice] = {
            field: values if field == "versions" else values[-1] for field, values in known.items()
        }
    return {"version_policy": policy} if policy else {}


def labels(given: list[Value], _: str, __: list[str]) -> dict[str, Any]:
    """Convert the labels of versions."""
    entries = [message_of("version_labels", each) for each in given]
    return {"labels": {str(last(each, "key", "")): last(each, "value", 0) for each in entries}}


MODEL: Mapping[str, Callable[[list[Value], str, list[str]], dict[str, Any]]] = {
    "model_platform": platform,
    "model_version_policy": version_policy,
    "version_labels": labels,
}


def unwrapped(name: str, value: Value) -> Value:
    """Return a number, which may be wrapped."""
    found = last(value, "value", 0) if isinstance(value, dict) else value
    if not isinstance(found, int) or isinstance(found, bool):
        raise InvalidArgumentError(f"{name}: expected a whole number, got {found!r}")
    return found


def last(message: Message, name: str, default: Any) -> Any:
    """Return a field's last value."""
    return message[name][-1] if name in message else default


def submessages(message: Message, name: str) -> list[Message]:
    """Return the messages in a field."""
    return [message_of(name, each) for each in message.get(name, [])]


def message_of(name: str, value: Value) -> Message:
    """Return a value that must be a message."""
    if not isinstance(value, dict):
        raise InvalidArgumentError(f"{name}: expected a message in braces, got {value!r}")
    return value

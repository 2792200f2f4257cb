"""Architecture files: JSON written by `to_json`, and YAML written by `to_yaml` of old versions."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kerve.compiler.errors import LoadError
from kerve.compiler.sources import load_errors

__all__ = ["Architecture", "read"]

#: Limit on the values after expanding YAML aliases, with which a small file can represent a huge structure.
_MOST_NODES = 1_000_000
_MOST_BYTES = 1 << 28


@dataclass(frozen=True)
class Architecture:
    """The configuration of a model, without weights."""

    path: Path
    config: dict[str, Any]

    @property
    def keras_version(self) -> str:
        """The version of Keras that wrote it; empty if unknown."""
        return str(self.config.get("keras_version", ""))

    @property
    def is_keras_3(self) -> bool:
        """Whether Keras 3 wrote it, which omits its version and writes the modules of classes."""
        return self.keras_version.startswith("3") or ("module" in self.config and not self.keras_version)


def read(path: Path) -> Architecture:
    """Read a file; raises `LoadError` if it is neither JSON nor YAML, or contains more than data."""
    if not path.is_file():  # reading a device or a pipe may never end
        raise LoadError(f"{path} is not a regular file; expected JSON or YAML of a Keras model")
    if path.stat().st_size > _MOST_BYTES:
        raise LoadError(f"{path} is too large for an architecture; expected JSON or YAML of a Keras model")
    try:
        text = path.read_text("utf-8")
        config = json.loads(text) if text.lstrip().startswith("{") else _from_yaml(path, text)
    except (ValueError, RecursionError) as error:  # broken encoding or JSON
        raise _unreadable(path, error) from error
    if not isinstance(config, dict) or "class_name" not in config or "config" not in config:
        raise LoadError(
            f"{path} is not the architecture of a Keras model; expected class_name and config, as "
            "model.to_json() writes it"
        )
    return Architecture(path, config)


def _unreadable(path: Path, error: Exception) -> LoadError:
    return LoadError(
        f"{path} is neither JSON nor YAML ({load_errors.one_line(error)}); "
        "expected what model.to_json() writes"
    )


class _Loader(yaml.SafeLoader):
    """A loader for data only, including the data tags that old versions of Keras wrote."""


def _list(loader: _Loader, node: yaml.SequenceNode) -> Any:
    return loader.construct_sequence(node, deep=True)


def _wrapped_list(loader: _Loader, node: yaml.Node) -> Any:
    """Return a list that TensorFlow wrapped for tracking: the wrapper's only argument, or its items."""
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node, deep=True).get("listitems", [])
    assert isinstance(node, yaml.SequenceNode)
    (argument,) = loader.construct_sequence(node, deep=True)
    return argument


_PYTHON = "tag:yaml.org,2002:python"
_WRAPPERS = "tensorflow.python.training.{}.data_structures.{}"
_Loader.add_constructor(f"{_PYTHON}/tuple", _list)
for _verb, _package, _name in itertools.product(
    ("apply", "new"), ("checkpointable", "tracking"), ("ListWrapper", "_ListWrapper")
):
    _Loader.add_constructor(f"{_PYTHON}/object/{_verb}:{_WRAPPERS.format(_package, _name)}", _wrapped_list)


def _from_yaml(path: Path, text: str) -> Any:
    try:
        config = yaml.load(text, _Loader)  # noqa: S506  # a subclass of SafeLoader
    except yaml.constructor.ConstructorError as error:
        raise LoadError(
            f"{path} holds a YAML tag that stands for code ({error.problem}); "
            "such files are never loaded: write the architecture with model.to_json()"
        ) from error
    except yaml.YAMLError as error:
        raise _unreadable(path, error) from error
    if sum(1 for _ in _nodes(config)) > _MOST_NODES:
        raise LoadError(f"{path} expands to more than {_MOST_NODES:,} values, as a YAML bomb does")
    return config


def _nodes(config: Any) -> Iterator[Any]:
    """Yield every value, once per reference, up to one more than the limit."""
    waiting, count = [config], 0
    while waiting and count <= _MOST_NODES:
        node = waiting.pop()
        count += 1
        yield node
        if isinstance(node, dict):
            waiting.extend(node.values())
        elif isinstance(node, list):
            waiting.extend(node)

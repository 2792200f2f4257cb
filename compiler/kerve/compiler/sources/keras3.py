"""Models that Keras 3 wrote, and Keras 3 models in memory."""

from __future__ import annotations

import importlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import keras

from kerve.compiler.errors import LoadError
from kerve.compiler.sources import archives, failures, training
from kerve.compiler.sources.base import KerasSource, ragged, record_of
from kerve.compiler.sources.derived import derive_again
from kerve.compiler.sources.detect import Kind, Recognised

__all__ = ["from_file", "from_object"]

_OPERATIONS = tuple(
    importlib.import_module(f"keras.src.ops.{name}")
    for name in ("core", "image", "linalg", "math", "nn", "numpy")
)


def from_object(model: keras.Model, input_signature: Any = None) -> KerasSource:
    """Take a model as it is."""
    _refuse_ragged(model)
    record = record_of("object", keras_version=keras.__version__)
    return KerasSource(record=record, model=model, input_signature=input_signature)


def from_file(found: Recognised, custom_objects: Mapping[str, Any], trust: bool) -> KerasSource:
    """Read a `.keras` archive or a whole model in HDF5; raises `LoadError`."""
    readable = archives.unpacked if found.kind is Kind.ARCHIVE else _with_config
    with failures.explained(found.path), readable(found) as path:
        model = keras.saving.load_model(
            path, custom_objects=dict(custom_objects), compile=False, safe_mode=not trust
        )
        if not isinstance(model, keras.Model):
            raise LoadError(
                f"{found.path} holds a {type(model).__name__}, not a model; "
                "put the layer into a keras.Sequential"
            )
        derive_again(model)
    _refuse_ragged(model)
    return KerasSource(
        record=record_of(found.kind.value, found.path, keras_version=found.keras_version),
        model=model,
        warnings=training.restore(model, found.training, custom_objects),
    )


def _refuse_ragged(model: keras.Model) -> None:
    for tensor in keras.tree.flatten(getattr(model, "inputs", None)):
        if getattr(tensor, "ragged", False):
            raise ragged(tensor.name)


@contextmanager
def _with_config(found: Recognised) -> Iterator[Path]:
    """Give a copy of an HDF5 file that has `found.config` for its configuration."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.h5"  # Keras picks the reader by the name of the file
        shutil.copyfile(found.path, path)
        with h5py.File(path, "r+") as file:
            file.attrs["model_config"] = json.dumps(_with_modules(found.config))
        yield path


def _with_modules(config: Any) -> Any:
    """Say of operations where they are defined: HDF5 keeps names only, and layers have the same ones."""
    if isinstance(config, list):
        return [_with_modules(item) for item in config]
    if not isinstance(config, dict):
        return config
    fields = {key: _with_modules(value) for key, value in config.items()}
    inner, name = fields.get("config"), fields.get("class_name")
    if (
        isinstance(inner, dict)
        and "inbound_nodes" in fields
        and not {"trainable", "dtype", "layers"} & set(inner)
    ):
        module = next(
            (m.__name__ for m in _OPERATIONS if isinstance(getattr(m, str(name), None), type)), None
        )
        return fields if module is None else {**fields, "module": module, "registered_name": None}
    return fields

"""Models that Keras 3 wrote, and Keras 3 models in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras

from kerve.compiler.errors import LoadError
from kerve.compiler.sources import failures, training
from kerve.compiler.sources.base import KerasSource, record_of
from kerve.compiler.sources.detect import Kind, Recognised

__all__ = ["from_file", "from_object"]

#: Keras picks the reader by the name of the file.
_SUFFIXES = {Kind.ARCHIVE: ".keras", Kind.HDF5: ".h5"}


def from_object(model: keras.Model, input_signature: Any = None) -> KerasSource:
    """Take a model as it is."""
    record = record_of("object", keras_version=keras.__version__)
    return KerasSource(record=record, model=model, input_signature=input_signature)


def from_file(found: Recognised, custom_objects: Mapping[str, Any], trust: bool) -> KerasSource:
    """Read a `.keras` archive or a whole model in HDF5; raises `LoadError`."""
    with tempfile.TemporaryDirectory() as folder, failures.explained(found.path):
        link = Path(folder) / ("model" if found.path.is_dir() else f"model{_SUFFIXES[found.kind]}")
        link.symlink_to(found.path.absolute())
        model = keras.saving.load_model(
            link, custom_objects=dict(custom_objects), compile=False, safe_mode=not trust
        )
    if not isinstance(model, keras.Model):
        raise LoadError(
            f"{found.path} holds a {type(model).__name__}, not a model; put the layer into a keras.Sequential"
        )
    return KerasSource(
        record=record_of(found.kind.value, found.path, keras_version=found.keras_version),
        model=model,
        warnings=training.restore(model, training.config_in(found), custom_objects),
    )

"""Loading models saved by Keras 3, and Keras 3 models in memory."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
from keras.src.saving import saving_lib
from keras.src.utils import python_utils

from kerve.compiler.errors import LoadError
from kerve.compiler.sources import (
    archives,
    deferred_weights,
    functions,
    keras3_migrations,
    lambdas,
    load_errors,
    packing,
    quantized_weights,
    sequential_models,
    shared_weights,
    training,
)
from kerve.compiler.sources.base import KerasSource, ragged, record_of
from kerve.compiler.sources.derived_state import derive_again
from kerve.compiler.sources.detect import DetectedSource, Kind

__all__ = ["from_file", "from_object"]

_LAYERS = tuple(
    importlib.import_module(name) for name in ("keras.layers", "keras.models", "keras.src.models.functional")
)
_OPERATIONS = tuple(
    importlib.import_module(f"keras.src.ops.{name}")
    for name in ("core", "image", "linalg", "math", "nn", "numpy")
)


def from_object(model: keras.Model, input_signature: Any = None) -> KerasSource:
    """Return the source for a model in memory."""
    _refuse_ragged(model)
    record = record_of("object", keras_version=keras.__version__)
    return KerasSource(record=record, model=model, input_signature=input_signature)


def from_file(found: DetectedSource, custom_objects: Mapping[str, Any], trust: bool) -> KerasSource:
    """Load a `.keras` archive or a whole model in HDF5; raises `LoadError`."""
    found = replace(found, config=_with_functions(keras3_migrations.migrate(found.config)))
    custom_objects = {**functions.named(found.config, keras.activations), **custom_objects}
    read = _from_archive if found.kind is Kind.ARCHIVE else _from_hdf5
    with (
        load_errors.reporting_load_errors(found.path),
        lambdas.with_lambda_globals(python_utils, lambdas.KERAS_3, custom_objects),
    ):
        with (
            sequential_models.built_once(),
            packing.as_written(found.keras_version),
            quantized_weights.in_any_order(),
        ):
            model = read(found, custom_objects, trust)
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
        warnings=[
            *keras3_migrations.ambiguities(found.config),
            *training.restore(model, found.training, custom_objects),
        ],
    )


def _refuse_ragged(model: keras.Model) -> None:
    for tensor in keras.tree.flatten(getattr(model, "inputs", None)):
        if getattr(tensor, "ragged", False):
            raise ragged(tensor.name)


def _from_archive(found: DetectedSource, custom_objects: Mapping[str, Any], trust: bool) -> Any:
    with archives.unpacked(found) as path, shared_weights.checked_weight_loading(saving_lib):
        model = keras.saving.load_model(
            path, custom_objects=dict(custom_objects), compile=False, safe_mode=not trust
        )
        if isinstance(model, keras.Model):
            deferred_weights.load_deferred_weights(model, path / archives.WEIGHTS)
        return model


def _from_hdf5(found: DetectedSource, custom_objects: Mapping[str, Any], trust: bool) -> Any:
    """Build the model as Keras does for archives, and load the weights from the file.

    Keras's own HDF5 loader mistakes strings such as "dot" for its functions and fails on an Ellipsis.
    """
    model = keras.saving.deserialize_keras_object(
        _with_modules(found.config, custom_objects), custom_objects=dict(custom_objects), safe_mode=not trust
    )
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / "model.h5"  # Keras chooses the reader by the file name
        link.symlink_to(found.path.absolute())
        model.load_weights(link)
    return model


def _with_functions(config: Any) -> Any:
    """Mark objects whose configuration is only a name as functions.

    Keras serializes a function wrapped by TensorFlow (tf.function, tf.custom_gradient) as an object of the
    wrapper's class, which it cannot load.
    """
    if isinstance(config, list):
        return [_with_functions(item) for item in config]
    if not isinstance(config, dict):
        return config
    if "class_name" in config and isinstance(config.get("config"), str):
        return {**config, "module": "builtins", "class_name": "function", "registered_name": "function"}
    return {key: _with_functions(value) for key, value in config.items()}


def _with_modules(config: Any, own: Collection[str]) -> Any:
    """Add the modules of Keras's layers and operations, of which HDF5 files contain only the names.

    Names in `own`, those of the user's objects, take precedence.
    """
    if isinstance(config, list):
        return [_with_modules(item, own) for item in config]
    if not isinstance(config, dict):
        return config
    fields = {key: _with_modules(value, own) for key, value in config.items()}
    inner, name = fields.get("config"), fields.get("class_name")
    if not isinstance(inner, dict) or "module" in fields or name in own:
        return fields
    is_layer = name == "InputLayer" or bool({"trainable", "layers"} & set(inner))
    places = _LAYERS if is_layer else _OPERATIONS if "inbound_nodes" in fields else ()
    module = next((m.__name__ for m in places if isinstance(getattr(m, str(name), None), type)), None)
    return fields if module is None else {**fields, "module": module, "registered_name": None}

"""A SavedModel as a source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

from kerve.compiler.errors import LoadError
from kerve.compiler.sources import consent, failures, keras2, whole
from kerve.compiler.sources.base import KerasSource, record_of
from kerve.compiler.sources.detect import Kind
from kerve.compiler.sources.keras2 import bridges
from kerve.compiler.sources.options import LoadOptions
from kerve.compiler.sources.saved_model import examples
from kerve.compiler.sources.saved_model.describe import Description, describe

__all__ = ["from_folder"]


def from_folder(path: Path, own: Mapping[str, Any], options: LoadOptions) -> KerasSource:
    """Read a SavedModel; raises `LoadError`."""
    found = describe(path, options.tag)
    trusted = consent.check(str(path), list(found.configs), own, options.trust)
    trusted += consent.check_operators(str(path), found.file_operators, options.trust)
    with failures.explained(path):
        source = _as_keras(found, own) if found.is_keras_model and options.signature is None else None
        if source is None:
            source = _as_graph(found, found.signature(options.signature))
    return replace(source, warnings=[*trusted, *source.warnings])


def _as_keras(found: Description, own: Mapping[str, Any]) -> KerasSource | None:
    """Read the layers; None where Keras cannot bring them back, as of models without a configuration."""
    with tf_keras.utils.custom_object_scope(bridges.for_tf_keras(own)):
        try:
            model = tf_keras.models.load_model(str(found.path), compile=False)
        except (ValueError, TypeError, AttributeError, KeyError):  # how tf_keras says that it cannot
            return None
    try:
        return keras2.translated(
            model, record_of(Kind.SAVED_MODEL.value, found.path, keras_version=found.keras_version)
        )
    except (LoadError, keras2.UntranslatableError):  # a subclassed model: its signatures know more of it
        return None


def _as_graph(found: Description, name: str) -> KerasSource:
    loaded = tf.saved_model.load(str(found.path), tags=list(found.tags) or None)
    signature = loaded.signatures[name]
    entry = examples.cut(signature) if examples.has_parser(signature) else None
    if entry is None:
        _, inputs = signature.structured_input_signature
        call: Callable[..., Any] = lambda arguments: signature(**arguments)  # noqa: E731
        original = call
    else:
        inputs, call, original = entry.inputs, entry.call, entry.original
    specs = {key: tf.TensorSpec(spec.shape, spec.dtype, key) for key, spec in inputs.items()}
    model = whole.as_model(call, specs, name)
    model._kerve_keeps = loaded
    return KerasSource(
        record=record_of(Kind.SAVED_MODEL.value, found.path, keras_version=found.keras_version),
        model=model,
        original=lambda arguments, training: original(arguments),  # noqa: ARG005
    )

"""Dispatch of a source to the loader for its kind."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from kerve.compiler.errors import LoadError
from kerve.compiler.sources import cleaning, consent, custom, keras3
from kerve.compiler.sources.base import Source
from kerve.compiler.sources.detect import DetectedSource, Kind, detect_source
from kerve.compiler.sources.options import LoadOptions

__all__ = ["from_object", "from_path"]


def from_object(model: Any, input_signature: Any = None) -> Source:
    """Load a model that is in memory."""
    if isinstance(model, keras.Model):
        return keras3.from_object(model, input_signature)
    if any(base.__module__.startswith("tf_keras.") for base in type(model).__mro__):
        from kerve.compiler.sources import keras2  # imports tf_keras

        return keras2.from_object(model)
    raise LoadError(
        f"a {type(model).__module__}.{type(model).__qualname__} is not a model; "
        "give a keras.Model, a tf_keras.Model, or the path of a file"
    )


def from_path(
    path: Path, options: LoadOptions, custom_objects: Mapping[str, Any] | None, data: Path | None
) -> Source:
    """Load a file or folder."""
    found = detect_source(path)
    own = custom.objects(options.import_, custom_objects)
    names = [*own, *keras.saving.get_custom_objects()]
    config, missed = cleaning.cleaned(found.config, names)
    trusted = consent.check(str(path), config, names, options.trust)
    source = _read(replace(found, config=config), own, options, data)
    return replace(source, warnings=[*trusted, *missed, *source.warnings])


def _read(found: DetectedSource, own: Mapping[str, Any], options: LoadOptions, data: Path | None) -> Source:
    if found.kind in (Kind.ARCHIVE, Kind.HDF5) and options.architecture is not None:
        raise LoadError(f"{found.path} holds its own architecture; leave --architecture out")
    for option in ("signature", "tag"):
        if found.kind is not Kind.SAVED_MODEL and getattr(options, option) is not None:
            raise LoadError(f"{found.path} is not a SavedModel, so it has no {option}; leave --{option} out")
    if found.kind in (Kind.ARCHIVE, Kind.HDF5) and found.is_keras_3:
        return keras3.from_file(found, own, options.trust)
    if found.kind is Kind.ARCHITECTURE:
        raise LoadError(
            f"{found.path} is an architecture without weights; "
            f"give the weights as the source, and this with --architecture {found.path}"
        )
    # The rest needs tf_keras, whose import takes seconds and which `kerve[compile-cpu]` does not include.
    if importlib.util.find_spec("tf_keras") is None:
        raise LoadError(
            f"{found.path} is read with tf-keras, which is not installed; "
            "install kerve[compile], or beside tensorflow-cpu: pip install --no-deps tf-keras"
        )
    if found.kind in (Kind.ARCHIVE, Kind.HDF5):
        from kerve.compiler.sources import keras2

        return keras2.from_file(found, own, options.trust)
    if found.kind is Kind.SAVED_MODEL:
        from kerve.compiler.sources import saved_model

        return saved_model.from_folder(found.path, own, options, data)
    from kerve.compiler.sources import weights  # in HDF5, or a checkpoint

    return weights.from_parts(found, own, options)

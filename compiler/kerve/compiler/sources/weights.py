"""Loading models whose weights and architecture are in separate files."""

from __future__ import annotations

import glob
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import keras
from keras.src.saving import saving_lib
from keras.src.utils import python_utils

from kerve.compiler.errors import LoadError
from kerve.compiler.sources import (
    architecture,
    checkpoints,
    cleaning,
    consent,
    deferred_weights,
    functions,
    keras2,
    keras3_migrations,
    lambdas,
    load_errors,
    packing,
    quantized_weights,
    sequential_models,
    shared_weights,
)
from kerve.compiler.sources.architecture import Architecture
from kerve.compiler.sources.base import KerasSource, record_of
from kerve.compiler.sources.derived_state import derive_again
from kerve.compiler.sources.detect import DetectedSource, Kind
from kerve.compiler.sources.keras2 import keras1, layer_weights, legacy, weight_groups
from kerve.compiler.sources.keras2.layer_weights import Writer
from kerve.compiler.sources.options import LoadOptions

__all__ = ["from_parts"]


def from_parts(found: DetectedSource, own: Mapping[str, Any], options: LoadOptions) -> KerasSource:
    """Build the model from its architecture and load its weights; raises `LoadError`."""
    if options.architecture is None:
        raise LoadError(
            f"{found.path} holds weights only; give the architecture (what model.to_json() writes) "
            "with --architecture FILE"
        )
    plan = architecture.read(Path(options.architecture))
    names = [*own, *keras.saving.get_custom_objects()]
    config, missed = cleaning.cleaned(plan.config, names)
    plan = replace(plan, config=config)
    trusted = [*consent.check(str(plan.path), config, names, options.trust), *missed]
    record = record_of(
        Kind.HDF5_WEIGHTS.value,
        *_files(found),
        plan.path,
        keras_version=found.keras_version or plan.keras_version,
    )
    with load_errors.reporting_load_errors(found.path):
        if plan.is_keras_3:
            plan = replace(plan, config=keras3_migrations.migrate(config))
            with packing.as_written(record.keras_version), quantized_weights.in_any_order():
                model = _keras_3(plan, own, options.trust)
                deferred_weights.build_layers(model)
                _load(model, found)
            derive_again(model)
            doubts = keras3_migrations.ambiguities(plan.config)
            return KerasSource(record=record, model=model, warnings=[*trusted, *doubts])
        writer = _writer(found)
        old = keras2.from_config(plan.config, own, plan.keras_version, options.trust, writer.is_theano)
        _load(old, found, writer)
        derive_again(old)
        source = keras2.from_model(old, record)
    doubts = legacy.ambiguities(plan.config, plan.keras_version)
    return replace(source, warnings=[*trusted, *doubts, *source.warnings])


def _keras_3(plan: Architecture, own: Mapping[str, Any], trust: bool) -> keras.Model:
    own = {**functions.named(plan.config, keras.activations), **own}
    with lambdas.with_lambda_globals(python_utils, lambdas.KERAS_3, own), sequential_models.built_once():
        model = keras.saving.deserialize_keras_object(
            plan.config, custom_objects=dict(own), safe_mode=not trust
        )
    if not isinstance(model, keras.Model):
        raise LoadError(f"{plan.path} describes a {type(model).__name__}, not a model")
    return model


def _writer(found: DetectedSource) -> Writer:
    if found.kind is Kind.CHECKPOINT:
        return Writer(is_keras_1=False, is_theano=False)
    with h5py.File(found.path, "r") as file:
        if not _goes_by_layer_names(file):
            return Writer(is_keras_1=False, is_theano=False)
        # Only Keras 1 saves weights without a version.
        version = found.keras_version or keras1.VERSION_OF_WEIGHTS
        return layer_weights.writer_of(file.get("model_weights", file), version)


def _goes_by_layer_names(file: h5py.File) -> bool:
    # Long lists are split into chunks: layer_names0, layer_names1.
    return "model_weights" in file or any(key.startswith("layer_names") for key in file.attrs)


def _load(model: Any, found: DetectedSource, writer: Writer | None = None) -> None:
    """Load the weights into a model of either Keras; `writer` is given for Keras 2."""
    if not model.built:
        raise LoadError(
            f"the architecture of {found.path} does not say what the inputs are; add an Input layer"
        )
    if found.kind is Kind.CHECKPOINT:
        checkpoints.restore(model, found.path)
        return
    with h5py.File(found.path, "r") as file:
        by_layer_names = _goes_by_layer_names(file)
        if writer is not None and by_layer_names:
            layer_weights.load(model, file.get("model_weights", file), writer)
            return
    with tempfile.TemporaryDirectory() as folder:
        # Both versions of Keras distinguish the two HDF5 layouts by the file name.
        link = Path(folder) / ("model.h5" if by_layer_names else "model.weights.h5")
        link.symlink_to(found.path.absolute())
        if not by_layer_names:
            weight_groups.rename(link)
        with weight_groups.reading() if writer else shared_weights.checked_weight_loading(saving_lib):
            model.load_weights(str(link))


def _files(found: DetectedSource) -> Iterable[Path]:
    if found.kind is Kind.CHECKPOINT:
        return sorted(found.path.parent.glob(f"{glob.escape(found.path.name)}.*"))
    return [found.path]

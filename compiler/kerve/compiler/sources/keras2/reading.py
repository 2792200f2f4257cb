"""Loading models of Keras 1 and 2 with tf_keras."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

import h5py
import tf_keras
from tf_keras.src.saving.legacy.saved_model import json_utils
from tf_keras.src.saving.serialization_lib import SafeModeScope
from tf_keras.src.utils import generic_utils

from kerve.compiler.sources import archives, functions, lambdas, load_errors
from kerve.compiler.sources.derived_state import derive_again
from kerve.compiler.sources.detect import DetectedSource, Kind
from kerve.compiler.sources.keras2 import (
    bridges,
    explicit_padding,
    feature_columns,
    layer_weights,
    legacy,
    weight_groups,
)
from kerve.compiler.sources.keras2.keras1_layers import KERAS_1_LAYERS
from kerve.compiler.sources.keras2.migrate import migrated
from kerve.compiler.sources.keras2.raw_operators import TensorFlowOpLayer

__all__ = ["from_config", "read"]

#: Layers of Keras 2 that it cannot resolve by name, or does not restore as they were saved.
_NOT_FOUND = {
    "PeepholeLSTMCell": legacy.PeepholeLSTMCell,
    "RandomFourierFeatures": tf_keras.layers.experimental.RandomFourierFeatures,
    "SpectralNormalization": legacy.SpectralNormalization,
    "TensorFlowOpLayer": TensorFlowOpLayer,
}


def read(found: DetectedSource, own: Mapping[str, Any], trust: bool) -> tf_keras.Model:
    """Load a whole model from HDF5 or an archive; raises `LoadError`."""
    own = {**functions.named(found.config, tf_keras.activations), **own}
    with load_errors.reporting_load_errors(found.path), _known(own):
        model = _from_archive(found, trust) if found.kind is Kind.ARCHIVE else _from_hdf5(found, trust)
        legacy.legacy_behavior(model, found.keras_version)
        derive_again(model)
        return model


def from_config(
    config: Any, own: Mapping[str, Any], keras_version: str, trust: bool, is_theano: bool = False
) -> tf_keras.Model:
    """Build a model from an architecture written by `to_json` or `to_yaml`."""
    own = {**functions.named(config, tf_keras.activations), **own}
    with _known(own), SafeModeScope(safe_mode=not trust):
        model = tf_keras.models.model_from_json(json.dumps(migrated(config, keras_version, is_theano)))
        legacy.legacy_behavior(model, keras_version)
        return model


@contextmanager
def _known(own: Mapping[str, Any]) -> Iterator[None]:
    """Register the objects that tf_keras does not have."""
    objects = {
        **_NOT_FOUND,
        **legacy.LEGACY_LAYERS,
        **explicit_padding.PADDED_LAYERS,
        **bridges.for_tf_keras({**KERAS_1_LAYERS, **own}),
    }
    with (
        tf_keras.utils.custom_object_scope(objects),
        lambdas.with_lambda_globals(generic_utils, lambdas.KERAS_2, own),
        feature_columns.distinguished(),
        mock.patch.object(tf_keras.src.layers, "deserialize", _known_layer),
    ):
        yield


def _known_layer(config: Any, *args: Any, **options: Any) -> Any:
    """Return the layer of a configuration; raises for unknown classes, whose name tf_keras returns."""
    layer = tf_keras.layers.deserialize(config, *args, **options)
    if isinstance(layer, str):
        raise ValueError(f"Unknown layer: '{layer}'")
    return layer


def _from_archive(found: DetectedSource, trust: bool) -> tf_keras.Model:
    with archives.unpacked(found) as folder:
        if (folder / archives.WEIGHTS).exists():
            weight_groups.rename(folder / archives.WEIGHTS)
        with weight_groups.reading():
            return tf_keras.models.load_model(
                str(archives.packed(folder)), compile=False, safe_mode=not trust
            )


def _from_hdf5(found: DetectedSource, trust: bool) -> tf_keras.Model:
    """Build the model from its migrated architecture and load its weights."""
    with h5py.File(found.path, "r") as file, SafeModeScope(safe_mode=not trust):
        group = file["model_weights"]
        writer = layer_weights.writer_of(group, found.keras_version)
        config = json.dumps(migrated(found.config, found.keras_version, writer.is_theano))
        model = tf_keras.models.model_from_config(json_utils.decode(config))
        layer_weights.load(model, group, writer)
        return model

"""A SavedModel as a source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import tensorflow as tf
import tf_keras

from kerve.compiler.errors import LoadError
from kerve.compiler.lowering import variables
from kerve.compiler.sources import consent, function_model, keras2, load_errors, training
from kerve.compiler.sources.base import KerasSource, record_of
from kerve.compiler.sources.detect import Kind
from kerve.compiler.sources.keras2 import bridges, feature_columns
from kerve.compiler.sources.options import LoadOptions
from kerve.compiler.sources.saved_model import batches, examples, graphs
from kerve.compiler.sources.saved_model.describe import SavedModelInfo, describe
from kerve.compiler.sources.saved_model.graphs import Function
from kerve.compiler.sources.saved_model.ranks import with_ranks, with_shapes

__all__ = ["from_folder"]

_DEFAULT = tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY

#: The names of BatchNormalization's moving averages.
_MOVED_IN_TRAINING = ("moving_mean", "moving_variance")


def from_folder(
    path: Path, own: Mapping[str, Any], options: LoadOptions, data: Path | None = None
) -> KerasSource:
    """Load a SavedModel; raises `LoadError`. `data` supplies input shapes that a signature lacks."""
    # Grappler rewrites a LayerNormalization over several axes to a batch normalization, which then fails.
    tf.config.optimizer.set_experimental_options({"remapping": False})
    found = describe(path, options.tag)
    notes = consent.check_operators(str(path), found.file_operators, options.trust)
    source = None
    if found.is_keras_model and options.signature is None:
        try:
            notes += consent.check(str(path), list(found.configs), own, options.trust)
        except LoadError as refusal:  # a signature needs neither the code nor the classes
            if not found.signatures:
                raise
            notes.append(f"compiled as a graph, without its layers: {refusal}")
        else:
            with load_errors.reporting_load_errors(path):
                source = _as_keras(found, own, notes)
    if source is None:
        with load_errors.reporting_load_errors(path):
            source = _as_graph(found, found.signature(options.signature), data)
    return replace(source, warnings=[*notes, *source.warnings])


def _as_keras(found: SavedModelInfo, own: Mapping[str, Any], notes: list[str]) -> KerasSource | None:
    """Load the layers; None if Keras cannot restore them, as for models without a configuration."""
    with tf_keras.utils.custom_object_scope(bridges.for_tf_keras(own)), feature_columns.distinguished():
        try:
            model = tf_keras.models.load_model(str(found.path), compile=False)
        except Exception:  # noqa: BLE001  # Keras and custom code may raise anything
            return None
    saved = _served(model)
    if saved is not None and not _is_of(saved, model):
        notes.append(
            f"its signature {_DEFAULT} is not of the model, whose inputs are {', '.join(model.input_names)} "
            f"and outputs {', '.join(model.output_names)}; to compile the signature, give --signature "
            f"{_DEFAULT}"
        )
    elif saved is not None and (output := keras2.first_mismatched_output(model, saved)) is not None:
        notes.append(
            "compiled as a graph, without its layers: rebuilt from their configuration, they compute "
            f"something else than the saved graph, in '{output}'"
        )
        return None
    record = record_of(Kind.SAVED_MODEL.value, found.path, keras_version=found.keras_version)
    try:
        source = keras2.translated(model, record)
    except (LoadError, keras2.UntranslatableError):  # a subclassed model: its signatures are used instead
        return None
    warnings = training.restore(source.model, found.configs[0].get("training_config"), own)
    return replace(source, warnings=[*source.warnings, *warnings])


def _served(model: Any) -> Any:
    """Return the signature saved with a graph of layers; None if there is none."""
    if not (isinstance(model, tf_keras.Model) and model._is_graph_network):
        return None
    return getattr(model, "signatures", {}).get(_DEFAULT)


def _is_of(saved: Any, model: tf_keras.Model) -> bool:
    """Return whether a signature has the model's inputs and outputs, as Keras's own does."""
    inputs, outputs = saved.structured_input_signature[1], saved.structured_outputs
    return set(inputs) == set(model.input_names) and set(outputs) == set(model.output_names)


def _as_graph(found: SavedModelInfo, name: str, data: Path | None) -> KerasSource:
    """Load one signature as a function; the original is its execution by TensorFlow."""
    inputs, call, original, warnings = _function(found, name, data)
    specs = {key: tf.TensorSpec(spec.shape, spec.dtype, key) for key, spec in inputs.items()}
    call = with_ranks(call, specs)
    apart = batches.rows_apart(specs, call, original)
    return KerasSource(
        record=record_of(Kind.SAVED_MODEL.value, found.path, keras_version=found.keras_version),
        model=function_model.as_model(call, specs, name),
        input_signature={} if not specs else None if apart is None else (apart,),
        original=lambda arguments, **_: original(arguments),
        warnings=[*found.doubts, *warnings],
    )


def _function(
    found: SavedModelInfo, name: str, data: Path | None
) -> tuple[Mapping[str, tf.TensorSpec], Function, Function, Sequence[str]]:
    if found.is_of_tensorflow_1:
        frozen = graphs.freeze_session(found, name)
    else:
        loaded = tf.saved_model.load(str(found.path), tags=list(found.tags))
        signature = loaded.signatures[name]
        definition = signature.graph.as_graph_def()
        if not (examples.has_parser(definition) or graphs.is_compiled(definition)):

            def call(arguments: Mapping[str, Any], _alive: Any = loaded) -> dict[str, Any]:
                return dict(signature(**arguments))

            inputs = with_shapes(signature.structured_input_signature[1], data)
            return (
                batches.with_rows_of_state(signature, inputs, call),
                call,
                call,
                [
                    *_of_training(signature.graph),
                    *batches.fixed_batch_warning(inputs, signature.structured_outputs),
                ],
            )
        frozen = graphs.freeze_function(loaded, name)
    if examples.has_parser(frozen.definition):
        frozen = examples.remove_parser(frozen)
    specs, function = frozen.function()
    return with_shapes(specs, data), function, frozen.original, frozen.warnings


def _of_training(graph: tf.Graph) -> Sequence[str]:
    """Return a warning if a signature updates moving averages: it was exported in training mode."""
    try:
        names = [each.name.partition(":")[0] for each in variables.changed(graph)]
    except variables.ImpureError:  # rejected by the lowering
        return ()
    moved = [name for name in names if name.endswith(_MOVED_IN_TRAINING)]
    if not moved:
        return ()
    return (
        f"it was exported in training mode: each call normalizes by its own batch and updates "
        f"{moved[0]}, which becomes state of the artifact; export the model as called with training=False",
    )

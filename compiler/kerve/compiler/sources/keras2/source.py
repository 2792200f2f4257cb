"""A model of Keras 2 as a source: its translation is lowered and verified against the original."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import tensorflow as tf
import tf_keras

from kerve.artifact.v1 import manifest_pb2
from kerve.compiler.errors import LoadError
from kerve.compiler.sources import function_model, load_errors, training
from kerve.compiler.sources.base import KerasSource, ragged, record_of
from kerve.compiler.sources.detect import DetectedSource
from kerve.compiler.sources.keras2 import legacy, reading
from kerve.compiler.sources.keras2.layers import UntranslatableError
from kerve.compiler.sources.keras2.translate import translate

__all__ = ["from_file", "from_model", "from_object", "translated"]


def from_object(model: tf_keras.Model) -> KerasSource:
    """Load a model that is in memory."""
    if not isinstance(model, tf_keras.Model):
        raise LoadError(
            f"a {type(model).__name__} of tf_keras is not a model; put the layer into a Sequential"
        )
    source = from_model(model, record_of("object", keras_version=tf_keras.__version__))
    warnings = training.restore(source.model, model.get_compile_config(), {})
    return replace(source, warnings=[*source.warnings, *warnings])


def from_file(found: DetectedSource, own: Mapping[str, Any], trust: bool) -> KerasSource:
    """Load a whole model; raises `LoadError`."""
    model = reading.read(found, own, trust)
    source = from_model(model, record_of(found.kind.value, found.path, keras_version=found.keras_version))
    doubts = legacy.ambiguities(found.config, found.keras_version)
    warnings = training.restore(source.model, found.training, own)
    return replace(source, warnings=[*doubts, *source.warnings, *warnings])


def from_model(old: tf_keras.Model, record: manifest_pb2.Source) -> KerasSource:
    """Translate a model; if that fails, it becomes one operation of TensorFlow, converted as a whole."""
    try:
        return translated(old, record)
    except UntranslatableError as error:
        call, inputs = _entry(old)
        names = old.output_names if old._is_graph_network else None

        def answer(arguments: Any, training: bool = False) -> Any:
            return _plain(call(arguments, training=training))

        return KerasSource(
            record=record,
            model=function_model.as_model(answer, inputs, old.name, names),
            original=answer,
            warnings=[f"converted by TensorFlow as a whole: {load_errors.one_line(error)}"],
        )


def _plain(results: Any) -> Any:
    """Return tensors in plain dictionaries and tuples, as Keras 3 requires, without None.

    A mapping may be of a custom class; a distribution is converted to its mean or a sample, as its layer
    specifies.
    """
    if isinstance(results, Mapping):
        return {name: _plain(result) for name, result in results.items() if result is not None}
    if isinstance(results, list | tuple):
        return tuple(_plain(result) for result in results if result is not None)
    return results if tf.is_tensor(results) else tf.convert_to_tensor(results)


def translated(old: tf_keras.Model, record: manifest_pb2.Source) -> KerasSource:
    """Translate a model; raises `UntranslatableError`."""
    call, inputs = _entry(old)
    return KerasSource(record=record, model=translate(_graph(old, call, inputs)), original=call)


def _entry(old: tf_keras.Model) -> tuple[Callable[..., Any], Any]:
    """Return the model as a function of one argument, and the argument's specs."""
    if not isinstance(old, tf_keras.Model):
        raise LoadError(
            f"the file is of Keras 2, but the class {type(old).__name__} that was given is of Keras 3; "
            "set TF_USE_LEGACY_KERAS=1 in the environment, so that tf.keras is Keras 2"
        )
    if old._is_graph_network:
        _refuse_ragged(old)
        return old, _named_specs(old._nested_inputs, old.input_names)
    spec = old.save_spec()
    if spec is None:
        raise LoadError(
            f"model '{old.name}' ({type(old).__name__}) was never called, so its inputs are not known; "
            "call it once on data before it is saved or compiled"
        )
    arguments = list(spec[0])
    while arguments and arguments[-1] is None:  # `training`, which a loaded model includes
        del arguments[-1]
    inputs = arguments[0] if len(arguments) == 1 else list(arguments)
    leaves = tf.nest.flatten(inputs)
    if not all(isinstance(leaf, tf.TensorSpec) for leaf in leaves):
        raise UntranslatableError(f"{type(old).__name__} takes more than dense tensors")
    automatic = ["input"] if len(leaves) == 1 else [f"input_{index}" for index in range(len(leaves))]
    names = [leaf.name or name for leaf, name in zip(leaves, automatic, strict=True)]
    call = old if len(arguments) == 1 else lambda inputs, training: old(*inputs, training=training)
    return call, _named_specs(inputs, names)


def _refuse_ragged(old: tf_keras.Model) -> None:
    """Raise `ConversionError` for ragged inputs; sparse ones are replaced by dense ones."""
    for tensor, name in zip(tf.nest.flatten(old.inputs), old.input_names, strict=True):
        if isinstance(tensor.type_spec, tf.RaggedTensorSpec):
            raise ragged(name)


def _named_specs(tensors: Any, names: Sequence[str]) -> Any:
    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name)
        for tensor, name in zip(tf.nest.flatten(tensors), names, strict=True)
    ]
    return tf.nest.pack_sequence_as(tensors, specs)


def _graph(old: tf_keras.Model, call: Any, inputs: Any) -> tf_keras.Model:
    """Return the model as a graph of layers; that of a subclassed model is recorded by running its code."""
    if old._is_graph_network:
        return old
    tensors = tf.nest.map_structure(lambda spec: tf_keras.Input(type_spec=spec, name=spec.name), inputs)
    arguments = [tensors] if call is old else tensors
    inference = {"training": False} if old._expects_training_arg else {}
    try:
        return tf_keras.Model(tensors, old.call(*arguments, **inference), name=old.name)
    except Exception as error:  # custom code may raise anything on symbolic tensors
        raise UntranslatableError(f"the code of {type(old).__name__} is not a graph of layers") from error

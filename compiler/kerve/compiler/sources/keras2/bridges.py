"""Layers of one version of Keras inside a model of the other.

`OldLayer` and `OldFunction` wrap what only Keras 2 has for use in a Keras 3 model; the lowering has tf2onnx
convert that layer. `for_tf_keras` is the reverse: it wraps classes written for Keras 3 for a Keras 2 model,
so that an old file can be loaded with the current versions of its custom layers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import keras
import tensorflow as tf
import tf_keras

from kerve.compiler.lowering import tracing

__all__ = ["NewLayer", "OldFunction", "OldLayer", "for_tf_keras"]


class _Hidden:
    """Prevents each Keras from tracking objects of the other."""

    def __init__(self, content: Any) -> None:
        self.content = content


class OldFunction(keras.Operation):
    """A TensorFlow function as an operation of Keras 3."""

    def __init__(
        self, function: Callable[..., Any], name: str | None = None, *, takes_symbols: bool = False
    ) -> None:
        """`takes_symbols`: whether it is a built-in TensorFlow function, which the lowering may support."""
        super().__init__(name=name)
        self._function = _Hidden(function)
        self._takes_symbols = takes_symbols

    def call(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        if not self._takes_symbols:
            _refuse_symbols("a function of TensorFlow", (args, kwargs))
        try:
            return self._function.content(*args, **kwargs)
        except Exception:  # not supported by the lowering: traced instead
            _refuse_symbols("a function of TensorFlow", (args, kwargs))
            raise

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Infer the function's outputs by calling it on placeholders."""
        dense_args, dense_kwargs = _dense((args, kwargs))
        return super().compute_output_spec(*dense_args, **dense_kwargs)


class OldLayer(keras.layers.Layer):
    """A layer or a whole model of Keras 2 as a layer of Keras 3."""

    def __init__(self, old: tf_keras.layers.Layer, name: str) -> None:
        super().__init__(name=name, autocast=False, trainable=False)
        self._old = _Hidden(old)
        self._returns: Any = None
        self.supports_masking = bool(old.supports_masking)
        self.built = True

    @property
    def stands_for(self) -> str:
        """The old layer's class name, for errors."""
        return type(self._old.content).__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Pass masks as arguments, so that TensorFlow's tracing sees them."""
        masks = keras.tree.map_structure(keras.src.backend.get_keras_mask, args)
        # Not while the model is being built: a graph of layers has no edges for masks.
        if any(
            mask is not None and type(mask) is not keras.KerasTensor for mask in keras.tree.flatten(masks)
        ):
            kwargs["masks"] = masks
        return super().__call__(*args, **kwargs)

    def returning(self, specs: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the layer on symbolic tensors; `specs` are its known outputs, as `KerasTensor`s.

        They are used if inference fails, as for a layer that requires a mask, which is not passed.
        """
        self._returns = specs
        try:
            return self(*args, **kwargs)
        finally:
            self._returns = None

    def call(self, *args: Any, masks: Any = None, **kwargs: Any) -> Any:
        """Call the old layer in inference mode."""
        old = self._old.content
        _refuse_symbols(f"a {type(old).__name__} of Keras 2", (args, masks, kwargs))
        if masks is not None:
            args = keras.tree.map_structure(_masked, args, masks)
            if old._expects_mask_arg:
                kwargs.setdefault("mask", masks[0])
        if old._expects_training_arg and not old._call_spec.arg_was_passed("training", args, kwargs):
            kwargs["training"] = False
        return old(*args, **kwargs)

    def compute_output_spec(self, *args: Any, **kwargs: Any) -> Any:
        """Infer the old layer's outputs by calling it on placeholders."""
        dense_args, dense_kwargs = _dense((args, kwargs))
        try:
            return super().compute_output_spec(*dense_args, **dense_kwargs)
        except Exception:  # custom code may raise anything
            if self._returns is None:
                raise
            return self._returns

    def compute_mask(self, args: Any, previous_masks: Any) -> Any:
        """Return the mask that the old layer propagates; as in Keras 2, that of the first argument."""
        old = self._old.content
        inputs, previous_mask = args[0], previous_masks[0]
        if all(mask is None for mask in keras.tree.flatten(previous_mask)):
            previous_mask = None
        if type(old).compute_mask is tf_keras.layers.Layer.compute_mask:
            return previous_mask
        function = OldFunction(old.compute_mask)
        if not _symbols_in((inputs, previous_mask)):
            return function.call(inputs, previous_mask)
        spec = function.compute_output_spec(inputs, previous_mask)
        return function(inputs, previous_mask) if _symbols_in(spec) else spec


def _masked(tensor: Any, mask: Any) -> Any:
    """Attach a mask to a tensor, where layers of Keras 2 (nested attention layers, say) look for it."""
    if mask is None:
        return tensor
    copy = tf.identity(tensor)
    copy._keras_mask = mask
    return copy


#: The attributes that an RNN of Keras 2 requires of its cell.
_OF_CELLS = ("output_size", "state_size")


class NewLayer(tf_keras.layers.Layer):
    """A layer of Keras 3 as a layer of Keras 2."""

    new_class: type[keras.layers.Layer]

    def __init__(
        self, name: str | None = None, trainable: bool = True, dtype: Any = None, **config: Any
    ) -> None:
        outer = {key: config.pop(key) for key in ("batch_input_shape", "input_shape") if key in config}
        super().__init__(name=name, trainable=trainable, dtype=dtype, autocast=False, **outer)
        config.pop("dynamic", None)
        policy = self._dtype_policy.name
        self._new = _Hidden(self.new_class.from_config({"name": name, "dtype": policy, **config}))
        self.supports_masking = bool(self.new.supports_masking)

    @property
    def new(self) -> keras.layers.Layer:
        """The layer of Keras 3."""
        return self._new.content

    def __getattr__(self, name: str) -> Any:
        """Return attributes of the new layer that an RNN needs of its cell."""
        if name in _OF_CELLS:
            return getattr(self.new, name)
        raise AttributeError(name)

    def __dir__(self) -> list[str]:
        """Include the attributes of the new layer that an RNN needs of its cell."""
        return [*super().__dir__(), *(name for name in _OF_CELLS if hasattr(self.new, name))]

    def build(self, input_shape: Any) -> None:
        """Build the new layer and track its variables, under the names used in checkpoints."""
        with tf.init_scope():
            _build(self.new, _plain(input_shape))
        for name, held in _as_tracked(self.new)._trackable_children().items():
            self._track_trackable(held, name, overwrite=True)
        self._trainable_weights.extend(variable._value for variable in self.new.trainable_variables)
        # without the states of random generators, which Keras 2 does not have
        self._non_trainable_weights.extend(variable._value for variable in self.new.non_trainable_weights)
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Return the new layer's configuration."""
        return {**self.new.get_config(), **super().get_config()}


def for_tf_keras(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the custom objects and those registered with Keras 3, with layers of Keras 3 wrapped."""
    known = {**keras.saving.get_custom_objects(), **own}
    return {name: _stand_in(name, value) for name, value in known.items()}


def _refuse_symbols(what: str, structure: Any) -> None:
    """Raise for symbolic tensors, with a shorter message than TensorFlow's; the lowering then traces."""
    if _symbols_in(structure):
        raise tracing.TensorsOnlyError(f"{what} takes tensors of TensorFlow only")


def _symbols_in(structure: Any) -> bool:
    return any(isinstance(leaf, keras.KerasTensor) for leaf in keras.tree.flatten(structure))


def _dense(structure: Any) -> Any:
    """Replace symbolic tensors by dense ones: Keras considers `x * 2.0` sparse."""
    return keras.tree.map_structure(
        lambda x: keras.KerasTensor(x.shape, x.dtype) if isinstance(x, keras.KerasTensor) else x, structure
    )


def _stand_in(name: str, value: Any) -> Any:
    if isinstance(value, type) and issubclass(value, keras.layers.Layer):
        members = {"new_class": value, "call": _call_like(value)}
        return type(name.rpartition(">")[2], (NewLayer,), members)
    return value


def _call_like(new_class: type[keras.layers.Layer]) -> Callable[..., Any]:
    """Return the `call` of a wrapper class, with the signature of the wrapped class.

    Keras 2 inspects it to see whether a cell accepts `constants`.
    """

    def call(self: NewLayer, *args: Any, **kwargs: Any) -> Any:
        return self.new(*args, **kwargs)

    call.__signature__ = inspect.signature(new_class.call)  # type: ignore[attr-defined]  # read by inspect
    return call


def _build(layer: keras.layers.Layer, shape: Any) -> None:
    """Build a layer; without a `build` of its own, by calling it, which builds its sublayers."""
    if not keras.src.utils.python_utils.is_default(layer.build):
        layer.build(shape)
    else:
        layer(_placeholders(shape))


def _placeholders(shape: Any) -> Any:
    """Return symbolic tensors for a structure of shapes."""
    if isinstance(shape, dict):
        return {key: _placeholders(each) for key, each in shape.items()}
    return [_placeholders(each) for each in shape] if isinstance(shape, list) else keras.KerasTensor(shape)


def _bookkeeping() -> frozenset[str]:
    layer = keras.layers.Layer()
    layer._maybe_initialize_trackable()
    return frozenset(vars(layer))


#: The attributes that Keras itself sets on a layer.
_BOOKKEEPING = _bookkeeping()


def _as_tracked(value: Any) -> Any:
    """Convert an attribute of a Keras 3 layer for TensorFlow's tracking; None if there is nothing to track.

    Checkpoints and SavedModels use attribute names; Keras 3 tracks no lists, and has `_kernel` for `kernel`.
    """
    if isinstance(value, keras.Variable):
        return value._value
    if isinstance(value, list | tuple):
        return [_as_tracked(each) for each in value]
    if isinstance(value, dict):
        return {str(key): _as_tracked(each) for key, each in value.items()}
    if not isinstance(value, keras.layers.Layer):
        return None
    # A new class for each: when TensorFlow loads a SavedModel, it sets `__call__` on the class.
    tracked = type("Tracked", (tf.__internal__.tracking.AutoTrackable,), {})()
    for name, held in vars(value).items():
        if name not in _BOOKKEEPING and (child := _as_tracked(held)) is not None:
            setattr(tracked, name, child)
            setattr(tracked, name.lstrip("_"), child)
    return tracked


def _plain(shape: Any) -> Any:
    if isinstance(shape, tf.TensorShape):
        return tuple(shape.as_list())
    if isinstance(shape, dict):
        return {key: _plain(value) for key, value in shape.items()}
    if isinstance(shape, list | tuple) and not all(size is None or isinstance(size, int) for size in shape):
        return [_plain(each) for each in shape]
    return tuple(shape)

"""Restoring the loss and the metrics that a model was compiled with, for `evaluate`; not the optimizer."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import keras
from keras.src import losses, metrics

from kerve.compiler.sources import consent, load_errors

__all__ = ["restore"]

#: Names that Keras resolves to a loss or metric by the shapes of the model's outputs.
_CHOSEN_BY_KERAS = frozenset({"acc", "accuracy", "ce", "crossentropy"})

#: Names of Keras 2 and their names in Keras 3, as losses and as metrics.
_FORMER_NAMES = {
    "kullback_leibler_divergence": ("kl_divergence",),
    "logcosh": ("log_cosh", "log_cosh_error"),
}

_RESTORED = ("loss", "loss_weights", "metrics", "weighted_metrics")


def restore(model: keras.Model, config: Any, custom_objects: Mapping[str, Any]) -> list[str]:
    """Compile the model; returns warnings for what cannot be restored.

    Code in the configuration is never run, with or without `trust`: the risk is not worth it.
    """
    if not isinstance(config, dict) or not config:
        return []
    single = len(model.outputs) == 1 if hasattr(model, "outputs") else False
    outputs = getattr(model, "output_names", None) or []
    own = [*custom_objects, *keras.saving.get_custom_objects()]
    warnings: list[str] = []
    try:
        consent.check("its training", {key: config.get(key) for key in _RESTORED}, own, trust=False)
        with keras.saving.custom_object_scope(dict(custom_objects)):
            model.compile(
                optimizer="sgd",  # has no state, and is never used
                loss=_each(config.get("loss"), _loss),
                loss_weights=config.get("loss_weights"),
                metrics=_metrics(_unnested(config.get("metrics"), single), outputs, warnings),
                weighted_metrics=_metrics(
                    _unnested(config.get("weighted_metrics"), single), outputs, warnings
                ),
            )
    except Exception as error:  # noqa: BLE001  # a loss that cannot be restored must not keep the model from serving
        return [f"the loss and metrics could not be restored ({load_errors.one_line(error)})"]
    return warnings


def _each(config: Any, restored: Callable[[Any], Any]) -> Any:
    """Restore the leaves of a structure of names and of serialized objects."""
    if isinstance(config, dict) and "class_name" not in config:
        return {key: _each(value, restored) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [_each(value, restored) for value in config]
    return None if config is None else restored(config)


def _unnested(config: Any, single: bool) -> Any:
    """Unwrap the list of a single output: Keras 2 writes a list for each output, Keras 3 expects one list."""
    is_nested = isinstance(config, list) and len(config) == 1 and isinstance(config[0], list)
    return config[0] if single and is_nested else config


def _metrics(config: Any, outputs: Sequence[str], warnings: list[str], prefix: str = "") -> Any:
    """Restore metrics, adding errors to `warnings`; `prefix` is removed from their names."""
    if isinstance(config, dict) and "class_name" not in config:
        return {key: _metrics(value, outputs, warnings) for key, value in config.items()}
    if isinstance(config, list) and any(isinstance(each, list) for each in config):  # one for each output
        names = outputs if len(outputs) == len(config) else [""] * len(config)
        return [
            _metrics(each, outputs, warnings, f"{name}_") for name, each in zip(names, config, strict=True)
        ]
    if isinstance(config, list | tuple):
        found = [_metrics(each, outputs, warnings, prefix) for each in config]
        return [each for each in found if each is not None]
    try:
        return None if config is None else _metric(config, prefix)
    except Exception as error:  # noqa: BLE001  # one metric must not affect the others
        warnings.append(f"evaluation: a metric could not be restored ({load_errors.one_line(error)})")
        return None


def _by_name(config: Any, known: Collection[str]) -> Any:
    """Return the custom object of a name, or a name that is `known`; None for a configuration.

    A function's configuration is its name.
    """
    name = config if isinstance(config, str) else config["config"]
    if not isinstance(name, str):
        return None
    if (own := keras.saving.get_registered_object(name)) is not None:
        return own
    name = next((today for today in _FORMER_NAMES.get(name, ()) if today in known), name)
    if name not in known and name not in _CHOSEN_BY_KERAS:
        raise ValueError(f"{name} is not known; {load_errors.OWN_CODE}")
    return name


def _loss(config: Any) -> Any:
    if (named := _by_name(config, losses.ALL_OBJECTS_DICT)) is not None:
        return named
    inner = {key: value for key, value in config["config"].items() if (key, value) != ("reduction", "auto")}
    if config["class_name"] in vars(keras.losses):  # Keras 2 also saves the function of built-in losses
        inner.pop("fn", None)
    return _found(keras.losses.deserialize({**config, "config": inner}), "loss")


def _metric(config: Any, prefix: str) -> Any:
    if (named := _by_name(config, metrics.ALL_OBJECTS_DICT)) is not None:
        return named
    inner = config["config"]
    # With several outputs Keras 2 prefixes metric names with the output's; Keras 3 adds the prefix itself.
    if "name" in inner:
        inner = {**inner, "name": inner["name"].removeprefix(prefix)}
    if config["class_name"] == "MeanMetricWrapper":  # the form in Keras 2 of metrics given by name
        named = _by_name(inner["fn"], metrics.ALL_OBJECTS_DICT)
        found = named
        if isinstance(named, str):
            found = getattr(keras.metrics, named, None) or keras.metrics.get(named)
        if isinstance(found, keras.Metric):  # not available as a function in Keras 3
            return type(found)(name=inner["name"])
        return keras.metrics.MeanMetricWrapper(found, name=inner["name"])
    return _found(keras.metrics.deserialize({**config, "config": inner}), "metric")


def _found(restored: Any, what: str) -> Any:
    if not callable(restored):  # Keras returns unknown names unchanged
        raise ValueError(f"{restored} is not a {what} of Keras 3")
    return restored

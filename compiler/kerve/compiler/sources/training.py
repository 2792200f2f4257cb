"""The loss and the metrics that a model was compiled with, for `evaluate`; the optimizer stays behind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras

from kerve.compiler.sources import consent, failures

__all__ = ["restore"]

_RESTORED = ("loss", "loss_weights", "metrics", "weighted_metrics")


def restore(model: keras.Model, config: Any, custom_objects: Mapping[str, Any]) -> list[str]:
    """Compile the model; returns a warning when that cannot be done.

    Code in the configuration is not run, trusted or not: it is not worth it.
    """
    if not isinstance(config, dict) or not config:
        return []
    single = len(model.outputs) == 1 if hasattr(model, "outputs") else False
    own = [*custom_objects, *keras.saving.get_custom_objects()]
    try:
        consent.check("its training", {key: config.get(key) for key in _RESTORED}, own, trust=False)
        with keras.saving.custom_object_scope(dict(custom_objects)):
            model.compile(
                optimizer="sgd",  # the one without state; nobody trains here
                loss=_each(config.get("loss"), _loss),
                loss_weights=config.get("loss_weights"),
                metrics=_each(_unnested(config.get("metrics"), single), _metric),
                weighted_metrics=_each(_unnested(config.get("weighted_metrics"), single), _metric),
            )
    except Exception as error:  # noqa: BLE001  # a loss that cannot be restored must not keep the model from serving
        return [f"the loss and metrics could not be restored ({failures.one_line(error)})"]
    return []


def _each(config: Any, restored: Callable[[Any], Any]) -> Any:
    """Restore the leaves of a structure of names and of serialized objects."""
    if isinstance(config, dict) and "class_name" not in config:
        return {key: _each(value, restored) for key, value in config.items()}
    if isinstance(config, list | tuple):
        return [_each(value, restored) for value in config]
    return None if config is None else restored(config)


def _unnested(config: Any, single: bool) -> Any:
    """Keras 2 writes a list for each output; for one output Keras 3 expects its list alone."""
    is_nested = isinstance(config, list) and len(config) == 1 and isinstance(config[0], list)
    return config[0] if single and is_nested else config


def _loss(config: Any) -> Any:
    if isinstance(config, str):
        return config
    inner = {key: value for key, value in config["config"].items() if (key, value) != ("reduction", "auto")}
    if config["class_name"] in vars(keras.losses):  # Keras 2 writes the function of its own losses, too
        inner.pop("fn", None)
    return keras.losses.deserialize({**config, "config": inner})


def _metric(config: Any) -> Any:
    if isinstance(config, str):
        return config
    if config["class_name"] == "MeanMetricWrapper":  # how Keras 2 writes metrics given by name
        inner = config["config"]
        return keras.metrics.MeanMetricWrapper(getattr(keras.metrics, inner["fn"]), name=inner["name"])
    return keras.metrics.deserialize(config)

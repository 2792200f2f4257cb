"""Compile and publish a model from inside its training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
from keras.src.callbacks.monitor_callback import MonitorCallback

from kerve.compiler.artifact import Artifact
from kerve.compiler.compile import compile_model
from kerve.compiler.options import CompileOptions
from kerve.compiler.progress import ignore
from kerve.compiler.repository import check_name

__all__ = ["CompileAndPublish"]

_LOG = logging.getLogger(__name__)


class CompileAndPublish(MonitorCallback):
    """Publish the model as a new version at the end of training, or whenever a monitored value improves.

    A server that watches the repository picks each version up. `monitor` is a value of the epoch's logs
    (`"val_accuracy"`); None publishes once, at the end of training. `mode` is `"min"`, `"max"` or `"auto"`,
    as in Keras's own callbacks. The model, of Keras or tf_keras, is compiled in the training process, so
    training waits for it.

    A compile that fails is logged and kept in `failures`; it never ends the training. The artifacts are in
    `published`, oldest first. Raises `ValueError` for a name that cannot be served, before any training.
    """

    def __init__(
        self,
        *,
        repository: str | Path,
        name: str,
        monitor: str | None = None,
        mode: str = "auto",
        min_delta: float = 0.0,
        options: CompileOptions | None = None,
    ) -> None:
        check_name(name)
        super().__init__(monitor=monitor or "", mode=mode, min_delta=min_delta)
        self.best: Any = None
        self.published: list[Artifact] = []
        self.failures: list[Exception] = []
        self._repository = Path(repository)
        self._name = name
        self._options = options

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Publish when the monitored value is better than at any earlier epoch."""
        if not self.monitor:
            return
        value = (logs or {}).get(self.monitor)
        if value is None:
            known = ", ".join(sorted(logs or {})) or "none"
            _LOG.warning("epoch %d has no value %r to monitor; it has: %s", epoch + 1, self.monitor, known)
            return
        if np.ndim(value) or np.isnan(value):
            _LOG.warning(
                "epoch %d: %r is %s, which is no improvement on anything", epoch + 1, self.monitor, value
            )
            return
        try:
            if self.monitor_op is None:
                self._set_monitor_op()
        except ValueError as error:  # Keras cannot tell which way is better
            _LOG.error("kerve published nothing at epoch %d: %s", epoch + 1, error)
            self.failures.append(error)
            return
        if self._is_improvement(value, self.best):
            self.best = value
            self._publish(f"epoch {epoch + 1}, {self.monitor} {value:.4g}")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:  # noqa: ARG002  # Keras's signature
        """Publish the trained model, when no value is monitored."""
        if not self.monitor:
            self._publish("the end of training")

    def _implements_no_batch_hooks(self) -> bool:
        """What tf_keras asks of a callback for each kind of its loops, where it is given this one."""
        return False

    _implements_train_batch_hooks = _implements_test_batch_hooks = _implements_no_batch_hooks
    _implements_predict_batch_hooks = _implements_no_batch_hooks

    def _publish(self, occasion: str) -> None:
        try:
            artifact = compile_model(
                self.model,
                repository=self._repository,
                name=self._name,
                options=self._options,
                listener=ignore,  # Keras shows the progress of the training
            )
        except Exception as error:  # noqa: BLE001  # hours of training are worth more than one version
            _LOG.error("kerve did not publish %s at %s: %s", self._name, occasion, error)
            self.failures.append(error)
            return
        _LOG.info("kerve published %s version %d at %s", self._name, artifact.version, occasion)
        self.published.append(artifact)

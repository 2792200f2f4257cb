"""Compile and publish a model from inside its training."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
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

    A failed compile is logged and appended to `failures`; it never stops the training. `published` holds the
    artifacts, oldest first; their warnings are logged. In distributed training only the chief publishes.
    Callbacks run in order: one that restores the best weights at the end of training
    (`EarlyStopping(restore_best_weights=True)`) must come before this one. The constructor raises
    `ValueError` for a name that cannot be served.
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
        self._warned: set[str] = set()

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
                "epoch %d: %r is %s; expected a number, so nothing was published",
                epoch + 1,
                self.monitor,
                value,
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
        """Return False: there are no batch hooks. Called by tf_keras, once for each kind of loop."""
        return False

    _implements_train_batch_hooks = _implements_test_batch_hooks = _implements_no_batch_hooks
    _implements_predict_batch_hooks = _implements_no_batch_hooks

    def _publish(self, occasion: str) -> None:
        try:
            with self._place() as repository:
                artifact = compile_model(
                    self.model,
                    repository=repository,
                    name=self._name,
                    options=self._options,
                    listener=ignore,  # Keras shows the progress of the training
                )
        except Exception as error:  # noqa: BLE001  # hours of training are worth more than one version
            _LOG.error("kerve did not publish %s at %s: %s", self._name, occasion, error)
            self.failures.append(_without_frames(error))
            return
        if repository != self._repository:
            return
        _LOG.info("kerve published %s version %d at %s", self._name, artifact.version, occasion)
        self.published.append(artifact)
        for warning in artifact.manifest.warnings:
            if warning not in self._warned:
                self._warned.add(warning)
                _LOG.warning("%s version %d: %s", self._name, artifact.version, warning)

    @contextmanager
    def _place(self) -> Iterator[Path]:
        """Yield the repository; on a worker that is not the chief, a temporary folder instead.

        Every worker has to compile: reading a variable that is sharded over them is a collective operation.
        """
        strategy = getattr(self.model, "distribute_strategy", None)
        if getattr(getattr(strategy, "extended", None), "should_checkpoint", True):
            yield self._repository
            return
        with tempfile.TemporaryDirectory(prefix="kerve-") as temporary:
            yield Path(temporary)


def _without_frames(error: Exception) -> Exception:
    """Clear the tracebacks of an exception and its causes, whose frames keep weights and data alive."""
    waiting: list[BaseException] = [error]
    while waiting:
        each = waiting.pop()
        if each.__traceback__ is not None:
            each.__traceback__ = None
            waiting += filter(None, (each.__cause__, each.__context__))
    return error

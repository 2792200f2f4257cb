"""The loss and the metrics of a model, as given to `compile`, and Keras's trainer with fresh copies."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import keras
from keras.src.trainers import compile_utils
from tensorflow.python.framework import ops as tf_ops

__all__ = ["Objective", "Trainer", "compiled_for_evaluation"]

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


@dataclass(frozen=True)
class Objective:
    """The arguments of `compile`; instances of metrics are copied before use, or restored after it."""

    loss: Any = None
    loss_weights: Any = None
    metrics: Any = None
    weighted_metrics: Any = None

    @classmethod
    def of(cls, model: keras.Model, *, adds_losses: bool) -> Objective | None:
        """Return a model's objective; None if it was not compiled, or without loss and metrics.

        `adds_losses`: whether the model's own code may add losses.
        """
        loss, metrics = model._compile_loss, model._compile_metrics
        own = (
            adds_losses
            or any(each.regularizer is not None for each in model.trainable_variables)
            or type(model).compute_loss is not keras.Model.compute_loss
        )
        if not model.compiled or (loss is None and metrics is None and not own):
            return None
        return cls(
            loss=None if loss is None else loss._user_loss,
            loss_weights=None if loss is None else loss._user_loss_weights,
            metrics=None if metrics is None else metrics._user_metrics,
            weighted_metrics=None if metrics is None else metrics._user_weighted_metrics,
        )


@dataclass
class Trainer:
    """A model compiled for evaluation."""

    model: keras.Model
    #: The metrics created so far, in the order of creation; a position identifies a metric.
    made: list[keras.Metric] = field(default_factory=list)
    #: Whether there is no loss; Keras itself then evaluates nothing, not even metrics.
    lossless: bool = False

    @property
    def metrics_by_key(self) -> dict[str, keras.Metric]:
        """The compiled metrics by their keys in `evaluate`, except those that report several numbers."""
        compiled = self.model._compile_metrics
        if compiled is None or not compiled.built:
            return {}
        with ExitStack() as stack:
            for metric in compiled.metrics:
                stack.enter_context(mock.patch.object(metric, "result", lambda metric=metric: metric))
            return dict(compiled.result())


class _Refused(keras.Metric):
    """A placeholder for a metric that cannot be computed."""

    def update_state(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    def result(self) -> dict[str, Any]:
        """Report nothing."""
        return {}


@contextmanager
def compiled_for_evaluation(
    model: keras.Model, objective: Objective, refused: Collection[int] = ()
) -> Iterator[Trainer]:
    """Compile a model within the context, with copies of metrics without state; restores it at the end.

    `refused` are the positions of metrics to leave out.
    """
    with _on_one_device():
        yield from _judging(model, objective, refused)


def _judging(model: keras.Model, objective: Objective, refused: Collection[int]) -> Iterator[Trainer]:
    trainer, fields = Trainer(model), vars(model)
    names = getattr(model, "output_names", None)
    metrics, weighted = _copied(objective.metrics), _copied(objective.weighted_metrics)
    ours = {
        "_compile_loss": None
        if objective.loss is None
        else compile_utils.CompileLoss(objective.loss, objective.loss_weights, output_names=names),
        "_compile_metrics": None
        if metrics is None and weighted is None
        else compile_utils.CompileMetrics(metrics, weighted, output_names=names),
        "_loss_tracker": keras.metrics.Mean(name="loss"),
        "compiled": True,
        "compute_loss": _lenient(trainer),
        "optimizer": None,
        "test_function": None,
        "steps_per_execution": 1,
        "stop_evaluating": False,
        "_jit_compile": False,
        "_run_eagerly": False,
        # one device, like a server: under a distribution strategy, Keras sums over the devices' shares of a
        # batch before it evaluates, which fails if they have different numbers of rows
        "_distribute_strategy": None,
    }
    before = {name: fields[name] for name in ours if name in fields}
    used = [each for each in keras.tree.flatten([metrics, weighted]) if isinstance(each, keras.Metric)]
    own = [(v, keras.ops.convert_to_numpy(v)) for v in _own_variables(model, used)]
    with mock.patch.object(compile_utils, "get_metric", _noting(trainer.made, refused)):
        fields.update(ours)
        try:
            yield trainer
        finally:
            for name in ours:
                fields.pop(name)
            fields.update(before)
            for metric in used:
                metric.reset_state()
            for variable, value in own:
                variable.assign(value)


@contextmanager
def _on_one_device() -> Iterator[None]:
    """Leave the scope of a strategy, in which variables and losses are created for all of its devices.

    TensorFlow keeps both stacks on its default graph, and has no API to leave a scope before its end.
    """
    graph = tf_ops.get_default_graph()
    strategies, creators = graph._distribution_strategy_stack, graph._variable_creator_stack
    graph._distribution_strategy_stack, graph._variable_creator_stack = [], []
    try:
        yield
    finally:
        graph._distribution_strategy_stack, graph._variable_creator_stack = strategies, creators


def _lenient(trainer: Trainer) -> Any:
    """Return a `compute_loss` that returns zero if there is no loss."""
    original = trainer.model.compute_loss

    def compute_loss(*args: Any, **kwargs: Any) -> Any:
        try:
            return original(*args, **kwargs)
        except ValueError as error:
            if "No loss to compute" not in str(error):
                raise
            trainer.lossless = True
            return keras.ops.zeros(())

    return compute_loss


def _noting(made: list[keras.Metric], refused: Collection[int]) -> Any:
    original = compile_utils.get_metric

    def get_metric(identifier: Any, y_true: Any, y_pred: Any) -> keras.Metric:
        position = len(made)
        metric = original(identifier, y_true, y_pred)
        made.append(_Refused(name=metric.name) if position in refused else metric)
        return made[-1]

    return get_metric


def _own_variables(model: keras.Model, used: Iterable[keras.Metric]) -> list[keras.Variable]:
    """Return the variables of metrics that are attributes of the model and its layers, and of those used."""
    owners = [model, *model._flatten_layers(include_self=False)]
    metrics = {id(each): each for each in (*(each for owner in owners for each in owner._metrics), *used)}
    return [variable for metric in metrics.values() for variable in metric.variables]


def _copied(structure: Any) -> Any:
    """Return the structure with fresh copies of metrics; those that cannot be copied are used themselves."""
    if isinstance(structure, Mapping):
        return {key: _copied(value) for key, value in structure.items()}
    if isinstance(structure, list | tuple):
        return [_copied(value) for value in structure]
    if not isinstance(structure, keras.Metric):
        return structure
    try:
        config = structure.get_config()
        wanted = inspect.signature(type(structure).__init__).parameters.values()
        if any(each.name not in config for each in wanted if each.kind in _NAMED and each.name != "self"):
            return structure  # its configuration does not contain all of its arguments
        return type(structure).from_config(config)
    except Exception:  # noqa: BLE001  # custom code may raise anything, as may unregistered functions
        return structure

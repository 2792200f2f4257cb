"""The two graphs of an evaluation: Keras's own losses and metrics, run on symbols.

update    model inputs, predictions, labels, weights, state -> new state      (the trainer's test step)
results   state -> the numbers of `evaluate`
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from unittest import mock

import keras
import onnx_ir as ir
from keras.src.losses import loss as losses
from keras.src.trainers import compile_utils
from numpy.typing import NDArray
from onnx_ir.passes import common

from kerve.compiler.errors import ConversionError
from kerve.compiler.evaluation.accumulation import StateAccumulator, accumulate
from kerve.compiler.evaluation.logits import Logits, logits_from_prediction, provide_logits
from kerve.compiler.evaluation.objective import Trainer
from kerve.compiler.evaluation.targets import Target
from kerve.compiler.lowering import HANDLERS, Lowered, StateVariable, signature
from kerve.compiler.lowering.interception import intercept
from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.state import Restart, State, distinct
from kerve.compiler.lowering.symbol import Symbol
from kerve.compiler.passes import optimize
from kerve.compiler.verification.reference_runs import first_error_line

__all__ = ["Graphs", "MetricError", "ReportedMetric", "lower"]

LABELS, PREDICTIONS, LOGITS, WEIGHTS = "labels/", "predictions/", "logits/", "weights/"
INPUTS, STATE = "inputs/", "state/"


class MetricError(Exception):
    """One metric, at a position in `Trainer.made`, cannot be computed."""

    def __init__(self, position: int, name: str, error: Exception) -> None:
        super().__init__(f"metric {name!r}: {first_error_line(error)}")
        self.position = position


@dataclass(frozen=True)
class ReportedMetric:
    """One number of `evaluate`, and the metric that computes it."""

    key: str
    metric: keras.Metric | None


@dataclass(frozen=True)
class Graphs:
    """The graphs, before they are written."""

    update: ir.Model
    results: ir.Model
    targets: tuple[Target, ...]
    state: tuple[StateVariable, ...]
    #: The initial state, in the types in which it is accumulated.
    initial: tuple[NDArray[Any], ...]
    accumulated: tuple[StateAccumulator, ...]
    reported: tuple[ReportedMetric, ...]
    #: Whether a loss ignores elements (a mask, an ignored class) and is a mean over the others.
    masked: bool
    warnings: tuple[str, ...]


def lower(
    trainer: Trainer,
    lowered: Lowered,
    targets: Sequence[Target],
    logits: Mapping[str, Logits],
    *,
    opset: int,
    weighted: bool,
) -> Graphs:
    """Lower the trainer's test step and its results.

    Raises `MetricError` for a metric that cannot be computed, and `ConversionError` or any error of Keras for
    the rest.
    """
    step = _Step(trainer, lowered, targets, logits, opset)
    shapes = step.shapes()
    for metric in trainer.model.metrics:
        metric.reset_state()
    states = _declared(trainer)
    initial = [each.initial for each in states]
    try:
        update, warnings = step.lower(states, shapes if weighted else None)
        results, reported = _results(trainer, states, opset)
    except Restart as found:
        raise _foreign(found) from None
    for graph in (update, results):
        _drop_unused(graph, keep=STATE)
    names = [(each.input, each.output) for each in states]
    accumulated = accumulate(update.graph, names)
    common.RemoveUnusedNodesPass()(update)
    _take_wide(results, accumulated)
    for graph in (update, results):
        graph.graph.name = "evaluation"
    return Graphs(
        optimize(update),
        optimize(results),
        tuple(targets),
        tuple(states),
        tuple(array.astype(each.dtype.numpy()) for array, each in zip(initial, accumulated, strict=True)),
        tuple(accumulated),
        tuple(reported),
        step.masked,
        tuple(warnings),
    )


@dataclass
class _Step:
    """The trainer's test step on symbols."""

    trainer: Trainer
    lowered: Lowered
    targets: Sequence[Target]
    logits: Mapping[str, Logits]
    opset: int
    masked: bool = False
    _loss_shapes: dict[int, tuple[int | None, ...]] = field(default_factory=dict)

    def shapes(self) -> dict[str, tuple[int | None, ...]]:
        """Run once to build the metrics; returns the shape of the loss of each output before weighting."""
        declared: list[StateVariable] | None = None
        while True:
            before, declared = declared, _declared(self.trainer)
            try:
                self.lower(declared, None)
            except Restart as found:  # metrics that create their variables in the first update
                if before is not None and len(declared) == len(before):
                    raise _foreign(found) from None
                continue
            return {
                target.output: self._loss_shapes.get(index, ()) for index, target in enumerate(self.targets)
            }

    def lower(
        self, states: Sequence[StateVariable], shapes: Mapping[str, tuple[int | None, ...]] | None
    ) -> tuple[ir.Model, list[str]]:
        """Lower once; `shapes` are those of the losses to weight, None for no weights."""
        g = Lowering(self.opset, HANDLERS, State(states))
        g.graph.inputs.extend(g.state.inputs)
        labels = [self._enter(g, LABELS, each, each.labels_dtype, each.labels_shape) for each in self.targets]
        given = [self._enter(g, PREDICTIONS, each, each.dtype, each.shape) for each in self.targets]
        weights = None
        if shapes is not None:
            weights = [
                self._enter(
                    g, WEIGHTS, each, ir.DataType.FLOAT, ir.Shape(_weights_shape(each, shapes[each.output]))
                )
                for each in self.targets
            ]
        behind = {
            each.output: self._enter(g, LOGITS, each, each.dtype, each.shape)
            for each in self.targets
            if each.output in self.logits and self.logits[each.output].value
        }
        with intercept(g), self._watched_losses(given), _named_failures(self.trainer), ExitStack() as stack:
            stack.enter_context(provide_logits(self._logits(given, behind)))
            arguments = keras.tree.map_structure(lambda spec: _enter_input(g, spec), self.lowered.arguments)
            self._run(g, arguments, labels, given, weights)
        for name, value in g.state.last:
            copy = g.copy(value)
            copy.name = name
            g.graph.outputs.append(copy)
        return ir.Model(g.graph, ir_version=10, producer_name="kerve"), g.warnings

    def _run(
        self,
        g: Lowering,
        arguments: Any,
        labels: Sequence[Symbol],
        given: Sequence[Symbol],
        weights: Sequence[Symbol] | None,
    ) -> None:
        """Do the same as Keras's `Trainer.test_step`, on given predictions."""
        model = self.trainer.model
        if self.lowered.evaluation_needs_inputs:
            outputs = keras.tree.flatten(signature.call(model, arguments))
            for prediction, output in zip(given, outputs, strict=True):
                mask = keras.src.backend.get_keras_mask(output)
                if mask is not None:
                    keras.src.backend.set_keras_mask(prediction, mask)
        x = arguments[0][0] if len(arguments[0]) == 1 else arguments[0]
        y, y_pred = self._packed(labels), self._packed(given)
        sample_weight = None if weights is None else self._packed(weights)
        added = [each() for each in g.losses]
        if added:
            added += model._get_regularization_losses()
        with mock.patch.dict(vars(model), _losses_override=added):
            loss = model._compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=False)
        rows = keras.ops.shape(given[0])[0]
        model._loss_tracker.update_state(loss, sample_weight=rows)
        with mock.patch.dict(vars(model), get_metrics_result=dict):
            model.compute_metrics(x, y, y_pred, sample_weight=sample_weight)

    def _logits(
        self, given: Sequence[Symbol], behind: Mapping[str, Symbol]
    ) -> dict[int, tuple[Symbol, Logits]]:
        found = {}
        for target, prediction in zip(self.targets, given, strict=True):
            logits = self.logits.get(target.output)
            if logits is not None:
                symbol = behind.get(target.output)
                restoring = logits_from_prediction(prediction, logits) if symbol is None else symbol
                found[id(prediction.value)] = restoring, logits
        return found

    def _packed(self, symbols: Sequence[Symbol]) -> Any:
        return keras.tree.pack_sequence_as(self.lowered.outputs, list(symbols))

    def _enter(self, g: Lowering, prefix: str, target: Target, dtype: ir.DataType, shape: ir.Shape) -> Symbol:
        value = ir.val(f"{prefix}{target.output}", dtype, ir.Shape(shape))
        g.graph.inputs.append(value)
        return Symbol(value)

    @contextmanager
    def _watched_losses(self, given: Sequence[Symbol]) -> Iterator[None]:
        """Record the shape of each loss before it is weighted and reduced, and whether one is masked."""
        places = {id(symbol): index for index, symbol in enumerate(given)}
        current: list[int | None] = []
        call, reduce = losses.Loss.__call__, losses.reduce_weighted_values

        def called(loss: Any, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            current.append(places.get(id(y_pred)))
            try:
                return call(loss, y_true, y_pred, sample_weight)
            finally:
                current.pop()

        def reduced(values: Any, *args: Any, **kwargs: Any) -> Any:
            if current and current[-1] is not None:
                self._loss_shapes.setdefault(current[-1], tuple(values.shape))
            self.masked |= kwargs.get("mask") is not None
            return reduce(values, *args, **kwargs)

        with (
            mock.patch.object(losses.Loss, "__call__", called),
            mock.patch.object(losses, "reduce_weighted_values", reduced),
        ):
            yield


def _foreign(found: Restart) -> ConversionError:
    return ConversionError(
        f"evaluating changes the variable {found.variable.path}, which belongs to no metric"
    )


def _weights_shape(target: Target, weighed: tuple[int | None, ...]) -> ir.Shape:
    """Return the shape of weights: one for each value of the loss."""
    if not weighed:
        return ir.Shape(target.shape[: max(1, len(target.shape) - 1)])
    return ir.Shape(target.shape[axis] if size is None else size for axis, size in enumerate(weighed))


def _enter_input(g: Lowering, spec: signature.InputSpec) -> Symbol:
    return signature.enter(g, replace(spec, name=f"{INPUTS}{spec.name}"))


@contextmanager
def _named_failures(trainer: Trainer) -> Iterator[None]:
    """Raise `MetricError` when a metric fails."""

    def update_state(self: Any, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        for metric in self.metrics:
            update = functools.partial(metric.update_state, y_true, y_pred, sample_weight=sample_weight)
            _of_metric(trainer, metric, update)

    with mock.patch.object(compile_utils.MetricsList, "update_state", update_state):
        yield


def _of_metric(trainer: Trainer, metric: keras.Metric, run: Callable[[], Any]) -> Any:
    try:
        return run()
    except Exception as error:
        position = next((i for i, each in enumerate(trainer.made) if each is metric), None)
        if position is None:
            raise
        raise MetricError(position, metric.name, error) from error


def _variables(trainer: Trainer) -> list[keras.Variable]:
    return [variable for metric in trainer.model.metrics for variable in metric.variables]


def _declared(trainer: Trainer) -> list[StateVariable]:
    """Declare the variables of all metrics, under names that do not depend on Keras's name counters."""
    keys = {id(metric): key for key, metric in trainer.metrics_by_key.items()}
    found: list[tuple[str, keras.Variable]] = []
    for each in trainer.model.metrics:
        parts = each.metrics if isinstance(each, compile_utils.CompileMetrics) else [each]
        for metric in parts:
            owner = keys.get(id(metric), metric.name)
            found += [(f"{STATE}{owner}/{variable.name}", variable) for variable in metric.variables]
    names = distinct([name for name, _ in found])
    return [
        StateVariable(variable, name, f"{name}/next")
        for name, (_, variable) in zip(names, found, strict=True)
    ]


def _results(
    trainer: Trainer, states: Sequence[StateVariable], opset: int
) -> tuple[ir.Model, list[ReportedMetric]]:
    g = Lowering(opset, HANDLERS, State(states))
    g.graph.inputs.extend(g.state.inputs)
    metrics = trainer.metrics_by_key
    with intercept(g):
        for metric in metrics.values():
            if isinstance(metric, keras.Metric):
                _of_metric(trainer, metric, metric.result)
        numbers = _flat(trainer.model.get_metrics_result())
        order = _in_order(trainer.model, numbers)
        if trainer.lossless:
            order.remove("loss")
        for key in order:
            number = numbers[key]
            value = number.value if isinstance(number, Symbol) else g.to_value(number)
            value = g.copy(g.cast(value, ir.DataType.FLOAT))
            value.name = key
            g.graph.outputs.append(value)
    reported = [ReportedMetric(key, metrics.get(key)) for key in order]
    return ir.Model(g.graph, ir_version=10, producer_name="kerve"), reported


def _flat(numbers: dict[str, Any]) -> dict[str, Any]:
    """Flatten the dictionaries of metrics that report several numbers."""
    flat: dict[str, Any] = {}
    for key, value in numbers.items():
        flat |= _flat(value) if isinstance(value, dict) else {key: value}
    return flat


def _in_order(model: keras.Model, numbers: dict[str, Any]) -> list[str]:
    ordered = model._flatten_metrics_in_order({key: key for key in numbers})
    return [ordered] if isinstance(ordered, str) else list(dict.fromkeys(ordered))


def _drop_unused(model: ir.Model, keep: str) -> None:
    """Remove unused nodes and inputs, except inputs for state."""
    common.NameFixPass()(model)
    common.RemoveUnusedNodesPass()(model)
    for value in list(model.graph.inputs):
        if not value.uses() and not str(value.name).startswith(keep):
            model.graph.inputs.remove(value)


def _take_wide(results: ir.Model, accumulated: Sequence[StateAccumulator]) -> None:
    """Change the inputs of the results to the types of the accumulated sums."""
    inputs = {str(value.name): value for value in results.graph.inputs}
    for each in accumulated:
        value = inputs[each.name]
        if value.dtype == each.dtype:
            continue
        narrow = value.dtype
        assert narrow is not None
        cast = ir.node("Cast", [value], attributes={"to": ir.AttrInt64("to", int(narrow))})
        cast.outputs[0].type, cast.outputs[0].shape = ir.TensorType(narrow), value.shape
        uses = list(value.uses())
        value.type = ir.TensorType(each.dtype)
        first = next(iter(results.graph), None)
        if first is None:
            results.graph.append(cast)
        else:
            results.graph.insert_before(first, cast)
        for use in uses:
            if use.node is not cast:
                use.node.replace_input_with(use.idx, cast.outputs[0])

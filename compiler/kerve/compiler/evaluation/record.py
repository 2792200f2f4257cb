"""The description of an evaluation in the manifest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
import numpy as np
import onnx_ir as ir

from kerve.artifact.v1.manifest_pb2 import Evaluation, StateSpec
from kerve.compiler import packaging
from kerve.compiler.evaluation.graphs import (
    INPUTS,
    LABELS,
    LOGITS,
    PREDICTIONS,
    WEIGHTS,
    Graphs,
    ReportedMetric,
)
from kerve.compiler.evaluation.logits import Logits
from kerve.compiler.evaluation.proof import ATOL, BATCH_SIZE, RTOL, Proof
from kerve.compiler.evaluation.targets import Target

__all__ = ["RESULTS_FILE", "UPDATE_FILE", "recorded"]

UPDATE_FILE = "evaluate.onnx"
RESULTS_FILE = "results.onnx"

_DIRECTIONS = {"up": Evaluation.HIGHER_IS_BETTER, "down": Evaluation.LOWER_IS_BETTER}


def recorded(graphs: Graphs, proof: Proof, inputs: Sequence[str], logits: Mapping[str, Logits]) -> Evaluation:
    """Describe the graphs and the checks of their proof."""
    taken = {str(value.name): value for value in graphs.update.graph.inputs}
    reported = {str(value.name): value for value in graphs.results.graph.outputs}
    return Evaluation(
        update=UPDATE_FILE,
        results=RESULTS_FILE,
        targets=[
            _target(each, taken, logits) for each in graphs.targets if f"{LABELS}{each.output}" in taken
        ],
        state=[_state(graphs, index) for index in range(len(graphs.state))],
        metrics=[_metric(each, reported, graphs.targets) for each in graphs.reported],
        inputs={f"{INPUTS}{name}": name for name in inputs if f"{INPUTS}{name}" in taken},
        batch_dependent=proof.batch_dependent,
        checks=[
            Evaluation.Check(
                data=each.data,
                rows=each.rows,
                batch_size=BATCH_SIZE,
                weighted=each.weighted,
                metric=each.metric,
                rtol=RTOL,
                atol=ATOL,
                max_abs_error=float(f"{each.max_abs_error:.3g}"),
                max_rel_error=float(f"{each.max_rel_error:.3g}"),
            )
            for each in proof.checks
        ],
    )


def _target(target: Target, taken: dict[str, ir.Value], logits: Mapping[str, Logits]) -> Evaluation.Target:
    labels, weights = taken[f"{LABELS}{target.output}"], taken.get(f"{WEIGHTS}{target.output}")
    inner = f"{LOGITS}{target.output}"
    predictions = f"{PREDICTIONS}{target.output}"
    return Evaluation.Target(
        output=target.output,
        predictions_input=predictions if predictions in taken else "",
        logits_input=inner if inner in taken else "",
        logits=logits[target.output].value if inner in taken else "",
        labels_input=str(labels.name),
        weights_input="" if weights is None else str(weights.name),
        labels=packaging.tensor_spec(labels),
        weights=None if weights is None else packaging.tensor_spec(weights),
        classes=target.classes,
        ignored_class=target.ignored_class,
    )


def _state(graphs: Graphs, index: int) -> StateSpec:
    state, how = graphs.state[index], graphs.accumulated[index]
    value = next(each for each in graphs.update.graph.inputs if each.name == state.input)
    initial = np.ascontiguousarray(graphs.initial[index])
    return StateSpec(
        input=state.input,
        output=state.output,
        spec=packaging.tensor_spec(value),
        initial=initial.tobytes() if initial.any() else b"",
        merge=how.merge,
    )


def _metric(
    reported: ReportedMetric, results: dict[str, ir.Value], targets: Sequence[Target]
) -> Evaluation.Metric:
    metric = reported.metric
    return Evaluation.Metric(
        name=reported.key,
        kind="" if metric is None else type(metric).__name__,
        output=_output(reported, targets),
        result=packaging.tensor_spec(results[reported.key]),
        direction=_direction(reported),
    )


def _output(reported: ReportedMetric, targets: Sequence[Target]) -> str:
    if len(targets) == 1:
        return "" if reported.metric is None else targets[0].output
    matches = [each.output for each in targets if reported.key.startswith(f"{each.output}_")]
    return max(matches, key=len, default="")


def _direction(reported: ReportedMetric) -> Evaluation.Direction.ValueType:
    if reported.key == "loss" or reported.key.endswith("_loss"):
        return Evaluation.LOWER_IS_BETTER
    direction = (
        getattr(reported.metric, "_direction", None) if isinstance(reported.metric, keras.Metric) else None
    )
    return _DIRECTIONS.get(str(direction), Evaluation.DIRECTION_UNSPECIFIED)

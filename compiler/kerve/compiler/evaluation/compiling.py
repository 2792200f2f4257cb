"""Compilation of a model's objective to two files and their description in the manifest."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import onnx_ir as ir
from numpy.typing import NDArray

from kerve.artifact.v1 import manifest_pb2
from kerve.compiler import packaging
from kerve.compiler.errors import ConversionError
from kerve.compiler.evaluation import graphs as graphs_module
from kerve.compiler.evaluation import proof as proofs
from kerve.compiler.evaluation.graphs import Graphs, MetricError
from kerve.compiler.evaluation.logits import Logits, find_logits
from kerve.compiler.evaluation.objective import Objective, Trainer, compiled_for_evaluation
from kerve.compiler.evaluation.record import RESULTS_FILE, UPDATE_FILE, recorded
from kerve.compiler.evaluation.targets import Target, candidate_targets
from kerve.compiler.lowering import Lowered
from kerve.compiler.sources.base import KerasSource
from kerve.compiler.verification import Dataset, more_rows, output_traits
from kerve.compiler.verification.reference_runs import first_error_line

__all__ = ["CompiledEvaluation", "EvaluationContext", "compile_evaluation"]

_LOG = logging.getLogger(__name__)

#: Errors of custom code that uses a symbol as an array, and advice for them.
_OF_PYTHON = (AttributeError, NotImplementedError, TypeError)
_ADVICE = "a server can only compute losses and metrics that are written with keras.ops"

#: The most rows of the user's data used in the proof.
_MOST_USER_ROWS = 1024


@dataclass(frozen=True)
class EvaluationContext:
    """A compiled model, for compiling its evaluation."""

    source: KerasSource
    lowered: Lowered
    #: The graph in the artifact.
    model: ir.Model
    #: A data set on which the model was verified, with sizes that the source accepts.
    like: Dataset
    #: The user's inputs and labels (by output), if given.
    user: tuple[Dataset, Mapping[str, NDArray[Any]]] | None


@dataclass(frozen=True)
class CompiledEvaluation:
    """The evaluation's entry in the manifest, if there is one, and warnings on what was left out."""

    record: manifest_pb2.Evaluation | None
    warnings: tuple[str, ...]


def compile_evaluation(context: EvaluationContext, objective: Objective, folder: Path) -> CompiledEvaluation:
    """Write `evaluate.onnx` and `results.onnx` to a folder, proven equal to `model.evaluate()`.

    Parts that cannot be expressed or proven are left out with a warning: a metric, the sample weights, or
    everything.
    """
    why = _impossible(context)
    if not why:
        try:
            return _compiled(context, objective, folder)
        except Exception as error:  # noqa: BLE001  # custom losses and metrics may raise anything
            why = _one_line(error)
    return CompiledEvaluation(None, (f"the model cannot be evaluated by the server: {why}",))


def _compiled(context: EvaluationContext, objective: Objective, folder: Path) -> CompiledEvaluation:
    """Try the possible forms of the labels; if none can be proven, raises the error of the likeliest."""
    outputs = list(context.model.graph.outputs)[: len(keras.tree.flatten(context.lowered.outputs))]
    labels = {} if context.user is None else context.user[1]
    results: list[Any] = []
    seeded = more_rows(context.model, context.like, proofs.ROWS)
    data = [proofs.predict(context.source.model, context.lowered, seeded, results)]
    if context.user is not None and labels:
        data.append(proofs.predict(context.source.model, context.lowered, _few(context.user[0])))
    attempts = _Attempts(context, objective, find_logits(outputs, results), data, folder)
    first: Exception | None = None
    for targets in candidate_targets(outputs, objective, labels):
        for weighted in (True, False):
            try:
                return attempts.attempt(targets, weighted=weighted, because=first)
            except Exception as error:  # noqa: BLE001  # custom losses and metrics may raise anything
                _LOG.debug("evaluation with %s", targets, exc_info=True)
                likelier = isinstance(error, ConversionError) and not isinstance(first, ConversionError)
                first = error if first is None or likelier else first
    assert first is not None
    raise first


def _impossible(context: EvaluationContext) -> str:
    model = context.source.model
    if context.lowered.state:
        names = ", ".join(each.input for each in context.lowered.state)
        return f"it carries state from one call to the next ({names})"
    if type(model).test_step is not keras.Model.test_step or type(model).evaluate is not keras.Model.evaluate:
        return f"{type(model).__name__} defines its own test_step or evaluate"
    if all(basis.drawn for basis in output_traits(context.model).values()):
        return "its outputs are random, and so would be the loss and the metrics"
    if "batch" not in context.like.sizes:
        return "its batch size is fixed"
    return ""


@dataclass(frozen=True)
class _Attempts:
    """What all guesses of the label forms share."""

    context: EvaluationContext
    objective: Objective
    logits: Mapping[str, Logits]
    data: Sequence[proofs.Predicted]
    folder: Path

    def attempt(
        self, targets: Sequence[Target], *, weighted: bool, because: Exception | None
    ) -> CompiledEvaluation:
        """Compile and prove for one guess, without the metrics that fail."""
        refused: set[int] = set()
        warnings: list[str] = []
        while True:
            with compiled_for_evaluation(self.context.source.model, self.objective, refused) as trainer:
                try:
                    graphs, proof = self._proven(trainer, targets, weighted=weighted)
                except MetricError as error:
                    if error.position in refused:
                        raise
                    refused.add(error.position)
                    warnings.append(f"evaluation: {_one_line(error)}")
                    continue
                if not graphs.reported:
                    return CompiledEvaluation(None, tuple(warnings))
                if not weighted:
                    warnings.append(f"evaluation: sample weights cannot be used: {_one_line(because)}")
                return CompiledEvaluation(
                    recorded(graphs, proof, keras.tree.flatten(self.context.lowered.inputs), self.logits),
                    (*warnings, *self._new_warnings((*graphs.warnings, *proof.warnings))),
                )

    def _new_warnings(self, warnings: Iterable[str]) -> list[str]:
        """Filter out warnings already given for the model, parts of which may be in `evaluate.onnx` too."""
        return [f"evaluation: {each}" for each in warnings if each not in self.context.lowered.warnings]

    def _proven(
        self, trainer: Trainer, targets: Sequence[Target], *, weighted: bool
    ) -> tuple[Graphs, proofs.Proof]:
        lowered = self.context.lowered
        graphs = graphs_module.lower(
            trainer,
            lowered,
            targets,
            self.logits,
            opset=self.context.model.opset_imports[""],
            weighted=weighted,
        )
        sets = [proofs.label(each, targets, graphs, self._labels_of(each)) for each in self.data]
        with tempfile.TemporaryDirectory(dir=self.folder) as staging:
            written = Path(staging)
            update = packaging.save_model(graphs.update, written, UPDATE_FILE)
            results = packaging.save_model(graphs.results, written, RESULTS_FILE)
            evaluator = proofs.Evaluator(update, results, graphs)
            try:
                proof = proofs.prove(trainer, evaluator, lowered, sets, graphs, weighted=weighted)
            except proofs.DifferentError as error:
                raise _blamed(trainer, error) from error
            for file in sorted(written.iterdir()):
                file.replace(self.folder / file.name)
        return graphs, proof

    def _labels_of(self, predicted: proofs.Predicted) -> Mapping[str, NDArray[Any]]:
        if predicted.dataset.origin != "user" or self.context.user is None:
            return {}
        return {name: array[:_MOST_USER_ROWS] for name, array in self.context.user[1].items()}


def _few(dataset: Dataset) -> Dataset:
    inputs = {name: array[:_MOST_USER_ROWS] for name, array in dataset.inputs.items()}
    return Dataset(dataset.origin, inputs, dataset.sizes)


def _blamed(trainer: Trainer, error: proofs.DifferentError) -> Exception:
    """Return the error of the metric that computes a differing number; the loss has none."""
    metric = trainer.metrics_by_key.get(error.key)
    position = next((i for i, each in enumerate(trainer.made) if each is metric), None)
    return error if metric is None or position is None else MetricError(position, metric.name, error)


def _one_line(error: Exception | None) -> str:
    text = first_error_line(error)
    cause = error.__cause__ if isinstance(error, MetricError) else error
    symbolic = isinstance(cause, _OF_PYTHON) or "KerasTensor" in text
    return f"{text} ({_ADVICE})" if symbolic else text

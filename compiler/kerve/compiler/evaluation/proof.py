"""Proof that the graphs report the same as `model.evaluate()`, on the same rows."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from kerve.compiler.errors import CompileError
from kerve.compiler.evaluation.graphs import INPUTS, LABELS, LOGITS, PREDICTIONS, WEIGHTS, Graphs
from kerve.compiler.evaluation.objective import Trainer
from kerve.compiler.evaluation.targets import Target
from kerve.compiler.lowering import Lowered, signature
from kerve.compiler.lowering.initializers import as_answer
from kerve.compiler.verification import Dataset
from kerve.compiler.verification.runner import Runner

__all__ = [
    "ATOL",
    "BATCH_SIZE",
    "ROWS",
    "RTOL",
    "Check",
    "DifferentError",
    "Evaluator",
    "Predicted",
    "Proof",
    "Rows",
    "label",
    "predict",
    "prove",
]

#: Three steps of Keras, the last one smaller.
ROWS, BATCH_SIZE = 23, 9
RTOL, ATOL = 1e-5, 1e-6

#: Other groupings of the rows; numbers that change with them are batch-dependent.
_GROUPS = ((ROWS,), (1, 5, 17), (13, 10))
_SEED = 20_260_102

Arrays = Mapping[str, NDArray[Any]]


class DifferentError(CompileError):
    """A number differs from that of Keras."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


@dataclass(frozen=True)
class Rows:
    """Rows to evaluate on: inputs, by name, and predictions, labels and weights, by output."""

    origin: str
    inputs: Arrays
    predictions: Arrays
    logits: Arrays
    labels: Arrays
    weights: Arrays

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(next(iter(self.predictions.values())))


@dataclass(frozen=True)
class Check:
    """One number compared."""

    data: str
    rows: int
    weighted: bool
    metric: str
    max_abs_error: float
    max_rel_error: float


@dataclass(frozen=True)
class Proof:
    """The comparisons and their findings."""

    checks: tuple[Check, ...]
    batch_dependent: bool
    warnings: tuple[str, ...]


Numbers = dict[str, NDArray[Any]]


class Evaluator:
    """The two graphs as a server runs them."""

    def __init__(self, update: Path, results: Path, graphs: Graphs) -> None:
        self._update, self._results = Runner(update), Runner(results)
        self._names = [(each.input, each.output) for each in graphs.state]
        self._initial = {
            each.input: initial for each, initial in zip(graphs.state, graphs.initial, strict=True)
        }

    def __call__(self, rows: Rows, groups: Sequence[int], weights: Arrays | None) -> Numbers:
        """Update with the rows in groups of these sizes, and return the numbers."""
        state, begin = dict(self._initial), 0
        for size in groups:
            feeds = {name: array[begin : begin + size] for name, array in _feeds(rows, weights).items()}
            after = self._update({**feeds, **state})
            state = {before: after[name] for before, name in self._names}
            begin += size
        return self._results(state)


def prove(
    trainer: Trainer,
    evaluator: Evaluator,
    lowered: Lowered,
    sets: Sequence[Rows],
    graphs: Graphs,
    *,
    weighted: bool,
) -> Proof:
    """Compare with Keras; raises `DifferentError`, naming a number that differs."""
    checks: list[Check] = []
    dependent = graphs.masked  # regardless of these rows, in which nothing may be masked
    numbers: dict[str, bool] = {}
    for rows in sets:
        for weights in _weightings(rows) if weighted else (None,):
            wanted = _keras(trainer, lowered, rows, weights)
            ours = evaluator(rows, _steps(rows.count), weights)
            checks += _compared(ours, wanted, rows, weighted=weights is not None)
            for key, number in ours.items():
                numbers[key] = numbers.get(key, False) or not np.isnan(number).all()
            dependent = dependent or any(
                not _equal(other[key], ours[key])
                for groups in _GROUPS
                if sum(groups) == rows.count
                for other in [evaluator(rows, groups, weights)]
                for key in ours
            )
    warnings = tuple(
        f"{key} is NaN on all rows that were tried, in Keras too, so it could not be verified; "
        "give rows with labels (--data)"
        for key, known in numbers.items()
        if not known
    )
    return Proof(tuple(checks), dependent, warnings)


def _weightings(rows: Rows) -> Iterator[Arrays | None]:
    """Yield the weights to compare with: none, one for each value, and one for each row.

    The last is not a case of the second: Keras may divide by the sum of the weights as given.
    """
    yield None
    yield rows.weights
    if any(array.ndim > 1 for array in rows.weights.values()):
        yield {
            name: array.reshape(len(array), -1)[:, :1].reshape(len(array), *[1] * (array.ndim - 1))
            for name, array in rows.weights.items()
        }


@dataclass(frozen=True)
class Predicted:
    """Inputs and the source's predictions and logits, by output."""

    dataset: Dataset
    predictions: Arrays
    logits: Arrays


def predict(
    model: keras.Model, lowered: Lowered, dataset: Dataset, seen: list[Any] | None = None
) -> Predicted:
    """Compute the predictions and logits with Keras; its result tensors are appended to `seen`."""
    arguments = keras.tree.map_structure(lambda name: _tensor(dataset.inputs[name]), lowered.inputs)
    results = keras.tree.flatten(signature.call(model, arguments))
    if seen is not None:
        seen += results
    predictions, logits = {}, {}
    for name, result in zip(keras.tree.flatten(lowered.outputs), results, strict=True):
        predictions[name] = as_answer(result)
        kept = getattr(result, "_keras_logits", None)
        with np.errstate(divide="ignore", invalid="ignore"):
            logits[name] = _restored(predictions[name]) if kept is None else as_answer(kept)
    return Predicted(dataset, predictions, logits)


def _restored(prediction: NDArray[Any]) -> NDArray[Any]:
    """Return logits for predictions for which Keras has none; those of a softmax are up to a constant."""
    if prediction.dtype.kind != "f":
        return prediction
    rest = np.maximum(1 - prediction, 1e-30) if prediction.shape[-1:] == (1,) else np.float32(1)
    logits: NDArray[Any] = np.log(np.maximum(prediction, 1e-30)) - np.log(rest)
    return logits.astype(prediction.dtype)


def label(
    predicted: Predicted,
    targets: Sequence[Target],
    graphs: Graphs,
    given: Arrays | None = None,
) -> Rows:
    """Add weights and labels to rows: the user's, or random ones of which half match the predictions."""
    rng, predictions = np.random.default_rng(_SEED), predicted.predictions
    labels = {
        each.output: _user_labels(given[each.output], each)
        if given and each.output in given
        else _labels(rng, predictions[each.output], each)
        for each in targets
    }
    inputs = {str(value.name): value for value in graphs.update.graph.inputs}
    weights = {}
    for each in targets:
        value = inputs.get(f"{WEIGHTS}{each.output}")
        taken = predictions[each.output].shape
        sizes = [None] if value is None or value.shape is None else list(value.shape)
        shape = [size if isinstance(size, int) else taken[axis] for axis, size in enumerate(sizes)]
        weights[each.output] = np.round(rng.uniform(0, 2, shape), 1).astype(np.float32) * (
            rng.random(shape) < 0.8
        ).astype(np.float32)
    return Rows(
        predicted.dataset.origin, predicted.dataset.inputs, predictions, predicted.logits, labels, weights
    )


def _labels(rng: np.random.Generator, prediction: NDArray[Any], target: Target) -> NDArray[Any]:
    values = prediction.astype(np.float32)
    if target.sparse:
        kept = rng.random(values.shape[:-1]) < 0.5
        drawn = rng.integers(0, values.shape[-1], values.shape[:-1])
        return np.where(kept, values.argmax(-1), drawn).astype(np.int64)
    if values.size and values.min() >= 0 and values.max() <= 1:
        if values.ndim > 1 and values.shape[-1] > 1 and np.allclose(values.sum(-1), 1, atol=1e-3):
            chosen = np.where(
                rng.random(values.shape[:-1]) < 0.5,
                values.argmax(-1),
                rng.integers(0, values.shape[-1], values.shape[:-1]),
            )
            return np.eye(values.shape[-1], dtype=np.float32)[chosen]
        return (rng.random(values.shape) < 0.5).astype(np.float32)
    # Scaled with large values: errors of a half would be lost to rounding in values of a million.
    size = max(1.0, float(np.abs(values[np.isfinite(values)]).max(initial=0.0)))
    return (values + rng.normal(0, 0.5 * size, values.shape)).astype(np.float32)


def _user_labels(array: NDArray[Any], target: Target) -> NDArray[Any]:
    squeezed = array[..., 0] if array.ndim == len(target.labels_shape) + 1 else array
    expanded = squeezed[..., None] if squeezed.ndim == len(target.labels_shape) - 1 else squeezed
    return expanded.astype(target.labels_dtype.numpy())


def _feeds(rows: Rows, weights: Arrays | None) -> dict[str, NDArray[Any]]:
    feeds = {f"{INPUTS}{name}": array for name, array in rows.inputs.items()}
    feeds |= {f"{PREDICTIONS}{name}": array for name, array in rows.predictions.items()}
    feeds |= {f"{LOGITS}{name}": array for name, array in rows.logits.items()}
    feeds |= {f"{LABELS}{name}": array for name, array in rows.labels.items()}
    for name, array in rows.weights.items():
        given = np.float32(1) if weights is None else weights[name]
        feeds[f"{WEIGHTS}{name}"] = np.broadcast_to(given, array.shape)
    return feeds


def _steps(count: int) -> list[int]:
    return [min(BATCH_SIZE, count - begin) for begin in range(0, count, BATCH_SIZE)]


def _keras(trainer: Trainer, lowered: Lowered, rows: Rows, weights: Arrays | None) -> Numbers:
    """Return the numbers of Keras's `evaluate`."""
    arguments, _ = keras.tree.map_structure(lambda name: _tensor(rows.inputs[name]), lowered.inputs)
    x = arguments[0] if len(arguments) == 1 else arguments
    y, sample_weight = (
        source and keras.tree.map_structure(lambda name, source=source: source[name], lowered.outputs)
        for source in (rows.labels, weights)
    )
    trainer.model.test_function = None
    with _without_advice():
        numbers = trainer.model.evaluate(
            x,
            y,
            sample_weight=sample_weight,
            batch_size=BATCH_SIZE,
            verbose=0,
            return_dict=True,
        )
    return {key: np.asarray(value, np.float32) for key, value in numbers.items()}


@contextmanager
def _without_advice() -> Iterator[None]:
    """Suppress TensorFlow's warnings on retracing functions, which are caused here, not by the user."""

    def other(record: logging.LogRecord) -> bool:
        return "tf.function retracing" not in record.getMessage()

    logger = logging.getLogger("tensorflow")
    logger.addFilter(other)
    try:
        yield
    finally:
        logger.removeFilter(other)


def _tensor(array: NDArray[Any]) -> Any:
    return keras.ops.convert_to_tensor(array.astype(str) if array.dtype == object else array)


def _compared(ours: Numbers, wanted: Numbers, rows: Rows, *, weighted: bool) -> Iterator[Check]:
    for key, number in ours.items():
        expected = wanted.get(key)
        if expected is None:
            raise DifferentError(
                key, f"{key} is not among the values that Keras reports: {', '.join(wanted)}"
            )
        if not _equal(number, expected):
            how = "with sample weights" if weighted else "without sample weights"
            raise DifferentError(key, f"{key} is {number} where Keras reports {expected} ({how})")
        error = np.abs(number.astype(float) - expected.astype(float))
        finite = error[np.isfinite(error)]
        scale = np.abs(expected[np.isfinite(error)].astype(float))
        yield Check(
            rows.origin,
            rows.count,
            weighted,
            key,
            float(finite.max(initial=0.0)),
            float((finite / np.maximum(scale, ATOL)).max(initial=0.0)),
        )


def _equal(one: NDArray[Any], other: NDArray[Any]) -> bool:
    return one.shape == other.shape and np.allclose(one, other, rtol=RTOL, atol=ATOL, equal_nan=True)

"""The form of the labels of each output, which Keras learns only from the data."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import onnx_ir as ir
from keras.src.trainers import compile_utils
from numpy.typing import NDArray

from kerve.compiler.evaluation.objective import Objective

__all__ = ["Target", "candidate_targets"]

#: The most guesses tried for models with many outputs.
_MOST_GUESSES = 16


#: Parts of the names of losses and metrics that index the predictions by the labels.
_BOUNDED = (
    "sparsecategorical",
    "sparse_categorical",
    "sparsetopk",
    "generalizedcrossentropy",
    "accuracy",
    "acc",
)


@dataclass(frozen=True)
class Target:
    """One output of the model, and the labels it is compared with."""

    output: str
    dtype: ir.DataType
    #: The shape of the predictions in the graph.
    shape: ir.Shape
    #: Whether a label is a class index, while predictions have a value for each class.
    sparse: bool
    #: Whether labels must be less than the number of classes.
    bounded: bool
    #: The label to ignore, the `ignore_class` of a loss.
    ignored_class: int | None = None

    @property
    def labels_dtype(self) -> ir.DataType:
        """The type of the labels."""
        return ir.DataType.INT64 if self.sparse else ir.DataType.FLOAT

    @property
    def labels_shape(self) -> ir.Shape:
        """The shape of the labels."""
        return ir.Shape(self.shape[:-1]) if self.sparse else ir.Shape(self.shape)

    @property
    def classes(self) -> int:
        """The number of classes of sparse labels; 0 if unknown."""
        last = self.shape[-1] if self.sparse and self.bounded else 0
        return last if isinstance(last, int) else 0


def candidate_targets(
    outputs: Sequence[ir.Value], objective: Objective, labels: Mapping[str, NDArray[Any]]
) -> Iterator[list[Target]]:
    """Yield guesses of the labels' form, the likeliest first; the user's labels determine it."""
    choices = []
    for index, output in enumerate(outputs):
        name = str(output.name)
        assert output.shape is not None
        rank = len(output.shape)
        given = labels.get(name)
        if given is not None:
            fits = given.ndim == rank - 1 or (given.ndim == rank and given.shape[-1] == 1 != output.shape[-1])
            choices.append([fits and rank > 1])
        elif rank < 2 or output.shape[-1] == 1:
            choices.append([False])
        else:
            sparse = "sparse" in _words(objective, name, index, len(outputs))
            losses = keras.tree.flatten(_of_output(objective.loss, name, index, len(outputs)))
            guesses = [sparse, not sparse]
            choices.append([each for each in guesses if _accepts(losses, output, sparse=each)] or guesses)
    for guess in itertools.islice(itertools.product(*choices), _MOST_GUESSES):
        yield [
            _target(output, objective, index, len(outputs), sparse)
            for index, (output, sparse) in enumerate(zip(outputs, guess, strict=True))
        ]


def _accepts(losses: Sequence[Any], output: ir.Value, *, sparse: bool) -> bool:
    """Return whether losses accept labels of this form, tried on a few rows."""
    assert output.shape is not None
    sizes = [size if isinstance(size, int) else 3 + axis for axis, size in enumerate(output.shape)]
    predictions = keras.ops.full(sizes, 0.5)
    labels = keras.ops.zeros(sizes[:-1] if sparse else sizes, "int32" if sparse else "float32")
    try:
        for each in losses:
            loss = compile_utils.get_loss(each, labels, predictions)
            if loss is not None:
                loss(labels, predictions)
    except Exception:  # noqa: BLE001  # custom losses may raise anything
        return False
    return True


def _target(output: ir.Value, objective: Objective, index: int, count: int, sparse: bool) -> Target:
    assert output.dtype is not None
    assert output.shape is not None
    losses = keras.tree.flatten(_of_output(objective.loss, str(output.name), index, count))
    ignored = [_ignored_class(loss) for loss in losses]
    return Target(
        str(output.name),
        output.dtype,
        ir.Shape(output.shape),
        sparse,
        any(word in _words(objective, str(output.name), index, count) for word in _BOUNDED),
        next((each for each in ignored if each is not None), None),
    )


def _ignored_class(loss: Any) -> int | None:
    return getattr(loss, "ignore_class", None)


def _words(objective: Objective, name: str, index: int, count: int) -> str:
    """Return the names of all losses and metrics of an output, in lower case."""
    structures = (objective.loss, objective.metrics, objective.weighted_metrics)
    leaves = [
        leaf for each in structures for leaf in keras.tree.flatten(_of_output(each, name, index, count))
    ]
    return " ".join(_name(leaf) for leaf in leaves).lower()


def _name(leaf: Any) -> str:
    inner = getattr(leaf, "_fn", None) or getattr(leaf, "fn", None)
    own = leaf if isinstance(leaf, str) else getattr(leaf, "__name__", type(leaf).__name__)
    return f"{own} {_name(inner)}" if inner is not None else str(own)


def _of_output(structure: Any, name: str, index: int, count: int) -> Any:
    """Return the part for one output, or everything if the structure does not distinguish outputs."""
    if isinstance(structure, Mapping):
        return structure.get(name)
    if count > 1 and isinstance(structure, list | tuple) and len(structure) == count:
        return structure[index]
    return structure

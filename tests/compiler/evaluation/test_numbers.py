"""The numbers are those of `model.evaluate()`, whatever is measured and however rows are grouped."""

from __future__ import annotations

import inspect
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, losses, metrics
from numpy.typing import NDArray

from kerve.artifact.v1.manifest_pb2 import StateSpec

ROWS = 50
RNG = np.random.default_rng(3)
X = RNG.standard_normal((ROWS, 6)).astype(np.float32)
CLASSES = RNG.integers(0, 5, ROWS)
ONE_HOT = np.eye(5, dtype=np.float32)[CLASSES]
BINARY = RNG.integers(0, 2, (ROWS, 1)).astype(np.float32)
REAL = RNG.standard_normal((ROWS, 3)).astype(np.float32)
WEIGHTS = (RNG.random(ROWS) * (RNG.random(ROWS) < 0.8)).astype(np.float32)


def dense(units: int, activation: str | None = None) -> keras.Model:
    return keras.Sequential(
        [
            layers.Input((6,), name="x"),
            layers.Dense(8, activation="tanh"),
            layers.Dense(units, activation=activation, name="y"),
        ]
    )


def check(
    evaluated: Any, artifact: Any, model: keras.Model, y: NDArray[Any], *, weighted: bool = True
) -> None:
    """Compare with Keras, with and without weights, in its groups and, where that is no matter, others."""
    described = artifact.manifest.evaluation
    for weights in (None, WEIGHTS) if weighted else (None,):
        wanted = model.evaluate(X, y, sample_weight=weights, batch_size=16, verbose=0, return_dict=True)
        assert {each.name for each in described.metrics} == wanted.keys()
        others = [] if described.batch_dependent else [[50], [1, 9, 40]]
        for groups in ([16, 16, 16, 2], *others):
            given = None if weights is None else {"y": weights}
            found = evaluated(artifact, {"x": X}, {"y": y}, groups, given)
            for name, value in wanted.items():
                np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def of_classes() -> list[Any]:
    return [
        metrics.SparseCategoricalAccuracy(name="sparse"),
        "accuracy",
        metrics.SparseCategoricalCrossentropy(),
        metrics.SparseTopKCategoricalAccuracy(2),
        metrics.MeanIoU(5, sparse_y_pred=False),
        metrics.IoU(5, [1, 2], sparse_y_pred=False),
    ]


def of_one_hot() -> list[Any]:
    return [
        metrics.CategoricalAccuracy(name="one_hot"),
        "accuracy",
        metrics.CategoricalCrossentropy(label_smoothing=0.1),
        metrics.TopKCategoricalAccuracy(2),
        metrics.OneHotMeanIoU(5),
        metrics.OneHotIoU(5, [0, 3]),
        metrics.AUC(multi_label=True, num_labels=5),
        metrics.AUC(curve="PR", name="pr"),
        metrics.Precision(top_k=2),
        metrics.Recall(class_id=3),
        metrics.Precision(thresholds=[0.1, 0.2, 0.5], name="thresholds"),
        metrics.F1Score(),
        metrics.FBetaScore(beta=2.0, threshold=0.2, average="macro"),
        metrics.KLDivergence(),
        metrics.CosineSimilarity(),
        metrics.Poisson(),
        metrics.CategoricalHinge(),
        metrics.BinaryCrossentropy(),
    ]


def of_two_classes() -> list[Any]:
    return [
        metrics.Accuracy(name="equal"),
        metrics.BinaryAccuracy(threshold=0.4),
        "accuracy",
        metrics.AUC(),
        metrics.AUC(thresholds=[0.1, 0.4, 0.9], name="three"),
        metrics.Precision(),
        metrics.Recall(),
        metrics.TruePositives(),
        metrics.FalsePositives(),
        metrics.TrueNegatives(),
        metrics.FalseNegatives(thresholds=[0.1, 0.5]),
        metrics.SensitivityAtSpecificity(0.5),
        metrics.SpecificityAtSensitivity(0.5),
        metrics.PrecisionAtRecall(0.5),
        metrics.RecallAtPrecision(0.5),
        metrics.BinaryIoU(),
        metrics.Hinge(),
        metrics.SquaredHinge(),
    ]


def of_numbers() -> list[Any]:
    return [
        "mse",
        "mae",
        "mape",
        "msle",
        metrics.RootMeanSquaredError(),
        metrics.R2Score(class_aggregation=None),
        metrics.LogCoshError(),
        metrics.CosineSimilarity(),
        metrics.PearsonCorrelation(),
        metrics.ConcordanceCorrelation(),
    ]


# Bases, and what takes values where a model's metrics take labels and predictions.
NONE = {metrics.Metric, metrics.Mean, metrics.Sum, metrics.MeanMetricWrapper}


def test_every_metric_of_keras_is_among_them() -> None:
    measured = {
        type(metrics.get(each)) for each in (*of_classes(), *of_one_hot(), *of_two_classes(), *of_numbers())
    }
    assert measured >= {each for each in vars(metrics).values() if inspect.isclass(each)} - NONE


def test_metrics_of_classes_by_their_numbers(compiled: Any, evaluated: Any) -> None:
    model = dense(5, "softmax")
    model.compile(
        loss="sparse_categorical_crossentropy",
        metrics=of_classes(),
        weighted_metrics=["acc", metrics.SparseCategoricalCrossentropy(name="weighed")],
    )
    artifact = compiled(model)
    (target,) = artifact.manifest.evaluation.targets
    assert (target.labels.datatype, target.classes) == ("INT64", 5)
    check(evaluated, artifact, model, CLASSES)


def test_metrics_of_classes_one_hot(compiled: Any, evaluated: Any) -> None:
    model = dense(5, "softmax")
    model.compile(
        loss=losses.CategoricalCrossentropy(label_smoothing=0.1),
        metrics=of_one_hot(),
        weighted_metrics=[metrics.AUC(name="weighed"), metrics.F1Score(average="weighted", name="f1")],
    )
    check(evaluated, compiled(model), model, ONE_HOT)


def test_metrics_of_two_classes(compiled: Any, evaluated: Any) -> None:
    model = dense(1, "sigmoid")
    model.compile(
        loss="binary_crossentropy",
        metrics=of_two_classes(),
        weighted_metrics=[metrics.AUC(name="weighed"), metrics.Precision(name="precise")],
    )
    check(evaluated, compiled(model), model, BINARY)


def test_metrics_of_numbers(compiled: Any, evaluated: Any) -> None:
    model = dense(3)
    model.compile(
        loss=losses.Huber(),
        metrics=of_numbers(),
        weighted_metrics=[metrics.R2Score(name="r2")],
    )
    check(evaluated, compiled(model), model, REAL)


@pytest.mark.parametrize("reduction", ["sum", "mean_with_sample_weight", None])
def test_reductions_that_depend_on_the_batch_are_known_for_it(
    reduction: str | None, compiled: Any, evaluated: Any
) -> None:
    model = dense(3)
    model.compile(loss=losses.MeanSquaredError(reduction=reduction))
    artifact = compiled(model)
    assert artifact.manifest.evaluation.batch_dependent == (reduction is not None)
    check(evaluated, artifact, model, REAL)


def test_a_crossentropy_takes_the_logits_behind_saturated_probabilities(
    compiled: Any, evaluated: Any
) -> None:
    """Keras does: what is certain and wrong costs more than the logarithm of a rounded probability."""
    for units, activation, y, loss in (
        (1, "sigmoid", BINARY, "binary_crossentropy"),
        (5, "softmax", CLASSES, "sparse_categorical_crossentropy"),
    ):
        model = dense(units, activation)
        model.layers[-1].kernel.assign(model.layers[-1].kernel * 60.0)
        model.compile(loss=loss, metrics=["accuracy"])
        artifact = compiled(model)
        assert artifact.manifest.evaluation.targets[0].logits
        check(evaluated, artifact, model, y)


def images(*, axis: Any = None, reduction: str = "sum_over_batch_size") -> keras.Model:
    x = layers.Input((4, 4, 2), name="x")
    model = keras.Model(x, layers.Conv2D(3, 1, activation="sigmoid", name="y")(x))
    model.compile(loss=losses.Dice(axis=axis, reduction=reduction))
    return model


def test_weights_are_of_what_a_loss_makes_of_the_values(compiled: Any, evaluated: Any) -> None:
    """One for each channel of a row, where it is over the pixels; not one for each of the first axes."""
    model = images(axis=(1, 2))
    x = RNG.standard_normal((ROWS, 4, 4, 2)).astype(np.float32)
    y = RNG.integers(0, 2, (ROWS, 4, 4, 3)).astype(np.float32)
    weights = RNG.random((ROWS, 3)).astype(np.float32)
    wanted = model.evaluate(x, y, sample_weight=weights, batch_size=ROWS, verbose=0, return_dict=True)
    found = evaluated(compiled(model), {"x": x}, {"y": y}, [ROWS], {"y": weights})
    np.testing.assert_allclose(found["loss"], wanted["loss"], rtol=1e-5)


def test_weights_of_which_a_loss_tells_rows_from_values_are_not_taken(compiled: Any) -> None:
    """Keras divides by the sum of the weights as it gets them, and a server would spread those of rows."""
    model = images(axis=(1, 2), reduction="mean_with_sample_weight")
    artifact = compiled(model, warns=True)
    assert artifact.manifest.evaluation.metrics
    assert not artifact.manifest.evaluation.targets[0].weights_input
    assert any("sample weights cannot be used: loss is" in each for each in artifact.manifest.warnings)


def test_large_predictions_get_labels_of_their_size(compiled: Any) -> None:
    model = dense(3)
    model.layers[-1].kernel.assign(model.layers[-1].kernel * 1e6)
    model.compile(loss="mse", metrics=["mae", "mape", metrics.R2Score()])
    assert len(compiled(model).manifest.evaluation.metrics) == 4


def test_what_is_never_a_number_is_told(compiled: Any) -> None:
    def logarithm(y_true: Any, y_pred: Any) -> Any:
        return keras.ops.mean(keras.ops.log(-1 - keras.ops.abs(y_true - y_pred)), -1)

    model = dense(3)
    model.compile(loss="mse", metrics=["mae", logarithm])
    artifact = compiled(model, warns=True)
    assert [each.name for each in artifact.manifest.evaluation.metrics] == ["loss", "mae", "logarithm"]
    (told,) = artifact.manifest.warnings
    assert told.startswith("evaluation: logarithm is NaN on all rows that were tried")


def test_functions_of_the_backend_are_taken_in_a_loss(compiled: Any, evaluated: Any) -> None:
    backend = keras._tf_keras.keras.backend

    def loss(y_true: Any, y_pred: Any) -> Any:
        scale = backend.std(y_pred, axis=-1) + backend.cast(1, backend.dtype(y_pred))
        return backend.mean(backend.square(y_pred - y_true), axis=-1) / scale

    model = dense(3)
    model.compile(loss=loss, metrics=[backend.categorical_crossentropy])
    check(evaluated, compiled(model), model, REAL)


class Extremes(keras.metrics.Metric):
    """A maximum, a count, and something that depends on the order."""

    def __init__(self, name: str = "extremes", **kwargs: Any) -> None:
        super().__init__(name=name, **kwargs)
        self.top = self.add_variable((), "zeros", name="top")
        self.count = self.add_variable((), "zeros", dtype="int32", name="count")
        self.recent = self.add_variable((), "zeros", name="recent")

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        error = keras.ops.abs(y_true - y_pred)
        self.top.assign(keras.ops.maximum(self.top, keras.ops.max(error)))
        self.count.assign_add(keras.ops.shape(y_true)[0])
        self.recent.assign(0.5 * self.recent + keras.ops.mean(error))

    def result(self) -> dict[str, Any]:
        return {
            "top": self.top,
            "rows": keras.ops.cast(self.count, "float32"),
            "recent": self.recent,
        }


def test_the_authors_own_metrics_and_losses(compiled: Any, evaluated: Any) -> None:
    def squares(y_true: Any, y_pred: Any) -> Any:
        return keras.ops.square(y_true - y_pred)

    model = dense(3)
    model.compile(loss=squares, metrics=[Extremes(), squares])
    artifact = compiled(model)
    merges = {each.input.rpartition("/")[2]: each.merge for each in artifact.manifest.evaluation.state}
    assert merges["top"] == StateSpec.MAXIMUM
    assert merges["count"] == merges["total"] == StateSpec.SUM
    assert merges["recent"] == StateSpec.MERGE_UNSPECIFIED
    check(evaluated, artifact, model, REAL, weighted=False)


def test_a_metric_that_cannot_be_expressed_is_refused_by_name(compiled: Any, evaluated: Any) -> None:
    def python(y_true: Any, y_pred: Any) -> Any:
        return keras.ops.convert_to_tensor(np.asarray(y_true) - np.asarray(y_pred))

    model = dense(3)
    model.compile(loss="mse", metrics=["mae", python])
    artifact = compiled(model, warns=True)
    assert [each.name for each in artifact.manifest.evaluation.metrics] == ["loss", "mae"]
    (told,) = artifact.manifest.warnings
    assert "'python'" in told
    assert "that are written with keras.ops" in told


def test_the_models_own_metrics_are_left_as_they_are(compiled: Any) -> None:
    model = dense(3)
    model.compile(loss="mse", metrics=[metrics.MeanAbsoluteError(name="mae")])
    model.evaluate(X, REAL, verbose=0)
    before = [np.array(variable) for metric in model.metrics for variable in metric.variables]
    compiled(model)
    after = [np.array(variable) for metric in model.metrics for variable in metric.variables]
    np.testing.assert_array_equal(before, after)

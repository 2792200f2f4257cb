"""The page about an evaluation: what is shown depends on the task, and is what NumPy computes of all rows."""

import re
import tracemalloc
import warnings
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from kerve.runtime.evaluation.client import Evaluated
from kerve.runtime.report import Report
from kerve.runtime.report.classes import Classes
from kerve.runtime.report.curves import Calibration, ScoreCounts
from kerve.runtime.report.regression import Regression
from kerve.runtime.signature import Signature, TensorSpec

RANDOM = np.random.default_rng(5)
ROWS, PART = 3000, 256
RESULT = Evaluated(
    "m<b>",
    "1",
    ROWS,
    1.0,
    3000.0,
    {"loss": 0.5},
    dict.fromkeys(("mean", "p50", "p90", "p99", "max"), 1e-3),
    True,
)


def signature(
    outputs: dict[str, tuple[int | str, ...]], x: tuple[int | str, ...] = ("batch", 3)
) -> Signature:
    specs = tuple(TensorSpec(name, "FP32", shape) for name, shape in outputs.items())
    return Signature((TensorSpec("x", "FP32", x),), specs, True)


def page(of: Signature, x: Any, labels: dict[str, Any], outputs: dict[str, Any]) -> str:
    report = Report(of)
    for begin in range(0, len(x), PART):
        part = slice(begin, begin + PART)
        sent = {"x": x[part], **{name: array[part] for name, array in labels.items()}}
        report.add("1", begin, sent, {name: array[part] for name, array in outputs.items()})
    text = report.html([RESULT])
    HTMLParser().feed(text)
    assert "m&lt;b&gt;" in text
    assert "http" not in text
    assert "<script" not in text
    return text


def titles(text: str) -> list[str]:
    return re.findall("<figcaption>(.*?)</figcaption>", text)[2:]


def cells(text: str) -> list[str]:
    return re.findall(r"class=(?:right|wrong) style=\S+>([\d,]+)<", text)


def first_worst(text: str) -> list[str]:
    return re.findall("<td>(.*?)</td>", text[text.index("Worst rows") :])[:5]


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("logits", [False, True])
@pytest.mark.parametrize("one_hot", [False, True])
def test_classes(logits: bool, one_hot: bool) -> None:
    scores = RANDOM.normal(size=(ROWS, 10)) * 2
    labels = np.where(RANDOM.random(ROWS) < 0.6, scores.argmax(axis=1), RANDOM.integers(0, 10, ROWS))
    x = RANDOM.random((ROWS, 8, 8, 1))
    text = page(
        signature({"y": ("batch", 10)}, ("batch", 8, 8, 1)),
        x,
        {"y": np.eye(10)[labels] if one_hot else labels[:, None]},
        {"y": (scores if logits else softmax(scores)).astype(np.float32)},
    )
    assert titles(text) == ["Confusion matrix", "By class", "ROC", "Precision and recall", "Calibration"]
    confusion = np.zeros((10, 10), int)
    np.add.at(confusion, (labels, scores.argmax(axis=1)), 1)
    assert cells(text) == [f"{count:,}" for count in confusion.ravel()]
    given = softmax(scores)[np.arange(ROWS), labels]
    row, loss, *_, shown = first_worst(text)
    assert int(row) == given.argmin()
    assert float(loss) == pytest.approx(-np.log(given.min()), rel=1e-3)
    assert 'src="data:image/png;base64,' in shown


@pytest.mark.parametrize("logits", [False, True])
def test_yes_or_no(logits: bool) -> None:
    labels = RANDOM.integers(0, 2, ROWS)
    scores = RANDOM.normal(size=ROWS) + labels
    given = 1 / (1 + np.exp(-scores))
    outputs = {"y": (scores if logits else given)[:, None]}
    text = page(signature({"y": ("batch", 1)}), np.zeros((ROWS, 3)), {"y": labels}, outputs)
    assert titles(text) == ["Confusion matrix", "ROC", "Precision and recall", "Calibration"]
    chosen = given > 0.5
    assert cells(text) == [f"{((labels == a) & (chosen == b)).sum():,}" for a in (0, 1) for b in (0, 1)]
    pairs = scores[labels == 1][:, None] - scores[labels == 0][None]
    area = float(re.findall("AUC ([0-9.]+)", text)[0])
    assert area == pytest.approx(((pairs > 0) + (pairs == 0) / 2).mean(), abs=1e-3)


def test_numbers() -> None:
    labels = RANDOM.normal(size=(ROWS, 2)) * 50
    answers = labels + RANDOM.normal(size=(ROWS, 2)) * np.geomspace(0.01, 30, ROWS)[:, None]
    text = page(signature({"y": ("batch", 2)}), np.zeros((ROWS, 3)), {"y": labels}, {"y": answers})
    assert titles(text) == ["Errors", "Error statistics"]
    errors = answers - labels
    assert f"{np.abs(errors).mean():.4g}" in text
    assert f"{(errors**2).mean() ** 0.5:.4g}" in text
    assert int(first_worst(text)[0]) == (errors**2).mean(axis=1).argmax()


def test_each_output_is_shown_as_what_it_is() -> None:
    labels = {"a": RANDOM.normal(size=ROWS), "b": RANDOM.integers(0, 3, ROWS)}
    outputs = {"a": np.zeros((ROWS, 1)), "b": softmax(RANDOM.normal(size=(ROWS, 3)))}
    text = page(signature({"a": ("batch", 1), "b": ("batch", 3)}), np.zeros((ROWS, 3)), labels, outputs)
    assert titles(text)[:3] == ["Errors", "Error statistics", "Confusion matrix"]
    assert "Output a" in text
    assert "Output b" in text


def test_counts_that_begin_with_0_and_1_are_numbers() -> None:
    labels = np.minimum(np.arange(ROWS) // 400, 5)
    text = page(
        signature({"y": ("batch", 1)}),
        np.zeros((ROWS, 3)),
        {"y": labels},
        {"y": labels[:, None] / 1},
    )
    assert titles(text) == ["Errors", "Error statistics"]


def test_many_classes_are_told_by_their_confusions() -> None:
    labels = RANDOM.integers(0, 100, ROWS)
    wrong = np.where(labels == 7, 8, labels)
    outputs = {"y": np.eye(100)[wrong]}
    text = page(signature({"y": ("batch", 100)}), np.zeros((ROWS, 3)), {"y": labels}, outputs)
    assert titles(text)[0] == "Most frequent confusions"
    assert f"<th scope=row>7</th><td>8</td><td>{(labels == 7).sum()}</td>" in text


def test_errors_are_counted_once_however_far_the_bins_widen() -> None:
    task, errors = Regression(), np.geomspace(1e-6, 1e6, 1000)
    for error in errors:
        task.add(np.array([[error]]), np.zeros((1, 1)))
    assert task._counts.sum() == 1000
    assert task._counts[:32].sum() == 0
    assert task._reach >= 1e6


def test_calibration_is_the_share_that_was_right() -> None:
    calibration = Calibration()
    confidence, right = RANDOM.random(ROWS), RANDOM.random(ROWS) < 0.7
    for part in np.array_split(np.arange(ROWS), 7):
        calibration.add(confidence[part], right[part].astype(float))
    bins = (confidence * 10).astype(int)
    expected = [right[bins == each].mean() for each in range(10)]
    np.testing.assert_allclose(calibration.points()[1], expected)


def test_average_precision_is_that_of_the_ranking() -> None:
    scores, truth = RANDOM.integers(0, 1000, ROWS) / 1000, RANDOM.random(ROWS) < 0.3
    counts = ScoreCounts()
    counts.add(scores[:, None], truth[:, None])
    found = 0.0
    for threshold in np.unique(scores[truth]):
        chosen = scores >= threshold
        found += truth[chosen].mean() * (truth & (scores == threshold)).sum() / truth.sum()
    assert counts.curve(0).average_precision() == pytest.approx(found)


@pytest.mark.parametrize("logits", [False, True])
def test_predictions_that_are_no_numbers_are_among_the_worst(logits: bool) -> None:
    scores, labels = RANDOM.normal(size=(ROWS, 3)), RANDOM.integers(0, 3, ROWS)
    outputs = {
        "a": scores if logits else softmax(scores),
        "b": (scores if logits else softmax(scores))[:, :1],
    }
    for output in outputs.values():
        output[77] = np.nan
        output[78] = np.inf
    of = signature({"a": ("batch", 3), "b": ("batch", 1)})
    with warnings.catch_warnings(action="error"):
        text = page(of, np.zeros((ROWS, 3)), {"a": labels, "b": labels > 0}, outputs)
    assert "<td>77</td>" in text


def test_a_first_row_that_is_no_number_does_not_say_what_scores_are() -> None:
    task, labels = Classes(), np.zeros(2, int)
    for first in (np.full((2, 3), np.nan), np.array([[np.nan] * 3, [0.9, 0.1, 0.0]])):
        task.add(first, labels)
        assert task.say(np.array([0.9, 0.1, 0.0])) == "0 (0.9)"


def test_what_is_kept_grows_with_the_classes_and_not_with_their_square() -> None:
    classes, rows = 20_000, 16
    scores, labels = softmax(RANDOM.random((rows, classes))), RANDOM.integers(0, classes, rows)
    tracemalloc.start()
    try:
        text = page(signature({"y": ("batch", classes)}), np.zeros((rows, 3)), {"y": labels}, {"y": scores})
        assert tracemalloc.get_traced_memory()[1] < 50 * scores.nbytes  # a matrix takes 1250 times that
    finally:
        tracemalloc.stop()
    assert f"<th scope=row>{labels[0]}</th><td>{scores[0].argmax()}</td><td>1</td>" in text

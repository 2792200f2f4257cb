"""What tells two versions apart."""

import numpy as np
import pytest

from kerve.artifact.v1.manifest_pb2 import Evaluation
from kerve.runtime import InvalidArgumentError
from kerve.runtime.evaluation.comparison import Comparison, Scores, scores


@pytest.mark.parametrize("classes", [3, 0])  # 0: the loss is the author's, and nothing says how many
def test_agreement_rows_and_intervals_of_classes(classes: int) -> None:
    target = Evaluation.Target(output="y", classes=classes, ignored_class=-1)
    labels = np.array([0, 1, 2, 2, -1])
    ours, theirs = np.eye(3)[[0, 1, 2, 1, 0]], np.eye(3)[[0, 1, 0, 2, 0]]
    comparison = Comparison()
    for part in (slice(0, 2), slice(2, 5)):
        comparison.add(
            {"y": scores(target, ours[part], labels[part])}, {"y": scores(target, theirs[part], labels[part])}
        )
    assert comparison.agreement == {"y": pytest.approx(3 / 5)}
    assert comparison.disagreeing == [2, 3]
    (interval,) = comparison.intervals()
    differences = np.array([0, 0, 1, -1, 0])
    assert (interval.metric, interval.difference) == ("accuracy", 0)
    assert interval.high == pytest.approx(1.959964 * differences.std(ddof=1) / np.sqrt(5))
    assert interval.low == -interval.high


def test_numbers_are_compared_by_their_squared_errors() -> None:
    target = Evaluation.Target(output="y")
    labels = np.zeros((3, 2))
    comparison = Comparison()
    comparison.add(
        {"y": scores(target, np.full((3, 2), 2.0), labels)}, {"y": scores(target, np.ones((3, 2)), labels)}
    )
    (interval,) = comparison.intervals()
    assert (interval.metric, interval.difference, interval.low) == ("mean_squared_error", 3, 3)
    assert comparison.agreement == {}


def scored(*outputs: str, metric: str = "accuracy") -> dict[str, Scores]:
    return {output: Scores(None, metric, np.ones(2)) for output in outputs}


def test_the_only_output_is_compared_with_the_only_one_whatever_their_names() -> None:
    comparison = Comparison()
    comparison.add(scored("dense_7"), scored("dense_3"))
    assert [each.metric for each in comparison.intervals()] == ["accuracy"]


def test_versions_without_anything_in_common_are_not_compared_to_nothing() -> None:
    with pytest.raises(InvalidArgumentError, match="an output in common, got a, b of one and c of the other"):
        Comparison().add(scored("c"), scored("a", "b"))
    with pytest.raises(
        InvalidArgumentError, match="got accuracy for output 'a' of one and mean_squared_error"
    ):
        Comparison().add(scored("a", metric="mean_squared_error"), scored("a"))

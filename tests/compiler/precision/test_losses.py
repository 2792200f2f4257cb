"""What counts as a loss."""

import math

import numpy as np
import pytest

from kerve.compiler.errors import LoadError
from kerve.compiler.precision.losses import Loss, meter_for

RNG = np.random.default_rng(0)


def loss(before: np.ndarray, after: np.ndarray, labels: np.ndarray | None = None) -> Loss:
    """Measure in two batches."""
    meter = meter_for("out", before[:3], labels)
    for rows in (slice(0, 3), slice(3, None)):
        meter.add(before[rows], after[rows])
    return meter.loss("out")


def probabilities(chosen: list[int], classes: int = 4) -> np.ndarray:
    scores = np.full((len(chosen), classes), 0.1, np.float32)
    scores[np.arange(len(chosen)), chosen] = 1.0 - 0.1 * (classes - 1)
    return scores


def test_the_share_of_right_answers_that_is_lost() -> None:
    truth = np.array([0, 1, 2, 3, 0, 1, 2, 3])
    before, after = probabilities([0, 1, 2, 3, 0, 1, 2, 0]), probabilities([0, 1, 2, 2, 1, 1, 2, 3])
    found = loss(before, after, truth)
    assert (found.measure, found.rows) == ("accuracy", 8)
    assert (found.before, found.after) == (7 / 8, 6 / 8)
    assert found.drop == 1 / 8


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param(np.array([0, 1, 2, 3, 0]), id="classes"),
        pytest.param(np.array([[0], [1], [2], [3], [0]], np.float32), id="classes in a column of floats"),
        pytest.param(np.eye(4)[[0, 1, 2, 3, 0]], id="one-hot"),
    ],
)
def test_classes_may_be_told_in_several_ways(labels: np.ndarray) -> None:
    found = loss(probabilities([0, 1, 2, 3, 0]), probabilities([0, 1, 2, 0, 0]), labels)
    assert found.measure == "accuracy"
    assert found.drop == pytest.approx(0.2)


@pytest.mark.parametrize("column", [True, False])
@pytest.mark.parametrize("offset", [pytest.param(0.0, id="probabilities"), pytest.param(-0.5, id="logits")])
def test_one_score_decides_between_two_classes(column: bool, offset: float) -> None:
    before = np.array([[0.9], [0.2], [0.8], [0.1]], np.float32) + np.float32(offset)
    after = np.array([[0.9], [0.2], [0.4], [0.1]], np.float32) + np.float32(offset)
    labels = np.array([1, 0, 1, 0])
    found = loss(before, after, labels[:, None] if column else labels)
    assert found.measure == "accuracy"
    assert found.drop == 0.25


def test_every_step_of_a_sequence_counts() -> None:
    truth = RNG.integers(0, 4, (6, 5))
    before = probabilities(truth.reshape(-1).tolist()).reshape(6, 5, 4)
    after = before.copy()
    after[0, :3] = after[0, :3, ::-1]
    found = loss(before, after, truth)
    assert found.rows == 30
    assert found.drop == pytest.approx(3 / 30)


def test_the_error_of_numbers_grows_in_deviations_of_the_labels() -> None:
    labels = np.array([0.0, 2.0, 4.0, 6.0, 8.0])
    before = (labels + np.array([1, -1, 1, -1, 1])).astype(np.float32)[:, None]
    after = (labels + np.array([2, -2, 2, -2, 2])).astype(np.float32)[:, None]
    found = loss(before, after, labels)
    assert found.measure == "rmse"
    assert (found.before, found.after) == (1.0, 2.0)
    assert found.drop == pytest.approx(1.0 / labels.std())


def test_without_labels_another_choice_is_a_loss() -> None:
    found = loss(probabilities([0, 1, 2, 3, 0]), probabilities([0, 1, 2, 0, 1]))
    assert found.measure == "choices"
    assert found.drop == pytest.approx(2 / 5)


def test_a_choice_between_equally_probable_classes_is_none() -> None:
    before = np.full((5, 2), 0.5, np.float32) + np.array([[1e-3, -1e-3]], np.float32)
    assert loss(before, before[:, ::-1]).drop == 0.0
    single = np.full((5, 1), 0.501, np.float32)
    assert loss(single, 1.0 - single).drop == 0.0


def test_without_labels_numbers_lose_by_their_relative_error() -> None:
    before = RNG.standard_normal((8, 3)).astype(np.float32) * 100
    found = loss(before, before * np.float32(1.02))
    assert found.measure == "error"
    assert found.drop == pytest.approx(0.02, rel=1e-3)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(np.array([1, 2, 3, 4]), np.array([1, 2, 3, 5]), id="integers"),
        pytest.param(
            np.array([True, False, True, True]), np.array([True, False, True, False]), id="booleans"
        ),
        pytest.param(
            np.array(["a", "b", "c", "d"], object), np.array(["a", "b", "c", "e"], object), id="text"
        ),
    ],
)
def test_what_is_no_real_number_must_be_equal(before: np.ndarray, after: np.ndarray) -> None:
    found = loss(before, after)
    assert found.measure == "elements"
    assert found.drop == 0.25


@pytest.mark.parametrize("labels", [None, np.array([0, 1, 2, 3, 0])])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_output_that_is_spoilt_is_lost(bad: float, labels: np.ndarray | None) -> None:
    before = probabilities([0, 1, 2, 3, 0])
    after = before.copy()
    after[4, 1] = bad
    found = loss(before, after, labels)
    assert math.isinf(found.drop)
    assert str(found) == "output 'out' becomes infinite or NaN"


def test_labels_that_fit_nothing_are_refused() -> None:
    with pytest.raises(LoadError, match=r"labels of shape \[5, 3\].*'out' of shape \[5, 4\].*one class"):
        loss(probabilities([0, 1, 2, 3, 0]), probabilities([0, 1, 2, 3, 0]), np.zeros((5, 3)))


def test_labels_that_are_no_numbers_are_refused() -> None:
    scores = RNG.standard_normal((6, 1)).astype(np.float32)
    with pytest.raises(LoadError, match="hold NaN or infinity"):
        loss(scores, scores, np.array([0.5, np.nan, 2.0, 3.0, 4.0, 5.0]))


def test_where_float32_has_no_number_the_others_count() -> None:
    before = np.array([[1.0], [np.nan], [3.0], [4.0]], np.float32)
    found = loss(before, before * 2, np.array([1.5, 2.5, 3.5, 4.5]))
    assert found.measure == "rmse"
    assert found.before == pytest.approx(0.5)
    assert found.drop > 1.0

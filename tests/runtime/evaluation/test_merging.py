"""What was found apart becomes what would have been found at once, wherever the rows were cut."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from kerve.artifact.v1.manifest_pb2 import Evaluation
from kerve.runtime.artifact import read_artifact
from kerve.runtime.evaluation.accumulator import Accumulator, Metrics
from kerve.runtime.evaluation.comparison import Comparison, scores_of
from kerve.runtime.evaluation.targets import Labelled
from kerve.runtime.session import Session

HERE = Path(__file__).parent
with np.load(HERE / "rows.npz") as arrays:
    ROWS = dict(arrays)
ARTIFACT = read_artifact(HERE / "models" / "classifier" / "2")
METRICS = Metrics(ARTIFACT, threads=1)


def computed() -> dict[str, NDArray[Any]]:
    """Return what the model makes of the rows: outputs, and the logits behind them."""
    session = Session(ARTIFACT.model_file, threads=1, hidden=ARTIFACT.hidden)
    return session.run({"x": ROWS["x"]}, METRICS.wanted)


COMPUTED = computed()
Cuts = st.lists(st.integers(0, 300), max_size=5).map(lambda cuts: sorted({0, *cuts, 300}))


def folded(part: slice) -> Accumulator:
    accumulator = Accumulator(METRICS)
    rows = Labelled(
        {"x": ROWS["x"][part]}, {"y": ROWS["classes"][part]}, {"y": ROWS["weights"][part]}, part.stop
    )
    accumulator.add(METRICS.feeds(rows, {name: array[part] for name, array in COMPUTED.items()}))
    return accumulator


@settings(max_examples=20)
@given(Cuts)
def test_states_of_parts_are_merged(cuts: list[int]) -> None:
    assert METRICS.mergeable
    merged = Accumulator(METRICS)
    for begin, end in itertools.pairwise(cuts):
        merged.merge(folded(slice(begin, end)).state)
    whole = folded(slice(0, 300)).numbers()
    for name, value in merged.numbers().items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-6)


def test_a_sum_by_batches_is_not_merged() -> None:
    assert not Metrics(read_artifact(HERE / "models" / "summed" / "2"), threads=1).mergeable


@given(Cuts, st.integers(0, 2**32 - 1))
def test_comparisons_of_parts_follow_one_another(cuts: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    target = Evaluation.Target(output="y", classes=3)
    labels = random.integers(0, 3, 300)
    ours, theirs = random.random((2, 300, 3))

    def compared(part: slice) -> Comparison:
        comparison = Comparison()
        comparison.add(
            *(scores_of([target], {"y": each[part]}, {"y": labels[part]}) for each in (ours, theirs))
        )
        return comparison

    joined = Comparison()
    for begin, end in itertools.pairwise(cuts):
        joined.follow(compared(slice(begin, end)))
    whole = compared(slice(0, 300))
    assert joined.disagreeing == whole.disagreeing
    assert joined.agreement == whole.agreement
    for one, other in zip(joined.intervals(), whole.intervals(), strict=True):
        np.testing.assert_allclose(
            (one.difference, one.low, one.high), (other.difference, other.low, other.high), atol=1e-9
        )

"""Labels and weights are told apart by their names, whatever the model calls its tensors."""

import numpy as np
import pytest

from kerve.artifact.v1.manifest_pb2 import Evaluation
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.evaluation.targets import split
from kerve.runtime.signature import Signature, TensorSpec

ONES, TWOS, THREES = (np.full(3, value, np.float32) for value in (1, 2, 3))


def spec(name: str) -> TensorSpec:
    return TensorSpec(name, "FP32", ("batch",))


def targets(*outputs: str, unweighted: tuple[str, ...] = ()) -> list[Evaluation.Target]:
    found = [Evaluation.Target(output=name) for name in outputs]
    for target in found:
        target.labels.datatype = "FP32"
        target.labels.shape.add(symbol="batch")
        if target.output not in unweighted:
            target.weights_input = f"weights/{target.output}"
            target.weights.shape.add(symbol="batch")
    return found


def signature(*inputs: str, outputs: tuple[str, ...] = ("a", "b")) -> Signature:
    return Signature(tuple(map(spec, inputs)), tuple(map(spec, outputs)), batched=True)


def test_weights_for_all_are_those_of_every_output() -> None:
    rows = {"x": ONES, "a": ONES, "b": ONES, "sample_weight": TWOS}
    weights = split(rows, signature("x"), targets("a", "b"), 0).weights
    assert {name: array.tolist() for name, array in weights.items()} == {"a": [2, 2, 2], "b": [2, 2, 2]}


def test_weights_of_an_output_go_before_those_for_all() -> None:
    rows = {"x": ONES, "a": ONES, "b": ONES, "sample_weight": TWOS, "a/sample_weight": THREES}
    weights = split(rows, signature("x"), targets("a", "b"), 0).weights
    assert {name: array.tolist() for name, array in weights.items()} == {"a": [3, 3, 3], "b": [2, 2, 2]}


def test_weights_for_all_leave_out_what_takes_none() -> None:
    rows = {"x": ONES, "a": ONES, "b": ONES, "sample_weight": TWOS}
    assert split(rows, signature("x"), targets("a", "b", unweighted=("b",)), 0).weights.keys() == {"a"}
    with pytest.raises(InvalidArgumentError, match="do not support sample weights"):
        split(rows, signature("x"), targets("a", "b", unweighted=("a", "b")), 0)


def test_an_input_called_y_is_no_label() -> None:
    alone, only = signature("y", outputs=("a",)), targets("a")
    labelled = split({"y": ONES, "a": TWOS}, alone, only, 0)
    assert labelled.inputs["y"].tolist() == [1, 1, 1]
    assert labelled.labels["a"].tolist() == [2, 2, 2]
    with pytest.raises(InvalidArgumentError, match="the labels of output 'a' are missing"):
        split({"y": ONES}, alone, only, 0)


def test_an_input_called_sample_weight_is_no_weight() -> None:
    rows = {"sample_weight": ONES, "a": TWOS, "a/sample_weight": THREES}
    weights = split(rows, signature("sample_weight", outputs=("a",)), targets("a"), 0).weights
    assert weights["a"].tolist() == [3, 3, 3]
    rows.pop("a/sample_weight")
    assert not split(rows, signature("sample_weight", outputs=("a",)), targets("a"), 0).weights


def test_labels_under_two_names_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="are given twice, as 'a' and 'y'"):
        split({"x": ONES, "a": ONES, "y": TWOS}, signature("x", outputs=("a",)), targets("a"), 0)

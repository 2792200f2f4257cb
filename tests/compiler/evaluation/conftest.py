"""A compiled evaluation as a server runs it, beside `model.evaluate()`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from kerve.compiler import Artifact, CompileOptions, compile_model

Compile = Callable[..., Artifact]
Evaluate = Callable[..., dict[str, NDArray[Any]]]


@pytest.fixture(autouse=True)
def _seeded() -> None:
    keras.utils.set_random_seed(7)


@pytest.fixture
def compiled(tmp_path: Path) -> Compile:
    """Return `compiled(model, **options)`: the artifact, whose evaluation must have no warning."""

    def compile_it(model: keras.Model, *, warns: bool = False, **options: Any) -> Artifact:
        artifact = compile_model(model, repository=tmp_path, name="m", options=CompileOptions(**options))
        told = [each for each in artifact.manifest.warnings if "evaluat" in each]
        assert bool(told) == warns, told
        return artifact

    return compile_it


@pytest.fixture(scope="session")
def evaluated() -> Evaluate:
    """Return `evaluated(artifact, inputs, labels, groups, weights)`: the numbers, rows folded in by groups.

    `inputs`, `labels` (by output) and `weights` (by output) are arrays of all rows.
    """
    return _evaluated


def _evaluated(
    artifact: Artifact,
    inputs: dict[str, NDArray[Any]],
    labels: dict[str, NDArray[Any]],
    groups: Sequence[int],
    weights: dict[str, NDArray[Any]] | None = None,
) -> dict[str, NDArray[Any]]:
    described = artifact.manifest.evaluation
    model = _session(artifact, "model.onnx", [each.logits for each in described.targets if each.logits])
    update, results = _session(artifact, described.update), _session(artifact, described.results)
    state = {
        each.input: np.zeros([dim.size for dim in each.spec.shape], _DTYPES[each.spec.datatype])
        for each in described.state
    }
    begin = 0
    for size in groups:
        part = {name: array[begin : begin + size] for name, array in inputs.items()}
        names = [value.name for value in model.get_outputs()]
        computed = dict(zip(names, model.run(names, part), strict=True))
        feeds: dict[str, Any] = {taken: part[name] for taken, name in described.inputs.items()}
        for target in described.targets:
            prediction = computed[target.output]
            feeds[target.predictions_input] = prediction
            feeds[target.logits_input] = computed.get(target.logits, prediction)
            feeds[target.labels_input] = labels[target.output][begin : begin + size].astype(
                _DTYPES[target.labels.datatype]
            )
            sizes = zip(target.weights.shape, prediction.shape, strict=False)
            ones = np.ones([dim.size or size for dim, size in sizes], np.float32)
            feeds[target.weights_input] = (
                ones if weights is None else weights[target.output][begin : begin + size]
            )
        feeds.pop("", None)
        after = update.run([each.output for each in described.state], feeds | state)
        state = {each.input: value for each, value in zip(described.state, after, strict=True)}
        begin += size
    keys = [each.name for each in described.metrics]
    return dict(zip(keys, results.run(keys, state), strict=True))


_DTYPES = {"FP64": np.float64, "FP32": np.float32, "INT64": np.int64, "INT32": np.int32}


def _session(artifact: Artifact, name: str, hidden: Sequence[str] = ()) -> ort.InferenceSession:
    import onnx

    model = onnx.load(artifact.path / name)
    model.graph.output.extend(onnx.ValueInfoProto(name=each) for each in hidden)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

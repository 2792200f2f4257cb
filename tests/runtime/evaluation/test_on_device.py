"""Predictions go from the model to the metrics where they were computed; rehearsed on the CPU's provider."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerve.runtime.artifact import read_artifact
from kerve.runtime.devices import sessions
from kerve.runtime.devices.device import Device
from kerve.runtime.devices.device_array import DeviceArray
from kerve.runtime.devices.lanes import LaneSession
from kerve.runtime.devices.memory import HostMemory
from kerve.runtime.devices.placement import DeviceConfig
from kerve.runtime.evaluation.accumulator import Metrics
from kerve.runtime.evaluation.deferred import Evaluable
from kerve.runtime.evaluation.runs import BatchOutput, Run
from kerve.runtime.model import Model, load

HERE = Path(__file__).parent
KERAS = json.loads((HERE / "keras.json").read_text())
with np.load(HERE / "rows.npz") as arrays:
    X, CLASSES, NUMBERS = (arrays[name] for name in ("x", "classes", "numbers"))


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> DeviceConfig:
    """A place whose sessions keep what they compute, on the CPU's provider."""

    def opened(model_file: Path, place: DeviceConfig, **given: Any) -> LaneSession:
        buffers = HostMemory if place.cuda.buffers else None
        return LaneSession(model_file, providers=(("CPUExecutionProvider", {}),), buffers=buffers, **given)

    monkeypatch.setattr(sessions, "OPENERS", {**sessions.OPENERS, "cuda": opened})
    return DeviceConfig(Device("cuda"))


@pytest.fixture(params=["classifier", "summed"])
def model(request: pytest.FixtureRequest, device: DeviceConfig) -> Iterator[Model]:
    loaded = load(read_artifact(HERE / "models" / request.param / "2"), threads=1, place=device)
    yield loaded
    loaded.close()


def at_once(task: Callable[[], None]) -> bool:
    task()
    return True


def evaluated(model: Model, step: int, max_rows: int) -> tuple[Run, list[BatchOutput]]:
    """Evaluate all rows, so many at a time."""
    name = model.artifact.path.parent.name
    labels = {"classifier": CLASSES, "summed": NUMBERS}[name]
    metrics = Metrics(model.artifact, threads=1, place=model.place)
    run, answers = Run(Evaluable(model, at_once, max_rows), metrics), []
    for begin in range(0, len(X), step):
        rows = {"x": X[begin : begin + step], "y": labels[begin : begin + step]}
        asked = run.ask(rows, {"x": "FP32", "y": "FP32"})
        assert asked is not None
        answers.append(run.answer(asked))
    for metric, value in KERAS[f"{name}/2/plain"].items():
        assert run.numbers()[metric] == pytest.approx(value, rel=1e-5), metric
    return run, answers


def test_predictions_and_state_stay_on_the_device(model: Model) -> None:
    run, answers = evaluated(model, 100, 1000)
    assert all(isinstance(value, DeviceArray) for each in answers for value in each.computed.values())
    if not run.metrics.description.batch_dependent:  # otherwise rows are regrouped at the host
        assert all(isinstance(value, DeviceArray) for value in run._accumulator._state.values())
    outputs = run.outputs(answers[0])
    expected = model.run({"x": X[:100]})
    assert outputs
    for name, (_, array) in outputs.items():
        np.testing.assert_array_equal(array, expected[name])


def test_what_is_computed_in_parts_is_joined_at_the_host(model: Model) -> None:
    _, answers = evaluated(model, 100, 32)
    assert all(isinstance(value, np.ndarray) for each in answers for value in each.computed.values())

"""The CUDA session answers until TensorRT's engine is there and proven; both are the CPU's provider here."""

import json
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerve.runtime.artifact import read_artifact
from kerve.runtime.devices import sessions
from kerve.runtime.devices.device import Device, Kind
from kerve.runtime.devices.lanes import LaneSession
from kerve.runtime.devices.memory import HostMemory
from kerve.runtime.devices.placement import DeviceConfig
from kerve.runtime.devices.tensorrt import Profile, TensorRtSession, profile_of, provider_options
from kerve.runtime.errors import ArtifactError
from kerve.runtime.model import Model, load
from kerve.runtime.session import Provider
from kerve.runtime.signature import TensorSpec

CPU: tuple[Provider, ...] = (("CPUExecutionProvider", {}),)
EVALUATED = Path(__file__).parent.parent / "evaluation" / "models"
Until = Callable[[Callable[[], bool], str], None]


class Builder:
    """Builds when it is let to; `model` is what it then opens."""

    def __init__(self, model: Path) -> None:
        self.model, self.go, self.cancelled = model, threading.Event(), False
        self.opened: list[LaneSession] = []
        self.profile: Profile | None = None

    def build(self, profile: Profile) -> None:
        self.profile = profile
        assert self.go.wait(60)
        if self.cancelled:
            raise ArtifactError("killed")

    def open(self, profile: Profile) -> LaneSession:
        self.opened.append(LaneSession(self.model, threads=1, providers=CPU, buffers=None))
        self.opened[-1].hardware = "an engine"
        return self.opened[-1]

    def cancel(self) -> None:
        self.cancelled = True
        self.go.set()


@pytest.fixture
def builder(monkeypatch: pytest.MonkeyPatch) -> Builder:
    """What builds the engines of models that are loaded on `tensorrt`."""
    made = Builder(EVALUATED / "classifier" / "2" / "model.onnx")

    def opened(model_file: Path, _: DeviceConfig, precision: str, **given: Any) -> TensorRtSession:
        assert precision == "float32"
        return TensorRtSession(model_file, builder=made, providers=CPU, buffers=HostMemory, **given)

    openers: dict[Kind, Any] = {**sessions.OPENERS, "tensorrt": opened}
    monkeypatch.setattr(sessions, "OPENERS", openers)
    return made


@pytest.fixture
def model(builder: Builder) -> Iterator[Model]:
    artifact = read_artifact(EVALUATED / "classifier" / "2")
    loaded = load(artifact, threads=1, place=DeviceConfig(Device("tensorrt")))
    yield loaded
    loaded.close()


def answer(model: Model) -> Any:
    """Return what the model answers to the same two rows."""
    (spec,) = model.signature.inputs
    shape = (2, *(int(size or 1) for size in spec.shape[1:]))
    return model.run({spec.name: np.ones(shape, np.float32)})


def test_an_engine_takes_over_once_it_is_built_and_proven(
    model: Model, builder: Builder, until: Until
) -> None:
    before = answer(model)
    assert (model.engine, model.hardware == "an engine") == ("building", False)
    builder.go.set()
    until(lambda: model.engine != "building", "the engine is built")
    assert (model.engine, model.hardware) == ("ready", "an engine")
    (engine,) = builder.opened
    seen = []
    run, engine._run = engine._run, lambda *given: seen.append(given) or run(*given)  # type: ignore[func-returns-value]
    with model.prepared():
        found = answer(model)
    assert seen, "the engine has computed"
    for name, array in before.items():
        np.testing.assert_array_equal(found[name], array)
    (spec,) = model.signature.inputs
    assert builder.profile == {spec.name: ((1, *spec.shape[1:]), *[(128, *spec.shape[1:])] * 2)}


def test_an_engine_that_answers_otherwise_never_serves(
    model: Model, builder: Builder, until: Until, caplog: pytest.LogCaptureFixture
) -> None:
    before = answer(model)
    builder.model = EVALUATED / "classifier" / "1" / "model.onnx"  # other weights
    with caplog.at_level(logging.ERROR):
        builder.go.set()
        until(lambda: model.engine != "building", "the engine is refused")
    assert model.engine == "failed"
    assert "stays on the CUDA provider: " in caplog.text
    assert "differs from the source model's output" in caplog.text
    for name, array in answer(model).items():
        np.testing.assert_array_equal(array, before[name])


def test_a_build_ends_with_its_model(model: Model, builder: Builder, until: Until) -> None:
    model.close()
    assert builder.cancelled
    session = model._session
    assert isinstance(session, TensorRtSession)
    assert session._thread is not None
    until(lambda: not session._thread.is_alive(), "the build is over")  # type: ignore[union-attr]
    assert (session.engine, builder.opened) == ("building", [])


def test_a_profile_holds_the_sizes_of_batches_where_nothing_else_is_open() -> None:
    fixed, open_too = TensorSpec("x", "FP32", ("n", 3, 2)), TensorSpec("y", "FP32", ("n", "time"))
    assert profile_of([fixed], {1, 8, 4}) == {"x": ((1, 3, 2), (8, 3, 2), (8, 3, 2))}
    assert profile_of([fixed, open_too], {8}) == {}
    assert profile_of([fixed], ()) == {}


def test_the_options_are_in_the_form_that_onnxruntime_takes(tmp_path: Path) -> None:
    profile = {"x": ((1, 3), (8, 3), (8, 3)), "y": ((1, 2), (8, 2), (8, 2))}
    options = provider_options(1, tmp_path / "engine", "float16", profile)
    assert options == {
        "device_id": "1",
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": str(tmp_path / "engine"),
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": str(tmp_path),
        "trt_fp16_enable": "True",
        "trt_profile_min_shapes": "x:1x3,y:1x2",
        "trt_profile_opt_shapes": "x:8x3,y:8x2",
        "trt_profile_max_shapes": "x:8x3,y:8x2",
    }


@pytest.mark.parametrize("broken", [False, True])
def test_the_builders_process_opens_and_runs_the_model_or_says_why_not(tmp_path: Path, broken: bool) -> None:
    file = shutil.copy(EVALUATED / "classifier" / "2" / "model.onnx", tmp_path)
    if broken:
        Path(file).write_bytes(b"no model")
    shapes = [{"x": [rows, 4]} for rows in (1, 4)]
    order = {"model": str(file), "providers": CPU, "hidden": [], "shapes": shapes}
    done = subprocess.run(
        [sys.executable, "-m", "kerve.runtime.devices.build_engine"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode != 0) == broken, done.stderr
    assert ("Protobuf parsing failed" in done.stderr) == broken

"""`--target tensorrt`: what is missing here is named before anything is loaded."""

from pathlib import Path

import onnxruntime
import pytest

from kerve.compiler import targets
from kerve.compiler.errors import TargetError


def test_a_machine_without_tensorrt_is_told_all_that_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    monkeypatch.setattr(targets, "loadable", lambda name: name == "libcuda.so.1")
    with pytest.raises(TargetError, match=r"onnxruntime-gpu .*libnvinfer\.so\.10 \(TensorRT 10") as caught:
        targets.require("tensorrt")
    assert "libcuda" not in str(caught.value)
    assert caught.value.exit_code == 7


def test_a_portable_artifact_needs_nothing(tmp_path: Path) -> None:
    targets.require("portable")
    targets.compile_for("portable", tmp_path / "model.onnx", "float32")
    assert list(tmp_path.iterdir()) == []


MODELS = Path(__file__).parent.parent / "runtime"


def test_an_engine_is_made_for_every_size_of_batch() -> None:
    assert targets.profile(MODELS / "models" / "classifier.onnx") == {
        "trt_profile_min_shapes": "features:1x4",
        "trt_profile_opt_shapes": "features:128x4",
        "trt_profile_max_shapes": "features:128x4",
    }


def test_an_open_dimension_beside_the_batch_is_refused() -> None:
    with pytest.raises(
        TargetError, match=r"input 'left' has shape .*; expected no dynamic dimension other than the batch"
    ):
        targets.profile(MODELS / "models" / "pair.onnx")

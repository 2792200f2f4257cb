"""kerve inspect, on artifacts and on bare ONNX files."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Publish = Callable[..., Path]

SIGNATURE = {
    "inputs": [{"name": "features", "datatype": "FP32", "shape": [{"symbol": "batch"}, {"size": "4"}]}],
    "outputs": [
        {
            "name": "probabilities",
            "datatype": "FP32",
            "shape": [{"symbol": "batch"}, {"size": "3"}],
            "labels": ["cat", "[red]dog[/red]", "cow"],
        },
        {"name": "logits", "datatype": "FP32", "shape": [{"symbol": "batch"}, {"size": "3"}]},
    ],
    "batched": True,
}
CHECK = {
    "data": "seeded",
    "batch_size": 5,
    "dimensions": {"time": "7"},
    "output": "logits",
    "rtol": 1e-4,
    "atol": 1e-5,
    "max_abs_error": 2.5e-7,
    "mean_abs_error": 1e-8,
    "max_rel_error": 3e-6,
}


def inspect(path: Path) -> "subprocess.CompletedProcess[str]":
    kerve = str(Path(sys.executable).with_name("kerve"))
    return subprocess.run(
        [kerve, "inspect", str(path)], capture_output=True, text=True, timeout=60, check=False
    )


def test_an_artifact_shows_signature_operators_size_and_proof(tmp_path: Path, publish: Publish) -> None:
    folder = publish(tmp_path, "classifier", signature=SIGNATURE, checks=[CHECK])
    done = inspect(folder)
    assert done.returncode == 0, done.stderr
    for word in (
        "[batch, 4]",
        "cat, [red]dog[/red], cow",
        "Gemm",
        "2 operators",
        "KB",
        "keras classifier.keras",
        "kerve 0.1.0",
        "seeded",
        "5, time=7",
        "2.50e-07",
        "1e-04, 1e-05",
    ):
        assert word in done.stdout


def test_a_bare_onnx_file_shows_what_it_says_of_itself(tmp_path: Path, publish: Publish) -> None:
    done = inspect(publish(tmp_path, "counter"))
    assert done.returncode == 0, done.stderr
    for word in ("steps", "INT64", "Loop", "3 operators", "not batched", "not verified by kerve"):
        assert word in done.stdout


def test_a_models_folder_shows_its_newest_version(tmp_path: Path, publish: Publish) -> None:
    publish(tmp_path, "pair", name="m", version=9)
    publish(tmp_path, "counter", name="m", version=10)
    done = inspect(tmp_path / "m")
    assert done.returncode == 0, done.stderr
    assert "Loop" in done.stdout


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        pytest.param("nowhere", 2, "does not exist", id="no folder"),
        pytest.param("", 3, "error: ", id="no model in it"),
    ],
)
def test_what_is_no_artifact_is_told_in_one_line(path: str, code: int, message: str, tmp_path: Path) -> None:
    done = inspect(tmp_path / path)
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""

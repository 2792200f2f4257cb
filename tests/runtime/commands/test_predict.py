"""kerve predict, against a real server."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

FEATURES = np.random.default_rng(3).normal(size=(12, 4))


def predict(address: str, model: str, data: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    kerve = str(Path(sys.executable).with_name("kerve"))
    command = [kerve, "predict", model, "--data", str(data), "--address", address, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", ["features", "x"])
def test_outputs_are_shown_and_written(name: str, server: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", **{name: FEATURES, "labels": np.zeros(12)})  # type: ignore[arg-type]  # numpy's stub
    done = predict(server.address, "classifier", tmp_path / "in.npz", "--output", str(tmp_path / "out.npz"))
    assert done.returncode == 0, done.stderr
    for word in ("probabilities", "logits", "float32", "(12, 3)", "probabilities, 10 of 12 rows", "class"):
        assert word in done.stdout
    with np.load(tmp_path / "out.npz") as written:
        assert sorted(written.files) == ["logits", "probabilities"]
        np.testing.assert_allclose(written["probabilities"].sum(axis=1), 1, rtol=1e-5)


def test_text_is_written(server: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.array([["a", "bc"]]))
    done = predict(server.address, "echo_bytes", tmp_path / "in.npz", "--output", str(tmp_path / "out.npz"))
    assert done.returncode == 0, done.stderr
    assert np.load(tmp_path / "out.npz")["y"].tolist() == [[b"a", b"bc"]]


@pytest.mark.parametrize(
    ("model", "arrays", "code", "message"),
    [
        pytest.param(
            "pair",
            {"left": FEATURES},
            2,
            "expected arrays named left, right; it has: left",
            id="a missing array",
        ),
        pytest.param(
            "classifier",
            {"y": FEATURES},
            2,
            "expected arrays named features or `x`; it has: y",
            id="no array that fits",
        ),
        pytest.param(
            "foo",
            {"x": FEATURES},
            1,
            "error: Request for unknown model: 'foo' is not found; available:",
            id="unknown model",
        ),
        pytest.param(
            "classifier",
            {"x": FEATURES[:, :2]},
            1,
            "error: input 'features': expected shape [batch, 4], got [12, 2]",
            id="wrong shape",
        ),
    ],
)
def test_what_cannot_be_predicted_is_told_in_one_line(
    model: str, arrays: dict[str, Any], code: int, message: str, server: Any, tmp_path: Path
) -> None:
    np.savez(tmp_path / "in.npz", **arrays)
    done = predict(server.address, model, tmp_path / "in.npz")
    assert done.returncode == code
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_npz_is_bad_usage(server: Any, tmp_path: Path) -> None:
    (tmp_path / "in.npz").write_text("no")
    done = predict(server.address, "classifier", tmp_path / "in.npz")
    assert done.returncode == 2
    assert "is not a NumPy .npz file" in done.stderr


def test_pickled_arrays_are_not_opened(server: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=np.array([{}], object))
    done = predict(server.address, "classifier", tmp_path / "in.npz")
    assert done.returncode == 2
    assert "contains Python objects" in done.stderr


def test_a_server_that_is_not_there_is_told_in_one_line(tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=FEATURES)
    done = predict("127.0.0.1:1", "classifier", tmp_path / "in.npz")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no server answers at 127.0.0.1:1")

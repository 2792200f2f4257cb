"""Operators counted without the onnx package."""

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kerve.runtime import onnx_file
from kerve.runtime.errors import ArtifactError
from kerve.runtime.onnx_file import count_operators


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        pytest.param("classifier", {"Gemm": 1, "Softmax": 1}, id="plain"),
        pytest.param("counter", {"Loop": 1, "Identity": 1, "Add": 1}, id="with a subgraph"),
    ],
)
def test_operators_are_counted(model: str, expected: dict[str, int], models: Path) -> None:
    assert count_operators(models / f"{model}.onnx") == expected


def test_an_operator_of_another_domain_carries_it(tmp_path: Path) -> None:
    node = b"\x22\x02Op" + b"\x3a\x0bcom.example"
    graph = b"\x0a" + bytes([len(node)]) + node
    (tmp_path / "m.onnx").write_bytes(b"\x08\x0a" + b"\x3a" + bytes([len(graph)]) + graph)
    assert count_operators(tmp_path / "m.onnx") == {"com.example.Op": 1}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.binary(min_size=1, max_size=200), at=st.integers(0, 200))
def test_damage_is_refused_and_never_worse(noise: bytes, at: int, models: Path, tmp_path: Path) -> None:
    whole = (models / "counter.onnx").read_bytes()
    file = tmp_path / "m.onnx"
    file.write_bytes(whole[:at] + noise)
    with suppress(ArtifactError):
        assert count_operators(file).total() >= 0


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").touch()
    with pytest.raises(ArtifactError, match="is not an ONNX model"):
        count_operators(tmp_path / "m.onnx")


def test_a_file_that_is_cut_off_while_it_is_read_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: Path
) -> None:
    # As by a copy over it: with the file mapped, this would end the process.
    monkeypatch.setattr(onnx_file, "WINDOW", 16)
    file = tmp_path / "m.onnx"
    file.write_bytes((models / "counter.onnx").read_bytes())

    def walk() -> None:
        with onnx_file.opened(file) as contents:
            found = onnx_file.spans(contents, 0, contents.size)
            next(found)
            os.truncate(file, 0)
            list(found)

    with pytest.raises(ArtifactError, match="is not an ONNX model"):
        walk()

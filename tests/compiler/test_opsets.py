"""`--opset`: what can be asked for, and that every kind of file is written in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime as ort
import pytest
from click.testing import CliRunner
from keras import layers

from kerve.compiler import CompileOptions, compile_model, opsets
from kerve.compiler.commands.compile import command
from kerve.compiler.errors import ConversionError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One model in the three kinds of files, with a row and its answer."""
    path = tmp_path_factory.mktemp("opsets")
    x = keras.Input((6, 4), name="x")
    hidden = layers.GRU(3)(layers.LayerNormalization()(layers.Dense(4, "gelu")(x)))
    model = keras.Model(x, layers.Softmax(name="y")(keras.ops.max(hidden, axis=-1, keepdims=True) - hidden))
    model.save(path / "model.keras")
    model.save(path / "model.h5")
    model.export(path / "model", verbose=False)
    rows = np.random.default_rng(1).standard_normal((3, 6, 4), np.float32)
    np.savez(path / "rows.npz", x=rows, y=np.asarray(model(rows)))
    return path


@pytest.mark.parametrize("source", ["model.keras", "model.h5", "model"])
@pytest.mark.parametrize("opset", [17, opsets.newest()])
def test_every_kind_of_file_is_written_in_the_oldest_and_in_the_newest(
    source: str, opset: int, folder: Path, tmp_path: Path
) -> None:
    options = CompileOptions(opset=opset)
    artifact = compile_model(
        folder / source, repository=tmp_path, name="m", options=options, custom_objects={}
    )
    written = onnx.load(artifact.path / "model.onnx")
    assert (
        {each.domain: each.version for each in written.opset_import}[""] == opset == artifact.manifest.opset
    )
    session = ort.InferenceSession(artifact.path / "model.onnx", providers=["CPUExecutionProvider"])
    rows = np.load(folder / "rows.npz")
    (answer,) = session.run(None, {session.get_inputs()[0].name: rows["x"]})
    np.testing.assert_allclose(answer, rows["y"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("opset", ["16", "99", "abc"])
def test_what_cannot_be_written_is_refused_with_both_ends(opset: str, tmp_path: Path) -> None:
    """Before anything is loaded: there is no such model, and nothing is said of that."""
    arguments = [tmp_path / "none.keras", "--repository", tmp_path, "--name", "m", "--opset", opset]
    result = CliRunner().invoke(command, [str(each) for each in arguments])
    assert result.exit_code == 2
    assert f"expected an operator set from 17 to {opsets.newest()}" in result.output
    assert f"got {opset}" in result.output


@pytest.mark.parametrize("opset", [16, 99])
def test_so_it_is_from_python(opset: Any) -> None:
    with pytest.raises(ValueError, match="expected an operator set from 17 to"):
        CompileOptions(opset=opset)


def test_an_operator_that_is_missing_in_newer_sets_is_told_with_the_newest_that_has_it(
    tmp_path: Path,
) -> None:
    """ONNX Runtime reads operator set 22, but has no kernel for the random operators of it."""
    model = keras.Sequential([keras.Input((4,)), _Noise(), layers.Dense(2)])
    compile_model(model, repository=tmp_path, name="m", options=CompileOptions(opset=21))
    with pytest.raises(
        ConversionError, match="no RandomNormalLike of operator set 22; compile with --opset 21"
    ):
        compile_model(model, repository=tmp_path, name="m", options=CompileOptions(opset=22))


class _Noise(layers.Layer):
    def __init__(self) -> None:
        super().__init__()
        self._seeds = keras.random.SeedGenerator(1)

    def call(self, x: Any) -> Any:
        return x + keras.random.normal(keras.ops.shape(x), seed=self._seeds)

"""Data of a Python program goes into a compile and a verification as it goes into `model.fit`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerve.compiler import (
    CompileOptions,
    LoadError,
    VerificationError,
    VerifyOptions,
    compile_model,
    verify_model,
)
from kerve.compiler.input_data import with_files

_X = np.arange(20, dtype=np.float32).reshape(5, 4) / 20
_IDS = np.array([[0], [1], [2], [1], [0]])
_Y = np.array([0, 1, 0, 1, 1])


def _model() -> keras.Model:
    x, ids = keras.Input((4,), name="x"), keras.Input((1,), name="ids", dtype="int64")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(3, 4)(ids))
    outputs = keras.layers.Dense(2, activation="softmax", name="kind")(x + embedded)
    return keras.Model([x, ids], outputs)


def _dataset() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices((({"x": _X, "ids": _IDS}), _Y)).batch(2)


def _generator() -> Iterator[Any]:
    yield [_X[:3], _IDS[:3]], _Y[:3]
    yield [_X[3:], _IDS[3:]], _Y[3:]


class _Sequence(keras.utils.PyDataset):
    def __len__(self) -> int:
        return 5

    def __getitem__(self, index: int) -> Any:
        return {"x": _X[index : index + 1], "ids": _IDS[index : index + 1]}, _Y[index : index + 1]


_GIVEN: dict[str, Callable[[], Any]] = {
    "a dictionary": lambda: {"x": _X, "ids": _IDS},
    "a list": lambda: [_X, _IDS],
    "a list and labels": lambda: ([_X, _IDS], _Y),
    "labels and weights": lambda: ({"x": _X, "ids": _IDS}, {"kind": _Y}, np.ones(5)),
    "tf.data": _dataset,
    "a generator": _generator,
    "a PyDataset": _Sequence,
}


@pytest.mark.parametrize("given", [pytest.param(value, id=key) for key, value in _GIVEN.items()])
def test_data_is_written_as_the_reader_of_files_expects_it(given: Callable[[], Any]) -> None:
    with with_files(VerifyOptions(), data=given()) as options:
        assert options.data is not None
        arrays = dict(np.load(options.data))
    np.testing.assert_array_equal(arrays.get("x", arrays.get("arr_0")), _X)
    np.testing.assert_array_equal(arrays.get("ids", arrays.get("arr_1")), _IDS)
    labels = arrays.get("y", arrays.get("kind"))
    if labels is not None:
        np.testing.assert_array_equal(labels, _Y)


@pytest.mark.parametrize("name", ["file", "allow_pickle"])
def test_an_input_may_be_called_as_numpys_arguments_are(name: str) -> None:
    with with_files(VerifyOptions(), data={name: _X}) as options:
        assert options.data is not None
        np.testing.assert_array_equal(np.load(options.data)[name], _X)


@pytest.mark.parametrize(("given", "problem"), [
    pytest.param(lambda: _dataset().repeat(), r"data is a .* infinite; give value.take\(", id="endless"),
    pytest.param(lambda: [[1, 2], [[1], [1, 2]]], "data is a list, .* inhomogeneous", id="ragged rows"),
    pytest.param(lambda: iter(()), "it is empty", id="empty"),
    pytest.param(lambda: (_X, [_Y, _Y]), "as a dictionary by output name", id="lists of labels"),
    pytest.param(lambda: 5, "data is a int, but not in a form that model.fit accepts", id="a number"),
    pytest.param(lambda: np.array([{}]), "an array holds a dict; expected numbers or str", id="objects"),
])  # fmt: skip
def test_what_model_fit_would_not_take_is_refused(given: Callable[[], Any], problem: str) -> None:
    with pytest.raises(LoadError, match=problem), with_files(VerifyOptions(), data=given()):
        pass


def test_a_model_is_calibrated_judged_and_verified_on_what_is_at_hand(tmp_path: Path) -> None:
    model = _model()
    model.save(tmp_path / "model.keras")
    artifact = compile_model(
        tmp_path / "model.keras",
        repository=tmp_path / "models",
        name="m",
        options=CompileOptions(precision="int8", max_drop=1.0),
        data=_dataset(),
        calibration=[_X, _IDS],
    )
    assert artifact.manifest.reduction.calibration == "user"
    assert {loss.data for loss in artifact.manifest.reduction.losses} == {"user"}
    exact = compile_model(model, repository=tmp_path / "models", name="exact", data=_dataset())
    comparison = verify_model(model, exact.path, data={"x": _X, "ids": _IDS})
    comparison.require_equal()
    assert {check["data"] for check in comparison.checks} == {"seeded", "user"}
    model.layers[-1].bias.assign([1.0, -1.0])
    with pytest.raises(VerificationError, match="the first layer that differs is 'kind'"):
        verify_model(model, exact.path).require_equal()


def test_words_may_come_as_str_or_bytes(tmp_path: Path) -> None:
    words = keras.Input((), dtype="string", name="word")
    model = keras.Model(words, keras.layers.StringLookup(vocabulary=["naïve", "b"], name="id")(words))
    given = np.array(["naïve", "b"], object)
    compile_model(
        model, repository=tmp_path, name="m", data=tf.data.Dataset.from_tensor_slices(given).batch(1)
    )
    artifact = compile_model(model, repository=tmp_path, name="m", data=given)
    assert artifact.version == 2


def test_data_that_does_not_fit_is_called_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(
        LoadError, match=r"^data: array 'x' has shape \[5, 3\], the model takes \[batch, 4\]$"
    ):
        compile_model(_model(), repository=tmp_path, name="m", data=[_X[:, :3], _IDS])
    assert not list(tmp_path.iterdir())

"""Subclassed models whose `call` takes more than one tensor keep the names of its arguments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime as ort
import pytest
from keras import InputSpec, layers, ops

from kerve.compiler import Artifact, ConversionError, compile_model

IDS = np.array([[1, 2, 3], [4, 0, 1]], np.int32)
FEATURES = np.random.default_rng(1).standard_normal((2, 5), np.float32)
SIGNATURE = {"ids": InputSpec(shape=(None, 3), dtype="int32"), "feats": InputSpec(shape=(None, 5))}


class Base(keras.Model):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.dense = layers.Embedding(6, 4), layers.Dense(4)

    def both(self, ids: Any, feats: Any) -> Any:
        return ops.mean(self.embedding(ids), axis=1) + self.dense(feats)


class Positional(Base):
    def call(self, ids: Any, feats: Any, training: bool | None = None) -> Any:
        return self.both(ids, feats)


class Keyword(Base):
    def call(self, ids: Any, *, feats: Any) -> Any:
        return self.both(ids, feats)


class Optional(Base):
    def call(self, ids: Any, weights: Any = None, feats: Any = None, training: Any = False) -> Any:
        answer = self.both(ids, feats)
        return answer if weights is None else answer * weights


class Several(Base):
    def call(self, *tensors: Any) -> Any:
        return self.both(*tensors)


class Named(Base):
    def call(self, **tensors: Any) -> Any:
        return self.both(tensors["ids"], tensors["feats"])


class Nested(Base):
    def call(self, inputs: Any, feats: Any) -> Any:
        return self.both(inputs["tokens"]["ids"], feats[0])


def answer(artifact: Artifact, **inputs: Any) -> Any:
    session = ort.InferenceSession(artifact.path / "model.onnx", providers=["CPUExecutionProvider"])
    (result,) = session.run(None, inputs)
    return result


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        pytest.param(Positional, {"data": {"ids": IDS, "feats": FEATURES}}, id="positional-data"),
        pytest.param(Positional, {"data": [IDS, FEATURES]}, id="positional-listed-data"),
        pytest.param(Positional, {"input_signature": SIGNATURE}, id="positional-signature"),
        pytest.param(Positional, {"input_signature": tuple(SIGNATURE.values())}, id="positional-tuple"),
        pytest.param(Keyword, {"data": {"ids": IDS, "feats": FEATURES}}, id="keyword-data"),
        pytest.param(Optional, {"input_signature": SIGNATURE}, id="optional-left-out"),
        pytest.param(Named, {"input_signature": SIGNATURE}, id="catching-keywords"),
    ],
)
def test_arguments_keep_their_names(kind: Any, given: dict[str, Any], tmp_path: Path) -> None:
    model = kind()
    artifact = compile_model(model, repository=tmp_path, name="m", **given)
    wanted = model(ids=IDS, feats=FEATURES) if kind is Named else model(IDS, feats=FEATURES)
    np.testing.assert_allclose(answer(artifact, ids=IDS, feats=FEATURES), wanted, rtol=1e-4, atol=1e-5)


def test_arguments_without_names_are_numbered(tmp_path: Path) -> None:
    model = Several()
    signature = tuple(SIGNATURE.values())
    artifact = compile_model(model, repository=tmp_path, name="m", input_signature=signature)
    got = answer(artifact, tensors_0=IDS, tensors_1=FEATURES)
    np.testing.assert_allclose(got, model(IDS, FEATURES), rtol=1e-4, atol=1e-5)


def test_arguments_that_are_structures_have_the_names_in_them(tmp_path: Path) -> None:
    model, ids, feats = Nested(), SIGNATURE["ids"], SIGNATURE["feats"]
    signature = {"inputs": {"tokens": {"ids": ids}}, "feats": [feats]}
    artifact = compile_model(model, repository=tmp_path, name="m", input_signature=signature)
    got = answer(artifact, tokens_ids=IDS, feats=FEATURES)
    wanted = model({"tokens": {"ids": ops.convert_to_tensor(IDS)}}, [FEATURES])
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def test_a_call_of_which_keras_remembers_a_part_is_asked_for_the_rest(tmp_path: Path) -> None:
    model = Positional()
    model(IDS, FEATURES)
    with pytest.raises(ConversionError, match=r"takes ids, feats.*input_signature=\{'ids'.*or data="):
        compile_model(model, repository=tmp_path, name="m")
    artifact = compile_model(model, repository=tmp_path, name="m", data={"ids": IDS, "feats": FEATURES})
    np.testing.assert_allclose(
        answer(artifact, ids=IDS, feats=FEATURES), model(IDS, FEATURES), rtol=1e-4, atol=1e-5
    )


def test_an_argument_that_may_have_been_given_is_told_or_taken_from_data(tmp_path: Path) -> None:
    class Weighted(Base):
        def call(self, ids: Any, weights: Any = None, training: Any = None, mask: Any = None) -> Any:
            answer = ops.mean(self.embedding(ids), axis=1)
            return answer if weights is None else answer * weights

    model, weights = Weighted(), FEATURES[:, :1]
    model(IDS, weights)
    artifact = compile_model(model, repository=tmp_path, name="m")
    (told,) = [each for each in artifact.manifest.warnings if "compiled without weights" in each]
    assert "input_signature= or data=" in told
    artifact = compile_model(model, repository=tmp_path, name="m", data={"ids": IDS, "weights": weights})
    assert not [each for each in artifact.manifest.warnings if "compiled without" in each]
    wanted = model(IDS, weights)
    np.testing.assert_allclose(answer(artifact, ids=IDS, weights=weights), wanted, rtol=1e-4, atol=1e-5)


def test_a_build_of_several_shapes_tells_them_by_name(tmp_path: Path) -> None:
    class Built(Positional):
        def build(self, feats_shape: Any, ids_shape: Any) -> None:
            self.embedding.build(ids_shape)
            self.dense.build(feats_shape)

    model = Built()
    wanted = model(IDS, FEATURES)
    artifact = compile_model(model, repository=tmp_path, name="m")
    np.testing.assert_allclose(answer(artifact, ids=IDS, feats=FEATURES), wanted, rtol=1e-4, atol=1e-5)

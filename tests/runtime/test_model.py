"""Loading: what is proven before it is served, and what is refused."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from kerve.runtime.artifact import read_artifact
from kerve.runtime.datatypes import float32_to_bfloat16
from kerve.runtime.errors import ArtifactError, InternalError, InvalidArgumentError, UnavailableError
from kerve.runtime.model import Model, load
from kerve.runtime.protocol.tensors import object_array

Publish = Callable[..., Path]

FEATURES = np.random.default_rng(1).normal(size=(3, 4)).astype(np.float32)


def matrix(name: str, datatype: str, width: int | str) -> dict[str, Any]:
    axis = {"symbol": width} if isinstance(width, str) else {"size": str(width)}
    return {"name": name, "datatype": datatype, "shape": [{"symbol": "batch"}, axis]}


CLASSIFIER: Mapping[str, Any] = {
    "inputs": [matrix("features", "FP32", 4)],
    "outputs": [matrix("probabilities", "FP32", 3), matrix("logits", "FP32", 3)],
    "batched": True,
}


@pytest.fixture
def answers(tmp_path: Path, publish: Publish) -> dict[str, Any]:
    """What the classifier answers, as golden data."""
    outputs = load(read_artifact(publish(tmp_path / "plain", "classifier")), threads=1).run(
        {"features": FEATURES}
    )
    return {"input/features": FEATURES, **{f"output/{name}": array for name, array in outputs.items()}}


def loaded(folder: Path) -> Model:
    return load(read_artifact(folder), threads=1)


def test_an_artifact_that_answers_as_compiled_is_loaded(
    tmp_path: Path, publish: Publish, answers: dict[str, Any]
) -> None:
    model = loaded(publish(tmp_path, "classifier", signature=CLASSIFIER, golden=answers))
    assert model.signature.input("features").shape == ("batch", 4)
    assert model.signature.batched


def test_a_bare_model_takes_its_signature_from_the_graph(tmp_path: Path, publish: Publish) -> None:
    signature = loaded(publish(tmp_path, "pair")).signature
    assert signature.input("left").shape == ("batch", "time")
    assert signature.batched
    assert not loaded(publish(tmp_path, "scalar")).signature.batched


def test_a_model_without_a_batch_is_warmed_with_as_many_rows_as_it_was_proven_with(
    tmp_path: Path, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    def fixed(name: str, *sizes: int) -> dict[str, Any]:
        return {"name": name, "datatype": "FP32", "shape": [{"size": str(size)} for size in sizes]}

    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    signature = {"inputs": [fixed("x", 3, 2)], "outputs": [fixed("y", 2, 3)]}
    golden = {"input/x": x, "output/y": x.reshape(2, 3)}
    assert not loaded(publish(tmp_path, "triples", signature=signature, golden=golden)).signature.batched
    assert not caplog.records


def test_another_answer_than_the_golden_one_is_refused(
    tmp_path: Path, publish: Publish, answers: dict[str, Any]
) -> None:
    answers["output/logits"] = answers["output/logits"] + np.eye(3, dtype=np.float32)
    folder = publish(tmp_path, "classifier", signature=CLASSIFIER, golden=answers)
    with pytest.raises(
        ArtifactError, match=r"output 'logits' .* 3 of 9 elements differ, the first at \[0, 0\]"
    ):
        loaded(folder)


def test_the_tolerance_is_the_one_it_was_proven_with(
    tmp_path: Path, publish: Publish, answers: dict[str, Any]
) -> None:
    answers["output/logits"] = answers["output/logits"] + np.float32(0.01)
    golden = {"signature": CLASSIFIER, "golden": answers}
    with pytest.raises(ArtifactError, match="elements differ"):
        loaded(publish(tmp_path / "strict", "classifier", **golden))
    checks = [{"output": "logits", "rtol": 0.0, "atol": 0.1}]
    loaded(publish(tmp_path / "loose", "classifier", **golden, checks=checks))


def test_rounding_grows_with_the_range_of_an_output(tmp_path: Path, publish: Publish) -> None:
    x, near, far = (np.array([[1000.0, last, np.inf]], np.float32) for last in (0.0, 0.005, 0.02))
    loaded(publish(tmp_path, "echo_fp32", golden={"input/x": x, "output/y": near}))
    with pytest.raises(ArtifactError, match=r"1 of 3 elements differ, the first at \[0, 1\]"):
        loaded(publish(tmp_path, "echo_fp32", version=2, golden={"input/x": x, "output/y": far}))


def test_a_golden_output_that_lacks_is_refused(
    tmp_path: Path, publish: Publish, answers: dict[str, Any]
) -> None:
    del answers["output/logits"]
    with pytest.raises(ArtifactError, match="the golden data lacks logits; compile again"):
        loaded(publish(tmp_path, "classifier", signature=CLASSIFIER, golden=answers))


def test_a_golden_output_of_another_shape_is_refused(
    tmp_path: Path, publish: Publish, answers: dict[str, Any]
) -> None:
    answers["output/logits"] = answers["output/logits"][:2]
    with pytest.raises(ArtifactError, match=r"has shape \[3, 3\] where the source model's has \[2, 3\]"):
        loaded(publish(tmp_path, "classifier", signature=CLASSIFIER, golden=answers))


def test_golden_text_and_bfloat16_are_compared(tmp_path: Path, publish: Publish) -> None:
    text = np.array([["a", "\u00e9"], ["", "ccc"]])
    signature = {
        "inputs": [matrix("x", "BYTES", "width")],
        "outputs": [matrix("y", "BYTES", "width")],
        "batched": True,
    }
    loaded(publish(tmp_path, "echo_bytes", signature=signature, golden={"input/x": text, "output/y": text}))
    wrong = np.array([["a", "b"], ["", "ccc"]])
    with pytest.raises(ArtifactError, match="1 of 4 elements differ"):
        loaded(
            publish(
                tmp_path / "w", "echo_bytes", signature=signature, golden={"input/x": text, "output/y": wrong}
            )
        )
    bits = float32_to_bfloat16(FEATURES)
    for number, array in enumerate((bits, bits.view(ml_dtypes.bfloat16))):
        golden = {"input/x": array, "output/y": array}
        loaded(publish(tmp_path, "echo_bf16", version=number + 1, golden=golden))


def test_a_changed_file_is_refused(tmp_path: Path, publish: Publish) -> None:
    folder = publish(tmp_path, "classifier", signature=CLASSIFIER)
    with (folder / "model.onnx").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(
        ArtifactError, match=r"model.onnx is not the file that was compiled: expected SHA-256"
    ):
        loaded(folder)


def test_a_missing_file_is_refused(tmp_path: Path, publish: Publish, answers: dict[str, Any]) -> None:
    folder = publish(tmp_path, "classifier", signature=CLASSIFIER, golden=answers)
    (folder / "golden.npz").unlink()
    with pytest.raises(ArtifactError, match=r"golden.npz is missing, but the manifest lists it"):
        loaded(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"schema": 2}, "has schema 2; this version of kerve reads schema 1", id="schema"),
        pytest.param(
            {"files": {"../../secret": {"sha256": "00"}}},
            "which lies outside its folder",
            id="path traversal",
        ),
        pytest.param(
            {"signature": {**CLASSIFIER, "inputs": [matrix("image", "FP32", 4)]}},
            "does not match its manifest: expected the inputs",
            id="another input",
        ),
        pytest.param(
            {"signature": {**CLASSIFIER, "outputs": [matrix("logits", "FP99", 3)]}},
            "unknown datatype 'FP99'",
            id="unknown datatype",
        ),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path, publish: Publish
) -> None:
    folder = publish(tmp_path, "classifier", signature=CLASSIFIER)
    file = folder / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(ArtifactError, match=message):
        loaded(folder)


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "one"}', '{"schema": 1'])
def test_a_damaged_manifest_is_refused(text: str, tmp_path: Path, publish: Publish) -> None:
    folder = publish(tmp_path, "classifier", signature=CLASSIFIER)
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest.json is not a manifest|has schema"):
        loaded(folder)


def test_a_damaged_golden_file_is_refused(tmp_path: Path, publish: Publish) -> None:
    folder = publish(tmp_path, "classifier")
    (folder / "golden.npz").write_bytes(b"PK not really")
    with pytest.raises(ArtifactError, match=r"golden.npz cannot be read"):
        loaded(folder)


def test_a_damaged_model_is_refused(tmp_path: Path, publish: Publish) -> None:
    folder = publish(tmp_path, "classifier")
    (folder / "model.onnx").write_bytes(b"nope")
    with pytest.raises(ArtifactError, match=r"model.onnx is not an ONNX model"):
        loaded(folder)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"contains no model.onnx; expected a folder"):
        read_artifact(tmp_path)


def test_only_the_requested_outputs_are_computed(tmp_path: Path, publish: Publish) -> None:
    model = loaded(publish(tmp_path, "classifier"))
    assert list(model.run({"features": FEATURES})) == ["probabilities", "logits"]
    assert list(model.run({"features": FEATURES}, {"logits"})) == ["logits"]


def test_a_batch_without_rows_gives_outputs_without_rows(tmp_path: Path, publish: Publish) -> None:
    outputs = loaded(publish(tmp_path, "classifier")).run({"features": FEATURES[:0]})
    assert {name: array.shape for name, array in outputs.items()} == {
        "probabilities": (0, 3),
        "logits": (0, 3),
    }


def test_values_outside_the_model_are_the_callers_fault(tmp_path: Path, publish: Publish) -> None:
    model = loaded(publish(tmp_path, "lookup"))
    with pytest.raises(InvalidArgumentError, match=r"idx=10 must be within the inclusive range \[-10,9\]$"):
        model.run({"ids": np.array([[1, 10]])})


def test_a_model_that_fails_tells_no_internals(tmp_path: Path, publish: Publish) -> None:
    model = loaded(publish(tmp_path, "triples"))
    with pytest.raises(InternalError) as caught:
        model.run({"x": np.zeros((1, 4), np.float32)})
    assert str(caught.value) == "the model failed; see the server's log"
    assert "reshape" in str(caught.value.__cause__)


def test_a_warm_up_that_fails_is_told_with_its_reason(
    tmp_path: Path, publish: Publish, caplog: pytest.LogCaptureFixture
) -> None:
    loaded(publish(tmp_path, "triples"))
    (told,) = (each.message for each in caplog.records if "warm-up" in each.message)
    assert "reshape" in told
    assert "see the server's log" not in told


def test_a_closed_model_is_unavailable(tmp_path: Path, publish: Publish) -> None:
    model = loaded(publish(tmp_path, "classifier"))
    model.close()
    with pytest.raises(UnavailableError, match="is shutting down here"):
        model.run({"features": FEATURES})


def test_text_that_is_not_utf8_is_refused(tmp_path: Path, publish: Publish) -> None:
    model = loaded(publish(tmp_path, "echo_bytes"))
    with pytest.raises(InvalidArgumentError, match=r"input 'x': expected UTF-8, .* but element 1 is not"):
        model.run({"x": object_array([b"a", b"\xff"]).reshape(1, 2)})
    kept = model.run({"x": object_array(["\u00e9\0x".encode(), b""]).reshape(2, 1)})["y"]
    assert kept.tolist() == [["\u00e9\0x".encode()], [b""]]

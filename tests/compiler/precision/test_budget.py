"""From a Keras model to an artifact in a reduced precision, or to a clear refusal."""

import io
import json
import math
from pathlib import Path
from typing import Any, get_args

import keras
import numpy as np
import pytest

from kerve.compiler import AccuracyBudgetError, Artifact, LoadError, compile_model
from kerve.compiler.budgets import BUDGETS
from kerve.compiler.options import CompileOptions, Precision
from kerve.compiler.precision import PRECISIONS


@pytest.fixture
def files(digits: Any, tmp_path: Path) -> dict[str, Path]:
    """Labelled test data, and calibration data."""
    np.savez(tmp_path / "data.npz", x=digits.test_x, y=digits.test_y)
    np.savez(tmp_path / "calibration.npz", image=digits.train_x[:200])
    return {"data": tmp_path / "data.npz", "calibration": tmp_path / "calibration.npz"}


def compiled(model: keras.Model, folder: Path, **options: Any) -> Artifact:
    return compile_model(model, repository=folder / "models", name="m", options=CompileOptions(**options))


def test_every_precision_has_a_budget_and_an_option() -> None:
    assert set(PRECISIONS) == set(BUDGETS)
    assert set(get_args(Precision)) == {"float32", *PRECISIONS}


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_trained_net_keeps_its_accuracy(
    precision: Precision, mobile: keras.Model, files: dict[str, Path], tmp_path: Path
) -> None:
    manifest = compiled(mobile, tmp_path, precision=precision, **files).manifest
    assert manifest.precision == precision
    (loss,) = manifest.reduction.losses
    assert (loss.measure, loss.data, loss.rows) == ("accuracy", "user", 397)
    assert loss.before > 0.9
    assert loss.before - loss.after <= loss.allowed == BUDGETS[precision].accuracy
    assert manifest.reduction.calibration == ("user" if precision == "int8" else "")
    assert {check.data for check in manifest.verification.checks} == {"user"}
    for check in manifest.verification.checks:
        assert check.max_abs_error < check.atol < 0.5


def test_dynamic_ranges_that_destroy_a_net_of_depthwise_convolutions_are_caught(
    unbalanced: keras.Model, files: dict[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(AccuracyBudgetError) as caught:
        compiled(unbalanced, tmp_path, precision="int8-dynamic", **files)
    message = str(caught.value)
    assert (
        "int8-dynamic loses more than its budget on user data: output 'probabilities' is right in" in message
    )
    assert "float32 in 9" in message
    assert "(allowed: 0.01)" in message
    assert "grows most in 'pointwise_0' (0.0" in message
    assert "--max-drop" in message
    assert not (tmp_path / "models").exists()


def test_without_any_data_it_is_caught_as_well(unbalanced: keras.Model, tmp_path: Path) -> None:
    with pytest.raises(AccuracyBudgetError, match=r"chooses another class in .* of 64 rows"):
        compiled(unbalanced, tmp_path, precision="int8-dynamic")


def test_the_same_net_in_float16_is_unharmed(
    unbalanced: keras.Model, files: dict[str, Path], tmp_path: Path
) -> None:
    (loss,) = compiled(unbalanced, tmp_path, precision="float16", **files).manifest.reduction.losses
    assert abs(loss.drop) <= 0.005


def test_a_larger_budget_lets_it_pass_and_is_on_record(
    unbalanced: keras.Model, files: dict[str, Path], tmp_path: Path
) -> None:
    artifact = compiled(unbalanced, tmp_path, precision="int8-dynamic", max_drop=1.0, **files)
    (loss,) = artifact.manifest.reduction.losses
    assert loss.allowed == 1.0
    assert loss.drop > 0.3
    assert artifact.manifest.reduction.layers[0].layer == "pointwise_0"


def test_a_budget_of_nothing_is_kept(mobile: keras.Model, files: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(AccuracyBudgetError, match=r"allowed: 0\)"):
        compiled(mobile, tmp_path, precision="int4-weights", max_drop=0.0, calibration=files["calibration"])


def test_two_compiles_are_byte_identical(mobile: keras.Model, files: dict[str, Path], tmp_path: Path) -> None:
    first, second = (compiled(mobile, tmp_path, precision="int8", **files).path for _ in range(2))
    assert sorted(file.name for file in first.iterdir()) == sorted(file.name for file in second.iterdir())
    for file in first.iterdir():
        assert file.read_bytes() == (second / file.name).read_bytes(), file.name


def test_random_ranges_and_random_judgement_are_warned_of(mobile: keras.Model, tmp_path: Path) -> None:
    manifest = compiled(mobile, tmp_path, precision="int8").manifest
    assert manifest.reduction.calibration == "seeded"
    assert any("--calibration" in warning for warning in manifest.warnings)
    assert any("--data" in warning for warning in manifest.warnings)


def test_weights_that_stay_are_warned_of(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.layers.Input((None, 4), name="steps"), keras.layers.GRU(8), keras.layers.Dense(2)]
    )
    warnings = compiled(model, tmp_path, precision="int4-weights").manifest.warnings
    assert "stay in float32 (read by 1 GRU)" in " ".join(warnings)


@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
def test_a_model_without_layers_in_float32_has_none_to_name(precision: Any, tmp_path: Path) -> None:
    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.ops.softmax(keras.ops.cast(x, "float64") * 2.0))
    options = CompileOptions(precision=precision)
    manifest = compile_model(model, repository=tmp_path, name="m", options=options).manifest
    assert manifest.precision == precision
    assert f"{precision} changes nothing" in " ".join(manifest.warnings)


@pytest.mark.parametrize("policy", ["mixed_float16", "float64"])
def test_weights_that_the_author_gave_another_type_are_warned_of(policy: str, tmp_path: Path) -> None:
    layers = [keras.layers.Dense(8, dtype=policy), keras.layers.Dense(2, dtype="float32")]
    model = keras.Sequential([keras.layers.Input((16,), name="x"), *layers])
    warnings = " ".join(compiled(model, tmp_path, precision="int8", max_drop=1.0).manifest.warnings)
    stay = "float16" if policy == "mixed_float16" else "float64"
    assert f"89% of the weights; they stay in {stay} (read by 1 MatMul); only weights in float32" in warnings
    assert "give the model the dtype policy float32" in warnings


def test_weights_that_keras_quantized_are_not_reduced_again(tmp_path: Path) -> None:
    model = keras.Sequential([keras.layers.Input((16,), name="x"), keras.layers.Dense(8)])
    model.quantize("int8")
    warnings = " ".join(compiled(model, tmp_path, precision="float16").manifest.warnings)
    assert "float16 changes nothing: it has no float32 weights; if Keras quantized the model" in warnings


def test_weights_that_shrink_without_other_operators_are_a_change(tmp_path: Path) -> None:
    layers = [keras.layers.Dense(8, dtype="mixed_bfloat16") for _ in range(2)]
    model = keras.Sequential([keras.layers.Input((4,), name="x"), *layers])
    warnings = compiled(model, tmp_path, precision="float16").manifest.warnings
    assert "changes nothing" not in " ".join(warnings)


def test_each_output_has_its_labels(tmp_path: Path) -> None:
    inputs = keras.Input((6,), name="x")
    hidden = keras.layers.Dense(8, activation="relu")(inputs)
    model = keras.Model(
        inputs,
        {
            "kind": keras.layers.Dense(3, activation="softmax", name="kind")(hidden),
            "size": keras.layers.Dense(1, name="size")(hidden),
            "rest": keras.layers.Dense(2, name="rest")(hidden),
        },
    )
    rng = np.random.default_rng(0)
    x, size = rng.standard_normal((40, 6), np.float32), rng.standard_normal(40)
    np.savez(tmp_path / "data.npz", x=x, size=size, kind=rng.integers(0, 3, 40))
    losses = compiled(
        model, tmp_path, precision="float16", data=tmp_path / "data.npz"
    ).manifest.reduction.losses
    assert {loss.output: loss.measure for loss in losses} == {
        "kind": "accuracy",
        "size": "rmse",
        "rest": "error",
    }
    np.savez(tmp_path / "data.npz", x=x, y=size)
    with pytest.raises(LoadError, match="labels y could be of kind, rest, size; name the array after"):
        compiled(model, tmp_path, precision="float16", data=tmp_path / "data.npz")


def test_too_few_labels_are_refused(mobile: keras.Model, digits: Any, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=digits.test_x, y=digits.test_y[:10])
    with pytest.raises(LoadError, match=r"labels of output 'probabilities'.*\[10\].*expected 397 rows"):
        compiled(mobile, tmp_path, precision="int8", data=tmp_path / "data.npz")


@pytest.mark.parametrize("first", [10, -1], ids=["beyond the last class", "none"])
def test_labels_are_classes_or_negative_where_there_are_none(
    mobile: keras.Model, digits: Any, tmp_path: Path, first: int
) -> None:
    labels = digits.test_y.copy()
    labels[0] = first
    np.savez(tmp_path / "data.npz", x=digits.test_x, y=labels)
    if first < 0:
        manifest = compiled(mobile, tmp_path, precision="float16", data=tmp_path / "data.npz").manifest
        right = (mobile.predict(digits.test_x, verbose=0).argmax(-1) == labels).sum()
        assert manifest.reduction.losses[0].before == pytest.approx(right / 396, abs=1e-3)
        return
    with pytest.raises(LoadError, match=r"largest label of output 'probabilities' is 10; .* from 0 to 9"):
        compiled(mobile, tmp_path, precision="float16", data=tmp_path / "data.npz")


@pytest.mark.parametrize("option", ["data", "calibration"])
@pytest.mark.parametrize(
    ("ids", "message"),
    [
        pytest.param(np.full((4, 3), 9), r"fails on .*9.*; give .*inputs", id="beyond the vocabulary"),
        pytest.param(np.full((4, 3), 1 << 40), r"'ids' holds numbers out of range", id="beyond the type"),
        pytest.param(np.zeros((5, 3), np.int32), r"\[batch, 3\] \(batch=4 in", id="more rows"),
    ],
)
def test_ids_that_the_model_does_not_know_are_told_of(
    tmp_path: Path, option: str, ids: Any, message: str
) -> None:
    given = [keras.Input((2,), name="x"), keras.Input((3,), dtype="int32", name="ids")]
    words = keras.layers.Flatten()(keras.layers.Embedding(9, 2)(given[1]))
    model = keras.Model(given, keras.layers.Dense(3)(keras.layers.Concatenate()([given[0], words])))
    np.savez(tmp_path / "given.npz", x=np.ones((4, 2), np.float32), ids=ids)
    with pytest.raises(LoadError, match=message):
        compiled(model, tmp_path, precision="int8", **{option: tmp_path / "given.npz"})


@pytest.mark.parametrize(
    "options", [{"max_drop": math.nan}, {"max_drop": -0.1}, {"precision": "int7"}], ids=str
)
def test_options_without_a_meaning_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="expected"):
        CompileOptions(**options)


def _damaged() -> bytes:
    archive = io.BytesIO()
    np.savez(archive, x=np.ones((3, 8, 8, 1), np.float32))
    content = bytearray(archive.getvalue())
    content[len(content) // 2] ^= 1
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(np.full((3, 8, 8, 1), np.nan, np.float32), "'image' contains NaN or infinity", id="NaN"),
        pytest.param(np.zeros((0, 8, 8, 1), np.float32), "holds no elements: its 'batch' is 0", id="no rows"),
        pytest.param(np.zeros((3, 8, 9, 1), np.float32), r"has shape \[3, 8, 9, 1\]", id="other shape"),
        pytest.param(b"not an archive", "write one with numpy.savez", id="no archive"),
        pytest.param(np.full((3, 8, 8, 1), None), r"Object arrays.*array\.astype\(str\)", id="objects"),
        pytest.param(_damaged(), "is not a .npz file of plain arrays: Bad CRC-32", id="damaged archive"),
    ],
)
def test_calibration_that_cannot_be_used_is_refused(
    mobile: keras.Model, tmp_path: Path, content: Any, message: str
) -> None:
    path = tmp_path / "calibration.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.savez(path, x=content)
    with pytest.raises(LoadError, match=message):
        compiled(mobile, tmp_path, precision="int8", calibration=path)


def test_ranges_are_not_measured_on_data_with_nan_in_it(mobile: keras.Model, tmp_path: Path) -> None:
    images = np.ones((3, 8, 8, 1), np.float32)
    np.savez(tmp_path / "finite.npz", x=images)
    images[1, 2] = np.nan
    data = tmp_path / "data.npz"
    np.savez(data, x=images)
    with pytest.raises(LoadError, match=r"on user data: array 'image' contains NaN .* with --calibration"):
        compiled(mobile, tmp_path, precision="int8", data=data)
    compiled(mobile, tmp_path, precision="int8", data=data, calibration=tmp_path / "finite.npz", max_drop=9.0)
    compiled(mobile, tmp_path, precision="int8-dynamic", data=data, max_drop=9.0)


def test_a_calibration_file_that_is_not_there_is_told(mobile: keras.Model, tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"there is no file .*missing\.npz"):
        compiled(mobile, tmp_path, precision="int8", calibration=tmp_path / "missing.npz")


def test_four_bits_need_a_new_operator_set() -> None:
    with pytest.raises(ValueError, match="int4-weights needs operator set 21 or newer, got --opset 20"):
        CompileOptions(precision="int4-weights", opset=20)


def test_the_manifest_is_plain_json(mobile: keras.Model, tmp_path: Path) -> None:
    path = compiled(mobile, tmp_path, precision="float16").path / "manifest.json"
    assert json.loads(path.read_text())["reduction"]["losses"][0]["measure"] == "choices"

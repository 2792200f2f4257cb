"""What old versions of TensorFlow and Keras wrote answers today as it answered then."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
import tf_keras

from kerve.compiler import ConversionError, LoadError, sources
from kerve.compiler.sources import LoadOptions

_HALF = 2e-2  # of models that compute in float16

#: What each writer left, by the folder it left it in.
_WHOLE_MODELS = {
    "keras1.2": (
        "branches.h5", "cnn.h5", "deconvolutions.h5", "frames.h5", "gone.h5", "merged.h5", "mlp.h5", "rnn.h5",
    ),
    "keras1.2-theano": ("padded.h5", "turned.h5"),
    "keras2.2-theano": ("padded.h5", "turned.h5"),
    "keras2.3": ("cnn.h5", "mlp.h5", "rnn.h5", "shared.h5"),
    "tf1.15": ("cnn.h5", "mlp.h5", "operators.h5", "rnn.h5", "shared.h5"),
    "tf2.4": (
        "attention.h5", "cnn.h5", "cudnn.h5", "custom.h5", "mixed.h5", "mlp.h5", "ops.h5", "rnn.h5",
        "shared.h5",
    ),
    "tf2.8": (
        "attention.h5", "cnn.h5", "cudnn.h5", "custom.h5", "mixed.h5", "mlp.h5", "ops.h5", "rnn.h5",
        "text.h5",
    ),
    "tf2.12": (
        "attention.keras", "cnn.keras", "cudnn.h5", "custom.keras", "mlp.keras", "ops.keras", "rnn.keras",
    ),
    "tf2.13": ("nested.keras",),
    "tf2.15": (
        "attention.keras", "cnn.keras", "cudnn.h5", "custom.h5", "custom.keras", "mixed.keras", "mlp.h5",
        "mlp.keras", "ops.h5", "ops.keras", "rnn.h5", "rnn.keras", "shared.h5", "shared.keras", "text.h5",
    ),
}  # fmt: skip

_SAVED_MODELS = {
    "tf1.15": ("estimator", "keras_cnn", "simple_save", "simple_save_keras"),
    "tf2.4": (
        "keras_cnn",
        "keras_subclassed",
        "module",
        "estimator_raw@predict",
        "estimator_parsing@predict",
    ),
    "tf2.8": ("keras_shared", "keras_subclassed", "module", "estimator_parsing@predict"),
    "tf2.12": ("keras_cnn", "keras_masked", "estimator_raw", "estimator_parsing@predict"),
    "tf2.15": ("export", "keras_cnn", "module"),
}

_PARTS = {
    "keras1.2": (
        ("recurrent_weights.h5", "recurrent.json"),
        ("recurrent_weights.h5", "recurrent.yaml"),
    ),
    "keras2.3": (("mlp_weights.h5", "mlp.yaml"),),
    "tf1.15": (("mlp_weights.h5", "mlp.json"), ("mlp_checkpoint", "mlp.yaml")),
    "tf2.4": (
        ("mlp_weights.h5", "mlp.json"),
        ("mlp_checkpoint", "mlp.json"),
        ("mlp_checkpoint/my_model", "mlp.json"),
    ),
    "tf2.15": (
        ("mlp_weights.h5", "mlp.json"),
        ("mlp.weights.h5", "mlp.json"),
        ("mlp_checkpoint", "mlp.json"),
    ),
    "tf2.13": (("mha_weights.h5", "mha.json"),),
}


def _cases(table: dict[str, tuple[Any, ...]]) -> list[Any]:
    return [
        pytest.param(writer, name, id=f"{writer}-{name if isinstance(name, str) else '+'.join(name)}")
        for writer, names in table.items()
        for name in names
    ]


@pytest.mark.parametrize(("writer", "name"), _cases(_WHOLE_MODELS))
def test_a_whole_model_answers_as_its_writer_did(
    writer: str,
    name: str,
    written_by: Callable[[str], Path],
    answers_alike: Callable[..., Any],
    own_layers: str,
) -> None:
    folder = written_by(writer)
    source = sources.load(folder / name, LoadOptions(import_=(own_layers,) if "custom" in name else ()))
    answers_alike(source, folder / f"{name}.npz", _HALF if "mixed" in name else 1e-4)
    assert source.record.file_name == name
    assert source.record.keras_version.startswith(("1.", "2."))


@pytest.mark.parametrize(("writer", "name"), _cases(_SAVED_MODELS))
def test_a_saved_model_answers_as_its_writer_did(
    writer: str, name: str, written_by: Callable[[str], Path], answers_alike: Callable[..., Any]
) -> None:
    folder, _, signature = name.partition("@")
    source = sources.load(written_by(writer) / folder, LoadOptions(signature=signature or None))
    answers_alike(source, written_by(writer) / f"{folder}.npz")
    assert source.record.kind == "saved_model"


@pytest.mark.parametrize(("writer", "name"), _cases(_PARTS))
def test_weights_and_an_architecture_answer_as_their_writer_did(
    writer: str, name: tuple[str, str], written_by: Callable[[str], Path], answers_alike: Callable[..., Any]
) -> None:
    folder = written_by(writer)
    weights, architecture = name
    source = sources.load(folder / weights, LoadOptions(architecture=str(folder / architecture)))
    answers_alike(source, folder / f"{weights.partition('/')[0]}.npz")
    assert source.record.kind == "weights"


def test_layers_of_keras_2_become_layers_of_keras_3(written_by: Callable[[str], Path]) -> None:
    source = sources.load(written_by("tf2.4") / "cnn.h5")
    kinds = {type(layer).__module__.partition(".")[0] for layer in source.model.layers}  # type: ignore[attr-defined]
    assert kinds == {"keras"}


def test_what_normalizes_by_the_batch_it_is_asked_with_is_refused(written_by: Callable[[str], Path]) -> None:
    with pytest.raises(ConversionError, match="'by_batch' is a BatchNormalization of Keras 1 in mode 2"):
        sources.load(written_by("keras1.2") / "batch_statistics.h5")


def test_what_was_compiled_is_compiled_again(written_by: Callable[[str], Path]) -> None:
    for name in ("mlp.h5", "mlp.keras"):
        model: Any = sources.load(written_by("tf2.15") / name).model  # type: ignore[attr-defined]
        assert model.compiled
        assert model.loss == "categorical_crossentropy"


def test_a_signature_can_be_chosen(written_by: Callable[[str], Path]) -> None:
    folder = written_by("tf2.4") / "module"
    lowered = sources.load(folder, LoadOptions(signature="half")).lower(21)
    assert [value.name for value in lowered.model.graph.outputs] == ["halved"]


def test_parsed_examples_become_inputs_named_after_their_features(written_by: Callable[[str], Path]) -> None:
    lowered = sources.load(written_by("tf2.12") / "estimator_parsing").lower(21)
    assert {value.name for value in lowered.model.graph.inputs} == {"age", "size"}
    # an example has all features: there are as many rows of one as of the other
    assert {str(value.shape[0]) for value in lowered.model.graph.inputs if value.shape} == {"batch"}
    assert "ParseExample" not in {node.op_type for node in lowered.model.graph}


def _edited(path: Path, folder: Path, edit: Callable[[dict[str, Any]], None]) -> Path:
    """Copy a file, with the configuration of each of its layers edited."""
    copy = folder / path.name
    shutil.copyfile(path, copy)
    with h5py.File(copy, "r+") as file:
        config = json.loads(file.attrs["model_config"])
        for layer in config["config"]["layers"]:
            edit(layer["config"])
        file.attrs["model_config"] = json.dumps(config)
    return copy


def test_numbers_that_tensorflow_1_11_wrote_as_arrays_are_numbers(
    written_by: Callable[[str], Path], answers_alike: Callable[..., Any], tmp_path: Path
) -> None:
    def as_arrays(config: dict[str, Any]) -> None:
        keys = {"max_value", "negative_slope", "threshold"} & set(config)
        config |= {key: {"type": "ndarray", "value": float(config[key])} for key in keys}

    source = sources.load(_edited(written_by("tf1.15") / "cnn.h5", tmp_path, as_arrays))
    answers_alike(source, written_by("tf1.15") / "cnn.h5.npz")


def test_an_interpolation_that_was_not_written_down_is_told(
    written_by: Callable[[str], Path], tmp_path: Path
) -> None:
    original = written_by("tf1.15") / "cnn.h5"
    forgetful = _edited(original, tmp_path, lambda config: config.pop("interpolation", None))
    says = "do not save that an UpSampling2D is bilinear"
    assert [says in warning for warning in sources.load(forgetful).warnings].count(True) == 1
    assert not [warning for warning in sources.load(original).warnings if says in warning]


@pytest.mark.parametrize(("version", "times"), [("2.9.0", 0), ("2.10.0", 1), ("2.15.0", 1)])
def test_an_attention_that_may_have_been_causal_is_told(version: str, times: int, tmp_path: Path) -> None:
    x = tf_keras.Input((4, 3), name="x")
    tf_keras.Model(x, tf_keras.layers.Attention(causal=True)([x, x])).save(tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as file:
        file.attrs["keras_version"] = version
    says = "do not save that an Attention is made with causal=True, so 'attention"
    warnings = sources.load(tmp_path / "model.h5").warnings
    assert [says in warning for warning in warnings].count(True) == times


def test_what_a_saved_model_was_made_without_is_told(
    written_by: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(written_by("tf1.15") / "simple_save_keras", tmp_path / "model")
    layer = {"class_name": "Attention", "config": {"name": "looks"}}
    config = {"config": {"layers": [layer]}, "keras_version": "2.2.4-tf"}
    (folder / "assets").mkdir()
    (folder / "assets" / "saved_model.json").write_text(json.dumps(config))
    says = "do not save that an Attention has a scale, so 'looks' is loaded as one without"
    assert [says in warning for warning in sources.load(folder).warnings].count(True) == 1


@pytest.mark.parametrize("name", ["mlp.h5", "mlp_weights.h5", "keras_cnn"])
def test_where_tf_keras_is_not_installed_an_error_says_how_to_get_it(
    written_by: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    with pytest.raises(LoadError, match="pip install --no-deps tf-keras"):
        sources.load(written_by("tf2.4") / name)

"""The kind of a source is told from its content, and what is none is said to be none."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest

from kerve.compiler import compile_model, sources
from kerve.compiler.errors import LoadError
from kerve.compiler.sources.detect import Kind, detect_source


@pytest.mark.parametrize(
    ("writer", "name", "kind", "version"),
    [
        pytest.param("tf2.15", "cnn.keras", Kind.ARCHIVE, "2.15.0", id="a zip file"),
        pytest.param("tf2.12", "cnn.keras", Kind.HDF5, "2.12.0", id="HDF5 under the name .keras"),
        pytest.param("keras2.3", "cnn.h5", Kind.HDF5, "2.3.1", id="HDF5"),
        pytest.param("tf2.4", "mlp_weights.h5", Kind.HDF5_WEIGHTS, "2.4.0", id="weights by layer names"),
        pytest.param("tf2.15", "mlp.weights.h5", Kind.HDF5_WEIGHTS, "", id="weights by layer paths"),
        pytest.param("tf2.4", "mlp_checkpoint", Kind.CHECKPOINT, "", id="the folder of a checkpoint"),
        pytest.param(
            "tf2.4", "mlp_checkpoint/my_model", Kind.CHECKPOINT, "", id="the prefix of a checkpoint"
        ),
        pytest.param(
            "tf2.4", "mlp_checkpoint/my_model.index", Kind.CHECKPOINT, "", id="the index of a checkpoint"
        ),
        pytest.param("tf2.4", "module", Kind.SAVED_MODEL, "", id="the folder of a SavedModel"),
        pytest.param("tf2.4", "module/saved_model.pb", Kind.SAVED_MODEL, "", id="the graph of a SavedModel"),
        pytest.param("tf2.4", "mlp.json", Kind.ARCHITECTURE, "", id="an architecture"),
    ],
)
def test_a_source_is_recognised(
    writer: str, name: str, kind: Kind, version: str, written_by: Callable[[str], Path]
) -> None:
    found = detect_source(written_by(writer) / name)
    assert found.kind is kind
    assert found.keras_version == version
    assert not found.is_keras_3


def test_the_name_of_a_file_does_not_matter(tmp_path: Path, written_by: Callable[[str], Path]) -> None:
    misnamed = tmp_path / "model.json"
    misnamed.write_bytes((written_by("tf2.15") / "cnn.keras").read_bytes())
    assert detect_source(misnamed).kind is Kind.ARCHIVE


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "is empty", id="nothing"),
        pytest.param(b"\x7fELF\x02\x01\x01", "as no Keras model does", id="a program"),
        pytest.param(b"\x80\x04\x95pickle", "is a pickle, which is never loaded", id="a pickle"),
        pytest.param(b"\x1c\0\0\0TFL3", "is a TensorFlow Lite model", id="TensorFlow Lite"),
        pytest.param(b"\x1f\x8b\x08", "is a compressed file or an archive; unpack it", id="a packed file"),
        pytest.param(b"\n<!doctype html>", "is a web page; download", id="a web page"),
        pytest.param(b"version https://git-lfs.github.com", "git lfs pull", id="a pointer"),
        pytest.param(b'{"modelTopology": {}}', "is a model of TensorFlow.js", id="TensorFlow.js"),
        pytest.param(b"PK\x03\x04 and no more", "damaged zip file", id="a torn zip file"),
        pytest.param(b"\x89HDF\r\n\x1a\n and no more", "damaged HDF5 file", id="a torn HDF5 file"),
    ],
)
def test_what_is_no_model_is_refused_in_one_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(LoadError, match=says):
        detect_source(path)


def test_hdf5_without_anything_of_keras_is_told_by_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "data.h5"
    with h5py.File(path, "w") as file:
        file["images/train"] = file["labels"] = [1.0]
    with pytest.raises(LoadError, match="holds neither a Keras model nor weights of one, but images, labels"):
        detect_source(path)


@pytest.mark.parametrize("damaged", ["model_config", "training_config"])
def test_a_damaged_configuration_is_told_by_its_name(tmp_path: Path, damaged: str) -> None:
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update({"model_config": "{}", "training_config": "{}", damaged: "{"})
    with pytest.raises(LoadError, match=f"the {damaged} of .* is not JSON"):
        detect_source(path)


@pytest.mark.parametrize("name", ["m.keras", "folder/saved_model.pb", "folder/checkpoint"])
def test_what_the_system_does_not_let_be_read_is_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.symlink_to("/proc/self/mem")  # opens, and fails when it is read
    source = path if path.parent == tmp_path else path.parent
    with pytest.raises(LoadError, match=rf"cannot load {source}: .*(cannot be read|Input/output) "):
        sources.load(source)
    with pytest.raises(LoadError, match=f"cannot load {source}"):
        compile_model(source, repository=tmp_path / "models", name="m")


def test_a_configuration_nested_beyond_reason_is_refused(tmp_path: Path) -> None:
    config: dict[str, Any] = {"class_name": "Dense", "config": {"units": 2}}
    for _ in range(120):
        config = {"class_name": "Sequential", "config": {"layers": [config]}}
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.15.1"}))
        archive.writestr("model.weights.h5", b"")
    with pytest.raises(LoadError, match="nested too deeply"):
        sources.load(tmp_path / "m.keras")


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"does not exist; expected a \.keras"):
        detect_source(tmp_path / "model.keras")


def test_a_folder_with_one_checkpoint_needs_no_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "epoch-3.index").touch()
    found = detect_source(tmp_path)
    assert (found.kind, found.path) == (Kind.CHECKPOINT, tmp_path / "epoch-3")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("frozen.pb", "is a TensorFlow graph, not a SavedModel; load it"),
        ("model.ckpt-7.meta", "is the graph of a TensorFlow 1 checkpoint"),
        ("model.data-00000-of-00001", "is a part of a checkpoint; give the path up to"),
        ("model.onnx", "is already an ONNX model"),
    ],
)
def test_what_only_a_name_tells_is_refused_by_its_name(tmp_path: Path, name: str, says: str) -> None:
    (tmp_path / name).write_bytes(b"\n\x0b\n\x01x\x12")
    with pytest.raises(LoadError, match=says):
        detect_source(tmp_path / name)


@pytest.mark.parametrize(
    ("member", "says"),
    [
        ("export/saved_model.pb", "is a packed SavedModel; unpack it"),
        ("best.h5", "is a zip file that contains a model; unpack it"),
        ("arr_0.npy", "is a file of NumPy arrays"),
        ("readme.txt", "without config.json and metadata.json"),
    ],
)
def test_a_zip_file_is_told_by_what_it_holds(tmp_path: Path, member: str, says: str) -> None:
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr(member, b"")
    with pytest.raises(LoadError, match=says):
        detect_source(tmp_path / "model.zip")


def _touched(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_folder_with_one_version_of_a_saved_model_is_that_version(tmp_path: Path) -> None:
    _touched(tmp_path / "7" / "saved_model.pb")
    found = detect_source(tmp_path)
    assert (found.kind, found.path) == (Kind.SAVED_MODEL, tmp_path / "7")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (("1/saved_model.pb", "2/saved_model.pb"), "give one of them: .*1, .*2$"),
        (("epoch1.keras", "epoch2.keras"), r"give one of them: .*epoch1\.keras, .*epoch2\.keras$"),
        (("oracle.json", "trial_0/trial.json"), r"is a project of Keras Tuner.* tuner\.get_best_models"),
        (("model.json", "group1-shard1of1.bin"), "is a model of TensorFlow.js"),
    ],
)
def test_a_folder_around_models_is_told_by_what_it_holds(
    tmp_path: Path, names: tuple[str, ...], says: str
) -> None:
    _touched(*(tmp_path / name for name in names))
    with pytest.raises(LoadError, match=says):
        detect_source(tmp_path)


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"holds neither saved_model\.pb nor a checkpoint"):
        detect_source(tmp_path)


@pytest.mark.parametrize("name", ["cnn.keras", "cnn.h5"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(
    name: str, part: float, tmp_path: Path, written_by: Callable[[str], Path]
) -> None:
    whole = (written_by("tf2.15") / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(LoadError, match="damaged"):
        detect_source(path)

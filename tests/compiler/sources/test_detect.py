"""The kind of a source is told from its content, and what is none is said to be none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kerve.compiler.errors import LoadError
from kerve.compiler.sources.detect import Kind, recognise


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
    found = recognise(written_by(writer) / name)
    assert found.kind is kind
    assert found.keras_version == version
    assert not found.is_keras_3


def test_the_name_of_a_file_does_not_matter(tmp_path: Path, written_by: Callable[[str], Path]) -> None:
    misnamed = tmp_path / "model.json"
    misnamed.write_bytes((written_by("tf2.15") / "cnn.keras").read_bytes())
    assert recognise(misnamed).kind is Kind.ARCHIVE


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "is empty", id="nothing"),
        pytest.param(b"\x7fELF\x02\x01\x01", "which no kind of Keras model does", id="a program"),
        pytest.param(b"\x80\x04\x95pickle", "which no kind of Keras model does", id="a pickle"),
        pytest.param(b"PK\x03\x04 and no more", "damaged zip file", id="a torn zip file"),
        pytest.param(b"\x89HDF\r\n\x1a\n and no more", "damaged HDF5 file", id="a torn HDF5 file"),
    ],
)
def test_what_is_no_model_is_refused_in_one_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(content)
    with pytest.raises(LoadError, match=says):
        recognise(path)


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"does not exist; expected a \.keras"):
        recognise(tmp_path / "model.keras")


def test_a_folder_with_one_checkpoint_needs_no_file_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "epoch-3.index").touch()
    found = recognise(tmp_path)
    assert (found.kind, found.path) == (Kind.CHECKPOINT, tmp_path / "epoch-3")


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match=r"holds neither saved_model\.pb nor a checkpoint"):
        recognise(tmp_path)


@pytest.mark.parametrize("name", ["cnn.keras", "cnn.h5"])
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_refused(
    name: str, part: float, tmp_path: Path, written_by: Callable[[str], Path]
) -> None:
    whole = (written_by("tf2.15") / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(LoadError, match="damaged"):
        recognise(path)

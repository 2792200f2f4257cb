"""A version appears whole, under the next number, or not at all."""

import os
from pathlib import Path

import pytest

from kerve.compiler.repository import check_name, publish, staging


def test_versions_count_up(tmp_path: Path) -> None:
    for expected in ("1", "2", "3"):
        with staging(tmp_path / "models", "digits") as folder:
            (folder / "model.onnx").write_text(expected)
            published = publish(folder, tmp_path / "models" / "digits")
        assert published == tmp_path / "models" / "digits" / expected
        assert (published / "model.onnx").read_text() == expected


def test_files_are_on_the_disk_before_they_have_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss of power must not leave a version whose files are empty."""
    synced: list[tuple[str, bool]] = []

    def sync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        synced.append((path.name, (tmp_path / "digits" / "1").exists()))

    with staging(tmp_path, "digits") as folder:
        (folder / "model.onnx").write_text("weights")
        (folder / "inner").mkdir()
        (folder / "inner" / "more").write_text("more")
        monkeypatch.setattr(os, "fsync", sync)
        publish(folder, tmp_path / "digits")
    before = {name for name, published in synced if not published}
    assert before == {"model.onnx", "inner", "more", folder.name}
    assert {name for name, published in synced if published} == {"digits", tmp_path.name}


def test_the_next_version_follows_the_highest_number(tmp_path: Path) -> None:
    (tmp_path / "digits" / "41" / "x").mkdir(parents=True)
    (tmp_path / "digits" / "notes").mkdir()
    with staging(tmp_path, "digits") as folder:
        assert publish(folder, tmp_path / "digits").name == "42"


def fail_in(repository: Path) -> None:
    with staging(repository, "digits") as folder:
        (folder / "model.onnx").write_text("half")
        raise RuntimeError


def test_a_failed_compile_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        fail_in(tmp_path / "new" / "models")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_compile_leaves_the_other_versions(tmp_path: Path) -> None:
    (tmp_path / "digits" / "1").mkdir(parents=True)
    with pytest.raises(RuntimeError):
        fail_in(tmp_path)
    assert [entry.name for entry in (tmp_path / "digits").iterdir()] == ["1"]


def test_a_folder_being_filled_is_no_version(tmp_path: Path) -> None:
    with staging(tmp_path, "digits") as folder:
        assert folder.name.startswith(".")


def test_published_folders_can_be_read_by_a_server_of_another_user(tmp_path: Path) -> None:
    with staging(tmp_path, "digits") as folder:
        published = publish(folder, tmp_path / "digits")
    assert published.stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("name", ["digits", "Digits-2.1_b", "0"])
def test_names_that_can_be_served(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", ["", "..", ".digits", "a/b", "a b", "-x", "é", "a\n"])
def test_names_that_cannot_be_served(name: str) -> None:
    with pytest.raises(ValueError, match="expected letters, digits"):
        check_name(name)

"""Which folders are models and versions."""

import os
from pathlib import Path

import pytest

from kerve.runtime.errors import ArtifactError
from kerve.runtime.repository import Repository


def test_versions_are_positive_numbers_in_order(tmp_path: Path) -> None:
    for name in (
        "digits/2",
        "digits/10",
        "digits/1",
        "digits/0",
        "digits/01",
        "digits/.3.tmp",
        "digits/latest",
    ):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "digits" / "7").write_text("a file")
    (tmp_path / "empty").mkdir()
    (tmp_path / "note.txt").write_text("a file")
    repository = Repository(tmp_path)
    assert repository.models() == ["digits"]
    assert repository.versions("digits") == [1, 2, 10]
    assert repository.folder("digits", 10) == tmp_path / "digits" / "10"


def test_a_folder_that_is_no_model_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("digits/1", "late/01", ".git/1"):
        (tmp_path / name).mkdir(parents=True)
    repository = Repository(tmp_path)
    for _ in range(2):
        assert repository.models() == ["digits"]
    (told,) = caplog.messages
    assert "late is skipped: it contains no version; expected" in told
    (tmp_path / "late" / "1").mkdir()
    assert repository.models() == ["digits", "late"]
    (tmp_path / "late" / "1").rmdir()
    repository.models()
    assert len(caplog.messages) == 2


def test_a_first_version_that_is_being_written_is_no_stray(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("empty", "new/.incoming"):
        (tmp_path / name).mkdir(parents=True)
    assert Repository(tmp_path).models() == []
    assert not caplog.messages


def test_a_repository_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="expected a repository"):
        Repository(tmp_path / "nowhere").models()


def test_a_name_that_is_not_text_keeps_no_other_model_from_being_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("digits/1", os.fsdecode(b"\xff/1")):
        (tmp_path / name).mkdir(parents=True)
    assert Repository(tmp_path).models() == ["digits"]
    (told,) = caplog.messages
    assert rf"{tmp_path}/\xff is skipped: its name is not UTF-8" in told


@pytest.mark.parametrize("name", ["two\nlines", "red\x1b[31m", "line\u2028end"])
def test_a_name_that_controls_a_terminal_is_not_that_of_a_model(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for each in ("digits", name):
        (tmp_path / each / "1").mkdir(parents=True)
    assert Repository(tmp_path).models() == ["digits"]
    (told,) = caplog.messages
    assert told.isprintable()
    assert "is skipped: its name has control characters" in told

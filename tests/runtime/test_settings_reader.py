"""Settings are parsed again when, and only when, a file of theirs has changed."""

import os
from pathlib import Path

from kerve.runtime.config import SettingsReader


def test_files_are_read_again_only_when_they_change(tmp_path: Path) -> None:
    reader = SettingsReader()
    assert reader.read(tmp_path).config.max_batch_size == 0
    pbtxt, toml = tmp_path / "config.pbtxt", tmp_path / "config.toml"
    pbtxt.write_text("max_batch_size: 2")
    os.utime(pbtxt, (1, 1))
    first = reader.read(tmp_path)
    assert first.config.max_batch_size == 2
    assert reader.read(tmp_path) is first
    assert reader.read(tmp_path, '{"max_batch_size": 4}').config.max_batch_size == 4
    toml.write_text("max_batch_size = 3")
    assert reader.read(tmp_path).config.max_batch_size == 3
    toml.write_text("max_batch_size = 5")  # at once, and as long as before
    assert reader.read(tmp_path).config.max_batch_size == 5
    toml.unlink()
    assert reader.read(tmp_path).config.max_batch_size == 2
    reader.forget_others(())
    assert reader.read(tmp_path) is not first

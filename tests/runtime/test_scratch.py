"""What a server that was killed left in the temporary folder."""

import os
import signal
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton


def test_files_of_a_client_go_after_a_server_that_was_killed(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    models: Path,
    serve: Callable[..., AbstractContextManager[Any]],
) -> None:
    (tmp_path / "temporary").mkdir()
    (tmp_path / "models").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    explicit = ("--model-control-mode", "explicit")
    with (
        serve(tmp_path / "models", *explicit) as running,
        triton.InferenceServerClient(running.address) as client,
    ):
        client.load_model(
            "sent", config="{}", files={"file:1/model.onnx": (models / "pair.onnx").read_bytes()}
        )
        assert client.is_model_ready("sent")
        running.stop(signal.SIGKILL)
    left = [*(tmp_path / "temporary").iterdir()]
    assert any((each / "sent").is_dir() for each in left)
    for each in left:
        os.utime(each, (0, 0))
    with serve(tmp_path / "models", *explicit):
        assert not [each for each in left if each.exists()]

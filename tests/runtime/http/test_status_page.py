"""The status page in a real browser. Needs Chromium."""

import re
import shutil
import subprocess
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerve.runtime import Client

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium")
def test_the_page_shows_states_and_charts_that_move(tmp_path: Path, publish: Publish, serve: Serve) -> None:
    publish(tmp_path, "classifier")
    (publish(tmp_path, "scalar", name="bad") / "model.onnx").write_bytes(b"nope")
    stop = threading.Event()

    def load(address: str) -> None:
        with Client(address) as client:
            while not stop.is_set():
                client.infer("classifier", np.ones((3, 4), np.float32))
                stop.wait(0.005)

    with serve(tmp_path, "--http-port", "-1") as running:
        thread = threading.Thread(target=load, args=(running.address,))
        thread.start()
        assert CHROMIUM is not None
        flags = (
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=6000",
            "--dump-dom",
        )
        done = subprocess.run(
            [CHROMIUM, *flags, "--enable-logging=stderr", f"http://{running.http}/"],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        stop.set()
        thread.join()
    assert "CONSOLE" not in done.stderr, done.stderr  # no errors of scripts, nothing refused by the policy
    assert "1 of 2" in done.stdout
    assert "is not an ONNX model" in done.stdout
    lines = re.findall(r'<polyline points="([^"]+)"', done.stdout)
    assert len(lines) == 4
    # several samples each, and not all at the bottom
    for line in lines:
        heights = [float(point.split(",")[1]) for point in line.split()]
        assert len(heights) > 2
        assert min(heights) < max(heights)

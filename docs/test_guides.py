"""The guides: each code block runs as it stands, in order, beside the files that it names."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[1]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
FIXTURES = ROOT / "tests" / "compiler" / "fixtures"

Shell = Callable[[str], None]

#: What a reader of a guide has already: a file of the guide by the file of TensorFlow 2.4 that stands for it.
OLD = {
    "old.h5": "mlp.h5",
    "old_weights.h5": "mlp_weights.h5",
    "old_checkpoint": "mlp_checkpoint",
    "old.json": "mlp.json",
    "custom.h5": "custom.h5",
    "lambda.h5": "lambda.h5",
    "old_saved_model": "keras_cnn",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.syspath_prepend(tmp_path)  # where a reader's Python looks for modules, too
    shutil.unpack_archive(FIXTURES / "tf2.4.zip", tmp_path / "written")
    for name, written in OLD.items():
        (tmp_path / "written" / written).rename(tmp_path / name)
    shutil.copy(FIXTURES / "own_layers.py", tmp_path)
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "model.keras")
    with contextlib.chdir(tmp_path):
        yield tmp_path


@pytest.fixture
def ports() -> dict[str, str]:
    """Free ports in the place of those that a guide names, which are the defaults."""
    with socket.socket() as grpc, socket.socket() as http:
        free = {}
        for default, each in (("8001", grpc), ("8000", http)):
            each.bind(("127.0.0.1", 0))
            free[default] = str(each.getsockname()[1])
        return free


@pytest.fixture
def shell(ports: dict[str, str]) -> Iterator[Shell]:
    """Runs commands as a reader's shell does; what they left in the background ends with the guide."""
    addresses = {"KERVE_GRPC_PORT": ports["8001"], "KERVE_ADDRESS": f"127.0.0.1:{ports['8001']}"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **addresses, "KERVE_HTTP_PORT": ports["8000"], "PATH": path}
    begun: list[subprocess.Popen[str]] = []

    def run(code: str) -> None:
        process = subprocess.Popen(
            ["bash", "-ec", code],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        begun.append(process)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, f"{code}{output}"

    yield run
    for process in begun:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_the_code_of_a_guide_runs(guide: Path, folder: Path, ports: dict[str, str], shell: Shell) -> None:
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```", guide.read_text("utf-8"), re.M | re.S)
    assert blocks
    for language, code in blocks:
        for default, free in ports.items():
            code = code.replace(f":{default}", f":{free}")
        if language == "python":
            exec(compile(code, str(guide), "exec"), {})
        else:
            shell(code)

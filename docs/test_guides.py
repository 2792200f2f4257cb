"""README, tutorial and guides: each code block runs unchanged, in order, beside the files that it uses.

A block marked with a tool (```sh go) runs if the tool is installed. One that installs dependencies of the
tool (```sh go install) may fail without a registry; then the rest is skipped. Blocks marked with gpu run if a
GPU responds; otherwise the guide runs without them, and the guide with them is reported as skipped.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import keras
import pytest

from kerve.runtime.devices.choice import choose_devices
from kerve.runtime.devices.device import CPU, parse_device

ROOT = Path(__file__).parents[1]
GUIDES = [ROOT / "README.md", ROOT / "docs" / "tutorial.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
FIXTURES = ROOT / "tests" / "compiler" / "fixtures"

GPU = "gpu"

Shell = Callable[[str], "subprocess.CompletedProcess[str]"]


class Block(NamedTuple):
    """The code of a fenced block, and its marks."""

    language: str
    tool: str
    installs: str
    code: str

    @classmethod
    def all_of(cls, guide: Path) -> "list[Block]":
        fences = r"^```(sh|python)(?: (\w+))?(?: (install))?\n(.*?)^```"
        return [cls(*found) for found in re.findall(fences, guide.read_text("utf-8"), re.M | re.S)]


def cases() -> Iterator[Any]:
    """Yield each guide, once per tool that its blocks need."""
    for guide in GUIDES:
        tools = dict.fromkeys(block.tool for block in Block.all_of(guide) if block.tool)
        # without a GPU the rest of the guide still runs
        for tool in tools if tools.keys() - {GPU} else {"": None, **tools}:
            yield pytest.param(guide, tool, id=f"{guide.stem} {tool}".strip())


def gpu_answers() -> bool:
    return choose_devices(parse_device("auto")).devices != (CPU,)


#: Files that a reader already has: the name in the guide, and the file of TensorFlow 2.4 used for it.
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
    monkeypatch.syspath_prepend(tmp_path)  # the reader's working directory is on the module path
    shutil.unpack_archive(FIXTURES / "tf2.4.zip", tmp_path / "written")
    for name, written in OLD.items():
        (tmp_path / "written" / written).rename(tmp_path / name)
    shutil.copy(FIXTURES / "own_layers.py", tmp_path)
    for name in ("examples", "proto"):
        (tmp_path / name).symlink_to(ROOT / name)
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "model.keras")
    with contextlib.chdir(tmp_path):
        yield tmp_path


@pytest.fixture
def ports() -> dict[str, str]:
    """Return free ports by the default ports that the guides use."""
    with socket.socket() as grpc, socket.socket() as http:
        free = {}
        for default, each in (("8001", grpc), ("8000", http)):
            each.bind(("127.0.0.1", 0))
            free[default] = str(each.getsockname()[1])
        return free


@pytest.fixture
def shell(ports: dict[str, str]) -> Iterator[Shell]:
    """Runs commands as a reader's shell does; background processes end with the guide."""
    addresses = {"KERVE_GRPC_PORT": ports["8001"], "KERVE_ADDRESS": f"127.0.0.1:{ports['8001']}"}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **addresses, "KERVE_HTTP_PORT": ports["8000"], "PATH": path}
    begun: list[subprocess.Popen[bytes]] = []

    def run(code: str) -> "subprocess.CompletedProcess[str]":
        with tempfile.TemporaryFile("w+") as output:  # a pipe would stay open for what runs in the background
            process = subprocess.Popen(
                ["bash", "-ec", code],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            begun.append(process)
            ended = process.wait(timeout=600)
            output.seek(0)
            return subprocess.CompletedProcess(code, ended, output.read())

    yield run
    for process in begun:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize(("guide", "tool"), [*cases()])
@pytest.mark.timeout(900)  # installs packages of another language, and trains models
def test_the_code_of_a_guide_runs(
    guide: Path, tool: str, folder: Path, ports: dict[str, str], shell: Shell
) -> None:
    if tool == GPU and not gpu_answers():
        pytest.skip("needs an NVIDIA GPU and onnxruntime-gpu")
    if tool not in ("", GPU) and shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    blocks = [block for block in Block.all_of(guide) if block.tool in ("", tool)]
    assert blocks
    for language, _, installs, code in blocks:
        for default, free in ports.items():
            code = code.replace(f":{default}", f":{free}")
        if language == "python":
            exec(compile(code, str(guide), "exec"), {})
            continue
        done = shell(code)
        if installs and done.returncode:
            pytest.skip(f"what a client for {tool} needs cannot be installed: {done.stdout[-300:]}")
        assert done.returncode == 0, f"{code}{done.stdout}"

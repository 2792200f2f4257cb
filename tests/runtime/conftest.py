"""Repositories of small models, and real servers on them: `kerve serve` in a process of its own."""

import hashlib
import importlib
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
from numpy.typing import NDArray

from kerve.runtime.devices.driver import DriverError, driver

# A busy machine is no failure.
hypothesis.settings.register_profile("kerve", deadline=None)
hypothesis.settings.load_profile("kerve")

MODELS = Path(__file__).parent / "models"
KERVE = str(Path(sys.executable).with_name("kerve"))


@dataclass(frozen=True)
class Running:
    """A server that said it was ready."""

    address: str
    # Empty for a server without an HTTP port.
    http: str
    ready_line: str
    process: "subprocess.Popen[str]"
    log: Path

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=60)

    def metric(self, name: str, model: str) -> float:
        """Return a number of a model at this moment, as /metrics has it; needs an HTTP port."""
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=60) as answer:
            text = answer.read().decode()
        found = re.search(rf'^{name}{{model="{model}",[^}}]*}} (\S+)$', text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def wait_for(self, model: str, *, begun: int = 0, arrived: int = 0) -> None:
        """Wait until so many requests of a model have been begun, and so many have come."""

        def there() -> bool:
            taken = self.metric("kerve_queue_duration_seconds_count", model)
            return taken >= begun and taken + self.metric("kerve_queue_size", model) >= arrived

        wait_until(there, f"{begun} requests of {model!r} are begun and {arrived} are there")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait for what can be observed, as long as a busy machine needs for it."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, f"waited in vain until {what}"
        time.sleep(0.01)


Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Running]]
Until = Callable[[Callable[[], bool], str], None]


@pytest.fixture(scope="session")
def until() -> Until:
    """Waits for a condition that can be observed; the second argument says which."""
    return wait_until


@pytest.fixture(scope="module", params=["wire", "grpcio"])
def transport(request: pytest.FixtureRequest) -> str:
    """Each transport in turn; the native one where it is installed."""
    if request.param == "wire":
        pytest.importorskip("kerve_wire")
    return str(request.param)


@pytest.fixture(params=["grpc", "http"])
def triton_client(request: pytest.FixtureRequest, running: Any) -> Iterator[Any]:
    """A client of Triton's to a module's server, over each protocol; its `module` has the tensors."""
    module = importlib.import_module(f"tritonclient.{request.param}")
    address = running.address if request.param == "grpc" else running.http
    with module.InferenceServerClient(address) as client:
        client.module = module
        yield client


@pytest.fixture
def without_gpu() -> None:
    """Skips where a GPU answers."""
    with suppress(DriverError):
        driver()
        pytest.skip("a GPU answers here")


@pytest.fixture(scope="session")
def models() -> Path:
    """The folder of the committed ONNX files."""
    return MODELS


@pytest.fixture(scope="session")
def publish() -> Publish:
    """Puts a model into a repository, bare or with a manifest and golden data."""
    return publish_model


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Serve:
    """Runs `kerve serve` on a repository."""

    @contextmanager
    def running(repository: Path, *options: str) -> Iterator[Running]:
        log = tmp_path_factory.mktemp("server") / "log"
        ports = ("--grpc-port", "0", "--http-port", "0")
        command = [KERVE, "serve", "--repository", str(repository), *ports, *options]
        with (
            log.open("w") as stderr,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
        ):
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                address = re.search(r"\S+:\d+", line)
                assert address, f"no ready line; the log says: {log.read_text()}"
                http = re.search(r"HTTP on (\S+:\d+)", line)
                yield Running(address[0], http[1] if http else "", line, process, log)
            finally:
                process.kill()

    return running


@pytest.fixture(scope="session")
def server(serve: Serve, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of all the committed models, shared by the tests that do not stop it."""
    repository = tmp_path_factory.mktemp("models")
    for file in MODELS.glob("*.onnx"):
        publish_model(repository, file.stem)
    with serve(repository) as running:
        yield running
        assert running.stop() == 0


def publish_model(
    repository: Path,
    model: str,
    *,
    name: str | None = None,
    version: int = 1,
    signature: Mapping[str, Any] | None = None,
    golden: Mapping[str, NDArray[Any]] | None = None,
    checks: list[Mapping[str, Any]] | None = None,
) -> Path:
    """Return the folder of a new version; it has a manifest when a signature is given."""
    folder = repository / (name or model) / str(version)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes((MODELS / f"{model}.onnx").read_bytes())
    if golden is not None:
        np.savez(folder / "golden.npz", **golden)  # type: ignore[arg-type]  # the stub takes all keywords for bools
    if signature is not None:
        manifest = {
            "schema": 1,
            "name": name or model,
            "signature": signature,
            "source": {
                "kind": "keras",
                "file_name": f"{model}.keras",
                "sha256": "00",
                "keras_version": "3.15.1",
            },
            "toolchain": {"kerve": "0.1.0"},
            "opset": 18,
            "precision": "float32",
            "files": {
                file.name: {
                    "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
                    "bytes": str(file.stat().st_size),
                }
                for file in folder.iterdir()
            },
            "verification": {"checks": checks or []},
        }
        (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder

"""What the image, the service manager and the alerts of deploy/ rely on, held against a real server."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(params=["path", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """A service manager's socket, as systemd hands it over."""
    names = {"path": str(tmp_path / "notify"), "abstract": f"@kerve-{os.getpid()}"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.settimeout(60)
        receiver.bind(names[request.param].replace("@", "\0"))
        monkeypatch.setenv("NOTIFY_SOCKET", names[request.param])
        yield receiver


def told(manager: socket.socket) -> dict[str, str]:
    pairs = (line.partition("=") for line in manager.recv(4096).decode().splitlines())
    return {key: value for key, _, value in pairs}


def test_the_service_manager_hears_of_the_start_of_reloads_and_of_the_end(
    manager: socket.socket, tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    publish(tmp_path, "scalar")
    with serve(tmp_path) as running:
        assert told(manager)["READY"] == "1"
        for _ in range(2):
            running.process.send_signal(signal.SIGHUP)
            reloading = told(manager)
            assert reloading["RELOADING"] == "1"
            assert int(reloading["MONOTONIC_USEC"]) > 0
            assert told(manager)["READY"] == "1"
        assert running.stop() == 0
        assert told(manager)["STOPPING"] == "1"


def test_a_reload_that_fails_is_over_too(
    manager: socket.socket, tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    repository = tmp_path / "models"
    publish(repository, "scalar")
    with serve(repository) as running:
        assert told(manager)["READY"] == "1"
        repository.rename(tmp_path / "elsewhere")
        running.process.send_signal(signal.SIGHUP)
        assert told(manager)["RELOADING"] == "1"
        assert told(manager)["READY"] == "1"
        assert "the repositories cannot be read" in running.log.read_text()


def test_a_service_manager_that_is_gone_keeps_nobody_from_serving(
    tmp_path: Path, publish: Publish, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, "scalar")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    with serve(tmp_path) as running:
        assert running.stop() == 0
        assert "the service manager cannot be notified of READY=1" in running.log.read_text()


def test_the_images_health_check_asks_the_port_whether_the_server_is_ready(
    tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    found = re.search(
        r"^HEALTHCHECK .*\\\n\s*CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE
    )
    assert found
    program, *arguments = json.loads(found[1])
    assert program == "python"

    def check(port: str) -> int:
        environment = {**os.environ, "KERVE_HTTP_PORT": port}
        return subprocess.run(
            [sys.executable, *arguments], env=environment, stderr=subprocess.DEVNULL, check=False
        ).returncode

    publish(tmp_path, "scalar")
    (publish(tmp_path, "pair") / "model.onnx").write_bytes(b"nope")
    with serve(tmp_path, "--http-port", "-1") as running:
        port = running.http.rpartition(":")[2]
        assert check(port) == 0
        running.stop()
    assert check(port) != 0
    with serve(tmp_path, "--http-port", "-1", "--strict-readiness") as running:
        assert check(running.http.rpartition(":")[2]) != 0


def test_every_metric_that_an_alert_or_a_chart_names_is_one_of_the_servers(
    tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    publish(tmp_path, "scalar")
    (publish(tmp_path, "scalar", name="broken") / "model.onnx").write_bytes(b"nope")
    rules = (DEPLOY / "prometheus" / "kerve.rules.yaml").read_text()
    alerts = re.findall(r"expr: (?:\|\n)?((?:.+\n)+?)\s+for:", rules)
    assert len(alerts) == rules.count("alert:")
    dashboard = json.loads((DEPLOY / "grafana" / "kerve.json").read_text())
    charts = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    named = {name for each in (*alerts, *charts) for name in re.findall(r"\b(?:kerve|nv|process)_\w+", each)}
    with (
        serve(tmp_path, "--http-port", "-1") as running,
        urllib.request.urlopen(f"http://{running.http}/metrics", timeout=60) as answer,
    ):
        text = answer.read().decode()
    exposed = {
        name + suffix
        for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
        for suffix in (("_bucket", "_count", "_sum") if kind == "histogram" else ("",))
    }
    assert named <= exposed
    assert 'kerve_model_failed{model="broken",version="1"} 1.0' in text
    assert 'kerve_model_failed{model="scalar",version="1"} 0.0' in text


def test_onnx_runtime_collects_no_telemetry(
    tmp_path: Path, publish: Publish, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It writes an identifier and what it would send to a cache in the user's home."""
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    for variable in ("CI", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY"):
        monkeypatch.delenv(variable, raising=False)
    publish(tmp_path / "models", "scalar")
    with serve(tmp_path / "models") as running:
        assert running.stop() == 0
    assert list(home.rglob("*")) == []

"""A client in another language, with another HTTP/2: Node's, from a stub generated from our .proto."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

CLIENT = Path(__file__).parent / "node_client"
PROTOS = Path(__file__).parents[3] / "proto"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The client beside its packages; the test is skipped where they cannot be had."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    folder = tmp_path_factory.mktemp("node")
    for file in CLIENT.iterdir():
        if file.is_file():
            shutil.copy(file, folder)
    command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    installed = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    if installed.returncode:
        pytest.skip(f"npm cannot install the client's packages: {installed.stderr[-300:]}")
    return folder / "client.mjs"


def test_a_node_client_is_answered(serve: Any, client: Path) -> None:
    with serve() as served:
        command = ["node", str(client), served.address, str(PROTOS)]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    assert found == {
        "one": {"id": "one", "values": [2, 4, 6, 8]},
        "typed": {"id": "", "values": [2, 4, 6, 8]},
        "large": True,
        "gzip": True,
        "many": True,
        "stream": [str(number) for number in range(100)],
        "refused": {"code": 5, "details": "Request for unknown model: 'n' is not found; available: m"},
        "late": {"code": 4, "details": found["late"]["details"]},
    }

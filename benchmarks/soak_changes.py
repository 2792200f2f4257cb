"""The disturbances of the server of `soak.py`: new versions, broken ones, unloads, killed clients."""

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from onnx import TensorProto, helper, numpy_helper
from soak_traffic import PATIENCE, WIDTH, Versions
from tritonclient.utils import InferenceServerException


def model(version: int, steps: int) -> bytes:
    """Return a model that computes x + version after a loop of `steps` iterations of about 1 us each."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["still_go"]),
            helper.make_node("Add", ["sum", "one"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, ()),
            helper.make_tensor_value_info("go", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, ()),
        ],
        [
            helper.make_tensor_value_info("still_go", TensorProto.BOOL, ()),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ()),
        ],
    )
    # The result of the loop is part of the output, so that it cannot be optimized away.
    weights = {"steps": np.int64(steps), "one": np.float32(1), "start": np.float32(version - steps)}
    nodes = [
        helper.make_node("Loop", ["steps", "", "start"], ["total"], body=body),
        helper.make_node("Add", ["x", "total"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "soak",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("batch", WIDTH))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ("batch", WIDTH))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(made.SerializeToString())


def publish(repository: Path, name: str, version: int, contents: bytes) -> Path:
    """Publish a new version atomically; returns its folder."""
    hidden = repository / name / f".{version}"
    hidden.mkdir(parents=True)
    (hidden / "model.onnx").write_bytes(contents)
    return hidden.rename(repository / name / str(version))


class Publisher:
    """Publishes new versions of `steady`, valid and broken ones."""

    def __init__(
        self, repository: Path, steps: int, versions: Versions, process: "subprocess.Popen[str]"
    ) -> None:
        self._repository = repository
        self._steps = steps
        self._versions = versions
        self._process = process
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []

    def run(self, address: str, pause: float, over: threading.Event) -> None:
        """Publish until `over` is set."""
        whole = model(1, self._steps)
        broken = cycle((b"nope", whole[: len(whole) // 2], b""))
        with triton.InferenceServerClient(address) as client:
            for step in cycle((self._load, self._break, self._reload)):
                if over.wait(pause):
                    return
                step(client, next(broken))

    def _publish(self) -> int:
        version = self._versions.newest + 1
        self._versions.newest = version
        publish(self._repository, "steady", version, model(version, self._steps))
        return version

    def _serves(self, version: int) -> None:
        self._versions.serving = version
        for old in range(max(1, version - 3), version - 1):
            shutil.rmtree(self._repository / "steady" / str(old), ignore_errors=True)

    def _load(self, client: Any, _: bytes) -> None:
        version = self._publish()
        client.load_model("steady", client_timeout=PATIENCE)
        self._serves(version)
        self.counts["loaded on request"] += 1

    def _reload(self, client: Any, _: bytes) -> None:
        version = self._publish()
        self._process.send_signal(signal.SIGHUP)
        end = time.monotonic() + PATIENCE
        while states(client).get(("steady", str(version))) != "READY":
            if time.monotonic() > end:
                self.problems.append(f"version {version} was not there {PATIENCE:.0f} s after SIGHUP")
                return
            time.sleep(0.02)
        self._serves(version)
        self.counts["loaded after SIGHUP"] += 1

    def _break(self, client: Any, contents: bytes) -> None:
        version = self._versions.newest + 1
        folder = publish(self._repository, "steady", version, contents)
        try:
            client.load_model("steady", client_timeout=PATIENCE)
            self.problems.append(f"a version of {len(contents)} bytes that are no model was taken")
        except InferenceServerException as error:
            if "FAILED_PRECONDITION" not in str(error.status()):
                self.problems.append(f"a broken version ended with {error.status()}: {error}")
        found = states(client)
        if found.get(("steady", str(version))) != "UNAVAILABLE":
            self.problems.append(f"the index says {found.get(('steady', str(version)))} of a broken version")
        if found.get(("steady", str(self._versions.serving))) != "READY":
            self.problems.append("a broken version took the place of a good one")
        shutil.rmtree(folder)
        self.counts["broken and refused"] += 1


def states(client: Any) -> dict[tuple[str, str], str]:
    index = client.get_model_repository_index(client_timeout=PATIENCE)
    return {(each.name, each.version): each.state for each in index.models}


def come_and_go(address: str, counts: Counter[str], pause: float, over: threading.Event) -> None:
    """Unload and load the model `guest` repeatedly."""
    with triton.InferenceServerClient(address) as client:
        while not over.wait(pause):
            client.unload_model("guest", client_timeout=PATIENCE)
            over.wait(pause / 2)
            client.load_model("guest", client_timeout=PATIENCE)
            counts["unloaded and loaded"] += 1


def kill_clients(address: str, counts: Counter[str], pause: float, over: threading.Event) -> None:
    """Start clients and kill them during their requests."""
    command = [sys.executable, str(Path(__file__).with_name("soak_traffic.py")), address]
    while not over.wait(pause):
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.kill()
        counts["clients killed"] += 1


@contextmanager
def guarded(problems: list[str], what: str) -> Iterator[None]:
    """Record an exception that ends a thread as a problem of the run."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  reported at the end
        problems.append(f"{what} ended with {type(error).__name__}: {error}")


def start(address: str, publisher: Publisher, pause: float, over: threading.Event) -> list[threading.Thread]:
    """Start all disturbances, each in a separate thread."""
    counts = publisher.counts
    parts: tuple[tuple[str, Callable[[], None]], ...] = (
        ("publishing", lambda: publisher.run(address, pause, over)),
        ("unloading", lambda: come_and_go(address, counts, pause, over)),
        ("killing", lambda: kill_clients(address, counts, 2 * pause, over)),
    )

    def run(name: str, part: Callable[[], None]) -> None:
        with guarded(publisher.problems, name):
            part()

    threads = [threading.Thread(target=run, args=part, name=part[0], daemon=True) for part in parts]
    for thread in threads:
        thread.start()
    return threads

"""Stateful models, a server of them, and Triton's clients."""

import base64
import functools
import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]

CONFIG = """
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [2] }
output [ { name: "total" data_type: TYPE_FP32 dims: [2] }, { name: "told" data_type: TYPE_INT64 dims: [4] } ]
sequence_batching {
  max_sequence_idle_microseconds: %d
  %s
  control_input [
    { name: "start" control { kind: CONTROL_SEQUENCE_START bool_false_true: [false, true] } },
    { name: "end" control { kind: CONTROL_SEQUENCE_END int32_false_true: [-1, 1] } },
    { name: "ready" control { kind: CONTROL_SEQUENCE_READY fp32_false_true: [0, 7] } },
    { name: "id" control { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_INT64 } }
  ]
  state { input_name: "sum_in" output_name: "sum_out" data_type: TYPE_FP32 dims: [2] %s }
}
"""
LONG = 600_000_000
PLAIN = """
input { name: "x" data_type: TYPE_FP32 dims: [-1, 3] }
output { name: "y" data_type: TYPE_FP32 dims: [-1, 3] }
sequence_batching {
  max_sequence_idle_microseconds: 600000000
  state { input_name: "step" output_name: "step/next" data_type: TYPE_FP32 }
}
"""
CHAIN = """
platform: "ensemble"
max_batch_size: 8
input { name: "x" data_type: TYPE_FP32 dims: [2] }
output { name: "total" data_type: TYPE_FP32 dims: [2] }
ensemble_scheduling { step [
  { model_name: "sum" model_version: -1
    input_map { key: "x" value: "same" } output_map { key: "total" value: "sums" } },
  { model_name: "echo_fp32" model_version: -1
    input_map { key: "x" value: "x" } output_map { key: "y" value: "same" } },
  { model_name: "sum_again" model_version: -1
    input_map { key: "x" value: "sums" } output_map { key: "total" value: "total" } }
] }
"""
# An ensemble of that ensemble, and one that must not keep its answers.
OUTER = """
[[ensemble_scheduling.step]]
model_name = "chain"
input_map = { x = "x" }
output_map = { total = "total" }
"""
OUTER_CACHED = f"response_cache.enable = true\n{OUTER}"
INITIAL = 'initial_state { name: "ten" data_type: TYPE_FP32 dims: [2] data_file: "ten" }'

STEPPER = {
    "inputs": [
        {"name": "x", "datatype": "FP32", "shape": [{"symbol": "batch"}, {"size": 3}]},
        {"name": "step", "datatype": "FP32", "shape": []},
    ],
    "outputs": [
        {"name": "y", "datatype": "FP32", "shape": [{"symbol": "batch"}, {"size": 3}]},
        {"name": "step/next", "datatype": "FP32", "shape": []},
    ],
    "batched": False,
}


def add_accumulator(
    publish: Publish, repository: Path, name: str, idle: int, strategy: str, state: str
) -> None:
    publish(repository, "accumulator", name=name)
    (repository / name / "config.pbtxt").write_text(CONFIG % (idle, strategy, state))


def add_chain(publish: Publish, repository: Path) -> None:
    """An ensemble: an echo, and two models with states."""
    publish(repository, "echo_fp32")
    for name in ("sum", "sum_again"):
        add_accumulator(publish, repository, name, LONG, "direct {}", "")
    (repository / "chain" / "1").mkdir(parents=True)
    (repository / "chain" / "config.pbtxt").write_text(CHAIN)


def add_stepper(publish: Publish, repository: Path, version: int = 1, initial: float = 2.5) -> None:
    """A model of ours with a state, which begins with a number of its own."""
    folder = publish(repository, "stepper", version=version, signature=STEPPER)
    manifest = json.loads((folder / "manifest.json").read_text())
    raw = np.float32(initial).tobytes()
    manifest["state"] = [
        {
            "input": "step",
            "output": "step/next",
            "spec": STEPPER["inputs"][1],  # type: ignore[index]  # a list, to whoever reads it above
            "initial": base64.b64encode(raw).decode(),
        }
    ]
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(scope="module")
def running(
    transport: str, tmp_path_factory: pytest.TempPathFactory, publish: Publish, serve: Serve
) -> Iterator[Any]:
    repository = tmp_path_factory.mktemp("models")
    add_accumulator(publish, repository, "two", LONG, "oldest { max_candidate_sequences: 2 }", INITIAL)
    add_accumulator(publish, repository, "brief", 1000, "", "")
    (repository / "two" / "initial_state").mkdir()
    (repository / "two" / "initial_state" / "ten").write_bytes(np.array([10, 20], np.float32).tobytes())
    add_stepper(publish, repository)
    (repository / "stepper" / "config.toml").write_text(
        f"[sequence_batching]\nmax_sequence_idle_microseconds = {LONG}\n"
    )
    publish(repository, "stepper", name="plain")
    (repository / "plain" / "config.pbtxt").write_text(PLAIN)
    add_chain(publish, repository)
    for name, config in {"outer": OUTER, "outer_cached": OUTER_CACHED}.items():
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.toml").write_text(config)
    add_accumulator(publish, repository, "one", LONG, "oldest { max_candidate_sequences: 1 }", "")
    explicit = ("--model-control-mode", "explicit", "--load-model", "*")
    options = ("--transport", transport, "--http-port", "-1", "--max-queue-size", "32")
    with serve(repository, *options, *explicit) as server:
        yield server


class Client:
    """One of Triton's clients, with a word for a request of a sequence."""

    def __init__(self, module: Any, address: str) -> None:
        self.module = module
        self.own = module.InferenceServerClient(address)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.own, name)

    def x(self, values: Any) -> Any:
        """Return an input."""
        array = np.array(values, np.float32)
        tensor = self.module.InferInput("x", list(array.shape), "FP32")
        tensor.set_data_from_numpy(array)
        return tensor

    def ask(self, model: str, values: Any, identity: Any, flags: str = "", **options: Any) -> Any:
        """`flags`: s for the first request of the sequence, e for the last one."""
        return self.own.infer(
            model,
            [self.x(values)],
            sequence_id=identity,
            sequence_start="s" in flags,
            sequence_end="e" in flags,
            **options,
        )

    def counted(self, model: str) -> tuple[int, int, int]:
        """Return successes, rows and failures; of the client for gRPC."""
        found = self.own.get_inference_statistics(model).model_stats[0]
        stats = found.inference_stats
        return stats.success.count, found.inference_count, stats.fail.count


@pytest.fixture(scope="module")
def connect() -> Callable[[str], Client]:
    """Makes a client for gRPC of an address."""
    return lambda address: Client(triton_grpc, address)


@pytest.fixture(params=["grpc", "http"])
def client(request: pytest.FixtureRequest, running: Any) -> Iterator[Client]:
    module, address = {
        "grpc": (triton_grpc, running.address),
        "http": (triton_http, running.http),
    }[request.param]
    client = Client(module, address)
    with client.own:
        yield client


@pytest.fixture
def grpc_client(running: Any) -> Iterator[Client]:
    client = Client(triton_grpc, running.address)
    with client.own:
        yield client


@pytest.fixture(scope="session")
def accumulator(publish: Publish) -> Callable[..., None]:
    """Publishes a model of Triton's with a state and controls."""
    return functools.partial(add_accumulator, publish)


@pytest.fixture(scope="session")
def chain(publish: Publish) -> Callable[[Path], None]:
    """Publishes an ensemble of models with states, and these."""
    return functools.partial(add_chain, publish)


@pytest.fixture(scope="session")
def stepper(publish: Publish) -> Callable[..., None]:
    """Publishes a model of kerve's with a state."""
    return functools.partial(add_stepper, publish)

"""Models with sequences: what becomes of these when a version is replaced, and what cannot be loaded."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton_grpc
from tritonclient.utils import InferenceServerException

Serve = Callable[..., AbstractContextManager[Any]]

LONG = 600_000_000
INITIAL = 'initial_state { name: "ten" data_type: TYPE_FP32 dims: [2] data_file: "ten" }'


def test_a_sequence_ends_where_it_began(
    tmp_path: Path, transport: str, stepper: Any, serve: Serve, connect: Any
) -> None:
    stepper(tmp_path)
    (tmp_path / "stepper" / "config.toml").write_text(
        f"[sequence_batching]\nmax_sequence_idle_microseconds = {LONG}\n"
    )
    options = ("--transport", transport, "--model-control-mode", "explicit", "--load-model", "*")
    with serve(tmp_path, *options) as running:
        client = connect(running.address)
        x = [[0, 0, 0]]
        client.ask("stepper", x, 1, "s")
        stepper(tmp_path, version=2, initial=100)
        client.load_model("stepper")
        assert client.ask("stepper", x, 2, "s").as_numpy("y")[0, 0] == 100
        states = {each.version: each.state for each in client.get_model_repository_index().models}
        assert states == {"1": "UNLOADING", "2": "READY"}
        answer = client.ask("stepper", x, 1)
        assert (answer.as_numpy("y")[0, 0], answer.get_response().model_version) == (3.5, "1")
        assert client.ask("stepper", x, 1, "e").as_numpy("y")[0, 0] == 4.5
        answer = client.ask("stepper", x, 2)
        assert (answer.as_numpy("y")[0, 0], answer.get_response().model_version) == (101, "2")
        client.unload_model("stepper")
        with pytest.raises(InferenceServerException, match="has no available versions"):
            client.ask("stepper", x, 2)
        client.load_model("stepper")
        with pytest.raises(InferenceServerException, match="must specify the START flag"):
            client.ask("stepper", x, 2)


BROKEN = {
    "name": ('name: "start"', 'name: "begin"', "does not declare the graph's input 'start'"),
    "type": ("bool_false_true: [false, true]", "fp32_false_true: [0, 1]", "expected bool_false_true"),
    "values": ("[false, true]", "[true]", "expected bool_false_true with two values"),
    "kind": ("CONTROL_SEQUENCE_READY", "CONTROL_SEQUENCE_START", "specifies multiple CONTROL_SEQUENCE_START"),
    "corrid": ("data_type: TYPE_INT64 }", "data_type: TYPE_UINT64 }", "got TYPE_UINT64"),
    "state": (
        "TYPE_FP32 dims: [2]  }",
        "TYPE_FP32 dims: [3]  }",
        "declares TYPE_FP32 [3], the graph has TYPE_FP32 [2]",
    ),
    "output": ('"sum_out"', '"none"', "state 'none' is not in the graph"),
    "file": (
        "dims: [2]  }",
        "dims: [2] " + INITIAL.replace('"ten" }', '"../config.pbtxt" }') + " }",
        "outside",
    ),
    "bytes": ("dims: [2]  }", "dims: [2] " + INITIAL + " }", "expected 8 bytes"),
    "iterative": (
        "control_input [",
        "iterative_sequence: true control_input [",
        "sequence_batching.iterative_sequence: this server does not support",
    ),
}


def test_what_does_not_fit_the_graph_is_said_when_the_model_is_loaded(
    tmp_path: Path, accumulator: Any, serve: Serve
) -> None:
    for name, (old, new, _) in BROKEN.items():
        accumulator(tmp_path, name, LONG, "", "")
        file = tmp_path / name / "config.pbtxt"
        assert old in file.read_text()
        file.write_text(file.read_text().replace(old, new))
        (tmp_path / name / "initial_state").mkdir()
        (tmp_path / name / "initial_state" / "ten").write_bytes(b"ten")
    with (
        serve(tmp_path, "--model-control-mode", "explicit", "--load-model", "*") as running,
        triton_grpc.InferenceServerClient(running.address) as client,
    ):
        reasons = {each.name: each.reason for each in client.get_model_repository_index().models}
    for name, (_, _, reason) in BROKEN.items():
        assert reason in reasons[name]

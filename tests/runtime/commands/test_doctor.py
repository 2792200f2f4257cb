"""`kerve doctor`: on this machine, for people and as JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kerve.runtime.commands.doctor import print_models
from kerve.runtime.cpus import available_cpus
from kerve.runtime.doctor.models import Finding
from kerve.runtime.session import Assignment


def doctor(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(Path(sys.executable).with_name("kerve")), "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def repository(publish: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, one of them in two instances."""
    folder = tmp_path_factory.mktemp("models")
    publish(folder, "classifier")
    publish(folder, "counter")
    (folder / "counter" / "config.toml").write_text("[[instance_group]]\nkind = 'KIND_CPU'\ncount = 2\n")
    return folder


def test_facts_and_models_are_one_object(repository: Path) -> None:
    done = doctor("--repository", str(repository), "--device", "cpu", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["cpus"]["usable"] == available_cpus()
    assert found["cpus"]["affinity"] == len(os.sched_getaffinity(0))
    assert found["memory"]["total"] > found["memory"]["available"] > 0
    assert found["device"] == {"taken": ["cpu"], "why": "selected by --device"}
    assert found["transport"]["taken"] in ("wire", "grpcio")
    assert "CPUExecutionProvider" in found["software"]["providers"]
    classifier, counter = found["models"]
    assert (classifier["model"], classifier["device"], classifier["instances"]) == ("classifier", "cpu", 1)
    assert classifier["nodes"]["CPUExecutionProvider"] >= 1
    assert (counter["instances"], counter["fallen"], counter["problem"]) == (2, [], "")


def test_people_get_tables(repository: Path) -> None:
    done = doctor("--repository", str(repository))
    assert done.returncode == 0, done.stderr
    for told in ("this machine", "onnxruntime", "cgroup quota", "transport", "models", "classifier", "CPU "):
        assert told in done.stdout


def test_a_model_that_cannot_be_loaded_is_a_finding_and_an_exit_code(tmp_path: Path) -> None:
    (tmp_path / "bad" / "1").mkdir(parents=True)
    (tmp_path / "bad" / "1" / "model.onnx").write_text("nothing")
    done = doctor("--repository", str(tmp_path), "--json")
    assert done.returncode == 3
    assert "is not an ONNX model" in json.loads(done.stdout)["models"][0]["problem"]
    assert done.stderr.startswith("error: bad: ")


def test_what_falls_to_the_cpu_is_shown_node_by_node(capsys: pytest.CaptureFixture[str]) -> None:
    """No machine of ours has a GPU: the table is shown for a finding as one would have it."""
    fallen = [
        Assignment("CPUExecutionProvider", "NonMaxSuppression", "boxes/nms"),
        Assignment("CPUExecutionProvider", "NonZero", "boxes/where"),
        Assignment("CPUExecutionProvider", "NonZero", "boxes/again"),
    ]
    nodes = {"CUDAExecutionProvider": 41, "CPUExecutionProvider": 3}
    print_models([Finding("detector", 3, "cuda:0", 1, nodes, fallen)])
    shown = capsys.readouterr().out
    assert "CUDA 41, CPU 3" in shown
    assert "detector version 3: nodes that fall back from cuda:0 to the CPU" in shown
    assert shown.index("NonZero") < shown.index("NonMaxSuppression"), "the most frequent first"
    assert "boxes/where, boxes/again" in shown

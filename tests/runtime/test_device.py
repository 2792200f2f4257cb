"""Where models compute: on the GPU that is there, or on the CPU, and on neither in silence."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest

from kerve.inference.model_config_pb2 import ModelConfig, ModelInstanceGroup
from kerve.runtime import Client, device
from kerve.runtime.device import CPU, CUDA_PROVIDER, Device
from kerve.runtime.errors import ArtifactError, FailedPreconditionError
from kerve.runtime.lifecycle.served import device_of
from kerve.runtime.session import Session

KERVE = str(Path(sys.executable).with_name("kerve"))
GPU = CUDA_PROVIDER in onnxruntime.get_available_providers() and device.count_devices() > 0


@pytest.fixture
def box(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A machine that has what a test says: providers of ONNX Runtime, GPUs, and what the loader misses."""
    box = SimpleNamespace(providers=[CUDA_PROVIDER, "CPUExecutionProvider"], gpus=2, missing="")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: box.providers)
    monkeypatch.setattr(device, "count_devices", lambda: box.gpus)
    monkeypatch.setattr(device, "why_not_loaded", lambda: box.missing)
    return box


@pytest.mark.parametrize(
    ("name", "found"),
    [
        pytest.param("auto", Device(0), id="auto"),
        pytest.param("cuda", Device(0), id="the first"),
        pytest.param("cuda:1", Device(1), id="by number"),
        pytest.param("cpu", CPU, id="the CPU"),
    ],
)
def test_a_gpu_is_taken_where_it_can_be(box: SimpleNamespace, name: str, found: Device) -> None:
    assert device.choose(name) == found


def test_auto_is_the_cpu_where_no_gpu_answers_or_onnxruntime_knows_none(box: SimpleNamespace) -> None:
    box.gpus = 0
    assert device.choose("auto") == CPU
    box.gpus, box.providers = 1, ["CPUExecutionProvider"]
    assert device.choose("auto") == CPU


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_a_gpu_that_cannot_be_used_is_not_passed_over(box: SimpleNamespace, name: str) -> None:
    box.missing = "libcudnn.so.9 is not there"
    with pytest.raises(
        FailedPreconditionError, match=r"libcudnn.so.9 is not there; .* or choose --device cpu"
    ):
        device.choose(name)


@pytest.mark.parametrize(
    ("gpus", "told"),
    [
        pytest.param(0, "no NVIDIA GPU answers here", id="no driver"),
        pytest.param(1, "expected cuda:0, since 1 NVIDIA GPU answers here", id="one"),
        pytest.param(2, "expected cuda:0 to cuda:1, since 2 NVIDIA GPUs answer here", id="two"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused(box: SimpleNamespace, gpus: int, told: str) -> None:
    box.gpus = gpus
    with pytest.raises(FailedPreconditionError, match=told):
        device.choose("cuda:2")


def test_two_distributions_of_onnxruntime_in_one_folder_are_told_of(
    box: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.providers = ["CPUExecutionProvider"]
    monkeypatch.setattr(device, "installed", lambda _: True)
    with pytest.raises(FailedPreconditionError, match="onnxruntime lies over onnxruntime-gpu"):
        device.choose("cuda")


def test_a_provider_that_onnxruntime_leaves_out_is_an_error_and_not_the_cpu(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda model, options, providers: made(model, options, providers=providers[1:]),
    )
    with pytest.raises(ArtifactError, match="took the CPU in the place of cuda:0"):
        Session(models / "pair.onnx", threads=1, device=Device(0))


KIND = ModelInstanceGroup


@pytest.mark.parametrize(
    ("groups", "found"),
    [
        pytest.param([], Device(1), id="none"),
        pytest.param([{}], Device(1), id="auto"),
        pytest.param([{"kind": KIND.KIND_CPU}], CPU, id="the CPU"),
        pytest.param([{"kind": KIND.KIND_GPU}], Device(1), id="a GPU"),
        pytest.param([{"kind": KIND.KIND_GPU, "gpus": [1]}], Device(1), id="this GPU"),
    ],
)
def test_a_configuration_chooses_between_the_cpu_and_the_servers_device(
    groups: list[dict[str, object]], found: Device
) -> None:
    config = ModelConfig(instance_group=[KIND(**group) for group in groups])  # type: ignore[arg-type]
    assert device_of(config, Path("m"), Device(1)) == found


def test_a_configuration_that_asks_for_another_gpu_is_refused() -> None:
    config = ModelConfig(instance_group=[KIND(kind=KIND.KIND_GPU, gpus=[0])])
    with pytest.raises(ArtifactError, match=r"gpus \[0\], but this server computes on cuda:1 alone"):
        device_of(config, Path("m"), Device(1))


@pytest.mark.skipif(not GPU, reason="needs an NVIDIA GPU and onnxruntime-gpu")
@pytest.mark.parametrize("transport", ["wire", "grpcio"])
def test_a_gpu_answers_as_the_cpu_does(
    server: Any, serve: Any, models: Path, publish: Any, transport: str, tmp_path: Path
) -> None:
    publish(tmp_path, "classifier")
    rows = np.random.default_rng(0).random((5, 4), np.float32)
    with serve(tmp_path, "--device", "cuda", "--transport", transport) as running:
        assert "is ready on cuda:0" in running.log.read_text()
        with Client(running.address) as client, Client(server.address) as on_cpu:
            answers, expected = client.infer("classifier", rows), on_cpu.infer("classifier", rows)
    for name, array in expected.items():
        np.testing.assert_allclose(answers[name], array, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(GPU, reason="a GPU answers here")
def test_serve_says_why_it_cannot_take_cuda(models: Path, tmp_path: Path) -> None:
    ended = serve_with(tmp_path, "cuda")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: --device cuda: ")
    assert ended.stderr.rstrip().endswith("or choose --device cpu")


def test_serve_takes_no_other_device(tmp_path: Path) -> None:
    ended = serve_with(tmp_path, "gpu:0")
    assert ended.returncode == 2
    assert "expected auto, cpu, cuda or cuda:N, got 'gpu:0'" in ended.stderr


def serve_with(repository: Path, name: str) -> "subprocess.CompletedProcess[str]":
    command = [KERVE, "serve", "--repository", str(repository), "--device", name, "--http-port", "0"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

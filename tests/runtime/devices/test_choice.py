"""`--device` through the front door: as this machine is, and with a stand-in for the driver."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton

from kerve.runtime.devices.choice import Devices, choose_devices
from kerve.runtime.devices.device import CPU, Device, DeviceRequest, parse_device
from kerve.runtime.devices.libraries import LOADED_LATER, has_provider, libraries, packaged
from kerve.runtime.errors import UnavailableError

needs_gpu_build = pytest.mark.skipif(
    not has_provider("cuda"),
    reason="this environment has no build of ONNX Runtime with CUDA (onnxruntime-gpu)",
)
without_gpu_build = pytest.mark.skipif(
    has_provider("cuda"), reason="this environment's ONNX Runtime has the CUDA provider"
)


def kerve(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [str(Path(sys.executable).with_name("kerve")), *arguments]
    return subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        ("auto", DeviceRequest("auto")),
        ("cpu", DeviceRequest("cpu")),
        ("cuda", DeviceRequest("cuda")),
        ("cuda:1", DeviceRequest("cuda", 1)),
        ("tensorrt:0", DeviceRequest("tensorrt", 0)),
    ],
)
def test_a_device_is_read(text: str, asked: DeviceRequest) -> None:
    assert parse_device(text) == asked


@pytest.mark.parametrize("text", ["gpu", "cuda:", "cuda:-1", "cpu:0", "auto:1", "cuda:x", "", "CUDA"])
def test_what_is_no_device_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=rf"expected auto, .* got '{re.escape(text)}'"):
        parse_device(text)


def test_what_is_no_device_is_wrong_usage(tmp_path: Path) -> None:
    done = kerve("serve", "--repository", str(tmp_path), "--device", "gpu")
    assert done.returncode == 2
    assert "expected auto, cpu, cuda[:N] or tensorrt[:N], got 'gpu'" in done.stderr


@without_gpu_build
@pytest.mark.parametrize("device", ["cuda:0", "tensorrt"])
def test_a_build_without_cuda_ends_the_command_with_what_to_install(device: str, tmp_path: Path) -> None:
    done = kerve("serve", "--repository", str(tmp_path), "--device", device)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(
        rf"^error: --device {device}: onnxruntime \S+, without CUDA has no provider for it; install "
        r"kerve\[serve-gpu\] .* use --device cpu to serve on the CPU$",
        done.stderr,
        re.MULTILINE,
    )


@without_gpu_build
def test_auto_takes_the_cpu_and_says_why_though_a_device_answers(fake_driver: Path, tmp_path: Path) -> None:
    done = kerve(
        *("serve", "--repository", str(tmp_path), "--grpc-port", "0", "--http-port", "0"),
        LD_LIBRARY_PATH=str(fake_driver),
        FAKE_CUDA_DEVICES="1",
    )
    assert done.returncode == 3, "there is no model"
    assert "models compute on cpu: the CUDA provider is not in onnxruntime" in done.stderr


@needs_gpu_build
@pytest.mark.parametrize("kind", ["cuda", "tensorrt"])
def test_every_missing_library_is_named_with_who_brings_it(kind: Any, tmp_path: Path) -> None:
    """On a machine with all of them there is nothing to name, and the device is served or does not answer."""
    missing = [each for each in libraries(kind) if each.problem]
    if not missing:
        pytest.skip(f"all libraries of the {kind} provider are here")
    done = kerve("serve", "--repository", str(tmp_path), "--device", kind)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(rf"--device {kind}: onnxruntime-gpu \S+ for CUDA \d+\.\d+ cannot load", done.stderr)
    for library in missing:
        assert re.search(rf"^  {re.escape(library.name)}: .*; it comes with .+$", done.stderr, re.MULTILINE)


@needs_gpu_build
def test_the_libraries_are_those_that_the_provider_itself_names() -> None:
    pytest.importorskip("elftools", reason="the names are read with pyelftools, which serve-gpu installs")
    names = [each.name for each in libraries("cuda")]
    assert "libcuda.so.1" in names
    assert set(LOADED_LATER) < set(names)
    assert not [name for name in names if name.startswith(("libc.", "libstdc++", "libm."))]


def test_a_package_is_found_in_whichever_folder_of_the_path_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`pip install --target` puts ONNX Runtime apart from the packages that bring CUDA."""
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    for folder, below in (("one", "cu13/lib"), ("other", "cudnn/lib"), ("other", "cu13/lib")):
        file = tmp_path / folder / "nvidia" / below / "libkerve_test.so.1"
        file.parent.mkdir(parents=True)
        file.touch()
        monkeypatch.syspath_prepend(tmp_path / folder)
    found = [str(file.relative_to(tmp_path)) for file in packaged("libkerve_test.so.1")]
    assert sorted(found) == [
        "one/nvidia/cu13/lib/libkerve_test.so.1",
        "other/nvidia/cu13/lib/libkerve_test.so.1",
        "other/nvidia/cudnn/lib/libkerve_test.so.1",
    ]
    assert list(packaged("libkerve_absent.so.1")) == []


@needs_gpu_build
def test_auto_takes_the_cpu_where_no_device_answers() -> None:
    try:
        chosen = choose_devices(DeviceRequest("auto"))
    except UnavailableError:
        pytest.skip("a device answers, but libraries are missing")
    if chosen.devices != (CPU,):
        pytest.skip("this machine has a GPU")
    assert "driver" in chosen.why or "cuInit" in chosen.why


def test_the_server_says_what_it_computes_on(server: Any) -> None:
    devices = choose_devices(DeviceRequest("auto"))
    assert server.ready_line.endswith(f" on {devices}\n")
    log = server.log.read_text()
    assert f"models compute on {devices.show()}: {devices.why}" in log
    assert f", on {devices}\n" in log
    with triton.InferenceServerClient(server.address) as client:
        assert f"devices({devices.show()})" in client.get_server_metadata().extensions
        (group, *_) = client.get_model_config("classifier").config.instance_group
        kind = "KIND_CPU" if devices.devices == (CPU,) else "KIND_GPU"
        assert group.Kind.Name(group.kind) == kind


def test_a_device_is_shown_with_its_product_and_equal_without() -> None:
    device = Device("cuda", 1, "NVIDIA X")
    assert (str(device), device.show()) == ("cuda:1", "cuda:1 (NVIDIA X)")
    assert device == Device("cuda", 1)
    assert Devices((device,), "").show() == "cuda:1 (NVIDIA X)"

"""Triton's instance groups on the devices of a server."""

from pathlib import Path

import pytest
from google.protobuf import text_format

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.config import read_settings
from kerve.runtime.devices.choice import ON_CPU, Devices
from kerve.runtime.devices.device import CPU, Device
from kerve.runtime.devices.options import CudaOptions
from kerve.runtime.devices.placement import complete_groups, place
from kerve.runtime.errors import ArtifactError

GPUS = Devices(tuple(Device("cuda", index) for index in (0, 1)), "a GPU is available")
FOLDER = Path("models/m")


def placed(text: str, devices: Devices, options: CudaOptions | None = None) -> list[tuple[str, int]]:
    config = text_format.Parse(text, pb.ModelConfig())
    found = place(config, devices, options or CudaOptions(), FOLDER)
    return [(str(each.place.device), each.executors) for each in found]


@pytest.mark.parametrize(
    ("text", "devices", "expected"),
    [
        pytest.param("", ON_CPU, [("cpu", 1)], id="nothing said, on the CPU"),
        pytest.param("", GPUS, [("cuda:0", 2), ("cuda:1", 2)], id="nothing said, on every GPU"),
        pytest.param("instance_group { count: 3 }", ON_CPU, [("cpu", 3)], id="auto is the CPU"),
        pytest.param(
            "instance_group { count: 2 kind: KIND_GPU gpus: 1 }",
            GPUS,
            [("cuda:1", 2)] * 2,
            id="instances of one GPU are models of their own",
        ),
        pytest.param(
            "instance_group { kind: KIND_GPU gpus: [1, 0] }",
            GPUS,
            [("cuda:1", 2), ("cuda:0", 2)],
            id="these GPUs",
        ),
        pytest.param(
            "instance_group { kind: KIND_AUTO gpus: 1 }", GPUS, [("cuda:1", 2)], id="auto with gpus"
        ),
        pytest.param(
            "instance_group { kind: KIND_CPU count: 2 }", GPUS, [("cpu", 2)], id="the CPU beside GPUs"
        ),
        pytest.param(
            "instance_group { kind: KIND_CPU count: 2 } instance_group { kind: KIND_GPU gpus: 0 } "
            "instance_group { kind: KIND_CPU }",
            GPUS,
            [("cpu", 3), ("cuda:0", 2)],
            id="both, and the CPU's share one model",
        ),
        pytest.param("instance_group { passive: true kind: KIND_GPU }", ON_CPU, [("cpu", 1)], id="passive"),
    ],
)
def test_where_instances_compute(text: str, devices: Devices, expected: list[tuple[str, int]]) -> None:
    assert placed(text, devices) == expected


def test_a_gpu_has_a_thread_for_each_batch_in_flight() -> None:
    assert placed("", GPUS, CudaOptions(buffers=3))[0] == ("cuda:0", 3)
    assert placed("", GPUS, CudaOptions(buffers=0))[0] == ("cuda:0", 1)


@pytest.mark.parametrize(
    ("text", "devices", "told"),
    [
        ("instance_group { kind: KIND_GPU }", ON_CPU, "this server uses no GPU; use KIND_CPU or KIND_AUTO"),
        ("instance_group { kind: KIND_GPU gpus: 2 }", GPUS, "names GPU 2; this server has: cuda:0, cuda:1"),
        ("instance_group { kind: KIND_AUTO gpus: 0 }", ON_CPU, "this server uses no GPU"),
        (
            "instance_group { kind: KIND_CPU gpus: 0 }",
            GPUS,
            r"names gpus \[0\]; remove them, or use KIND_GPU",
        ),
    ],
)
def test_a_device_that_the_server_has_not_is_an_error(text: str, devices: Devices, told: str) -> None:
    with pytest.raises(ArtifactError, match=told):
        placed(text, devices)


def test_the_configuration_tells_where_instances_are() -> None:
    config = text_format.Parse(
        "instance_group { count: 2 kind: KIND_GPU } instance_group { kind: KIND_CPU }", pb.ModelConfig()
    )
    groups = complete_groups(place(config, GPUS, CudaOptions(), FOLDER), "m")
    assert [(group.Kind.Name(group.kind), group.count, list(group.gpus)) for group in groups] == [
        ("KIND_CPU", 1, []),
        ("KIND_GPU", 2, [0]),
        ("KIND_GPU", 2, [1]),
    ]


def options_of(tmp_path: Path, text: str) -> CudaOptions:
    (tmp_path / "config.toml").write_text(f"[cuda]\n{text}\n")
    return read_settings(tmp_path).cuda


def test_options_become_the_providers_under_their_own_names(tmp_path: Path) -> None:
    options = options_of(tmp_path, "use_tf32 = true\ngpu_mem_limit = 1_000_000\nbuffers = 1")
    assert options.provider_options(3) == {
        "device_id": "3",
        "prefer_nhwc": "1",
        "use_tf32": "1",
        "cudnn_conv_algo_search": "HEURISTIC",
        "gpu_mem_limit": "1000000",
        "arena_extend_strategy": "kSameAsRequested",
        "do_copy_in_default_stream": "1",
        "enable_cuda_graph": "1",
    }
    assert "gpu_mem_limit" not in CudaOptions().provider_options(0)
    assert CPU not in GPUS.devices


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tf32 = true", "unknown option 'tf32'; expected prefer_nhwc, use_tf32"),
        ("use_tf32 = 1", "use_tf32: expected bool, got 1"),
        ("buffers = true", "buffers: expected int, got True"),
        ("gpu_mem_limit = -1", "expected 0 or more"),
        ("cudnn_conv_algo_search = 'FAST'", "expected one of HEURISTIC, EXHAUSTIVE, DEFAULT, got 'FAST'"),
    ],
)
def test_a_wrong_option_is_an_error(text: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=told):
        options_of(tmp_path, text)


def test_a_model_whose_options_change_is_loaded_again(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("")
    before = read_settings(tmp_path).fingerprint
    options_of(tmp_path, "use_tf32 = true")
    assert read_settings(tmp_path).fingerprint != before

"""What a model takes is given back, and its weights may not lie elsewhere. Needs the onnx package to make
models.
"""

import json
import re
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from kerve.runtime.artifact import read_artifact
from kerve.runtime.errors import ArtifactError

Serve = Callable[..., AbstractContextManager[Any]]
Until = Callable[[Callable[[], bool], str], None]

MEGABYTES = 128
EVALUATED = Path(__file__).parent / "evaluation" / "models" / "classifier" / "1"


def write_dense(folder: Path, megabytes: int, location: str = "") -> None:
    """Write a product with a matrix of so many megabytes, kept in a file of its own if it has a location."""
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    width = 512
    weights = np.ones((width, megabytes * 2**20 // 4 // width), np.float32)
    tensor = onnx.numpy_helper.from_array(weights, "w")
    if location:
        (folder / location).parent.mkdir(parents=True, exist_ok=True)
        (folder / location).write_bytes(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "dense",
        [helper.make_tensor_value_info("x", 1, ("batch", width))],
        [helper.make_tensor_value_info("y", 1, ("batch", weights.shape[1]))],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def resident(process: int) -> int:
    """Return the megabytes that a process has in memory."""
    found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
    assert found
    return int(found[1]) // 1024


def test_unloading_gives_the_memory_back_again_and_again(tmp_path: Path, serve: Serve, until: Until) -> None:
    folder = tmp_path / "dense" / "1"
    folder.mkdir(parents=True)
    write_dense(folder, MEGABYTES)
    with (
        serve(tmp_path, "--model-control-mode", "explicit") as running,
        triton.InferenceServerClient(running.address) as client,
    ):
        process = running.process.pid
        tensor = triton.InferInput("x", [1, 512], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 512), np.float32))
        before = resident(process)
        for _ in range(3):
            client.load_model("dense")
            client.infer("dense", [tensor])
            assert resident(process) > before + MEGABYTES * 0.9
            client.unload_model("dense")
            until(
                lambda: resident(process) <= before + 40,
                f"the {MEGABYTES} MB above the {before} MB of before are given back",
            )


@pytest.mark.parametrize("kind", ["parent", "absolute", "link"])
def test_weights_outside_the_folder_of_the_version_are_refused(
    kind: str, tmp_path: Path, serve: Serve
) -> None:
    folder = tmp_path / "models" / "escape" / "1"
    folder.mkdir(parents=True)
    secret = tmp_path / "secret"
    location = {"parent": "../../../secret", "absolute": str(secret), "link": "weights"}[kind]
    if kind == "link":
        write_dense(folder, 1, location)
        (folder / "weights").rename(secret)
        (folder / "weights").symlink_to(secret)
    else:
        write_dense(folder, 1, location)
    assert secret.exists()
    good = tmp_path / "models" / "good" / "1"
    good.mkdir(parents=True)
    write_dense(good, 1, "weights/w.bin")
    with (
        serve(tmp_path / "models") as running,
        triton.InferenceServerClient(running.address) as client,
    ):
        assert client.is_model_ready("good")
        (line,) = (each for each in client.get_model_repository_index().models if each.name == "escape")
        assert line.state == "UNAVAILABLE"
        assert "lies outside its folder" in line.reason
        with pytest.raises(InferenceServerException, match="'escape' has no available versions"):
            client.infer(
                "escape",
                [triton.InferInput("x", [0, 512], "FP32").set_data_from_numpy(np.ones((0, 512), np.float32))],
            )


@pytest.mark.parametrize("kind", ["parent", "absolute", "link"])
def test_graphs_of_an_evaluation_lie_in_the_folder_of_the_version(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "classifier" / "1"
    shutil.copytree(EVALUATED, folder)
    elsewhere = tmp_path / "evaluate.onnx"
    (folder / "evaluate.onnx").rename(elsewhere)
    if kind == "link":
        (folder / "evaluate.onnx").symlink_to(elsewhere)
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["files"]["evaluate.onnx"]
    manifest["evaluation"]["update"] = {
        "parent": "../../evaluate.onnx",
        "absolute": str(elsewhere),
        "link": "evaluate.onnx",
    }[kind]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ArtifactError, match="which lies outside its folder"):
        read_artifact(folder).check_files()

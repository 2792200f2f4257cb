"""Repositories in Triton's layout: config.pbtxt, what is completed, what is refused and why; and
config.toml.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.config.complete import complete
from kerve.runtime.signature import Signature

Serve = Callable[..., AbstractContextManager[Any]]

# Model, configuration; what the index says, in part, of those that are refused.
GOOD = {
    "full": (
        "classifier",
        """
        name: "full"  # a comment
        platform: "onnxruntime_onnx"
        max_batch_size: 8
        input [ { name: "features", data_type: TYPE_FP32, dims: [ 4 ] } ]
        output [ { name: "probabilities", data_type: TYPE_FP32, dims: [ 3 ], label_filename: "labels.txt" } ]
        instance_group [ { count: 2, kind: KIND_CPU } ]
        dynamic_batching { preferred_batch_size: [ 4, 8 ], max_queue_delay_microseconds: 100 }
        """,
    ),
    "absent": ("classifier", ""),
    "unbatched": (
        "classifier",
        """
        backend: "onnxruntime"
        input [ { name: "features", data_type: TYPE_FP32, dims: [ 2, 4 ] } ]
        output [ { name: "logits", data_type: TYPE_FP32, dims: [ 2, 3 ] } ]
        """,
    ),
    "one_element": (
        "scalar",
        "input { name: 'x' data_type: TYPE_FP64 dims: [1] } output { name: 'y' dims: [1, 1] }",
    ),
    "replaced": (
        "offset",
        "input { name: 'x' dims: [2] } input { name: 'offset' dims: [2] } output { name: 'y' dims: [2] }",
    ),
    "named": ("classifier", 'default_model_filename: "net.onnx"'),
    "warm": (
        "echo_fp32",
        """
        model_warmup [
          { name: "zeros" batch_size: 2 count: 3
            inputs { key: "x" value { data_type: TYPE_FP32 dims: 4 zero_data: true } } },
          { batch_size: 1
            inputs { key: "x" value { data_type: TYPE_FP32 dims: 2 random_data: true } } },
          { batch_size: 3
            inputs { key: "x" value { data_type: TYPE_FP32 dims: 2 input_data_file: "two" } } }
        ]
        """,
    ),
    "warm_whole": (
        "scalar",
        "model_warmup { batch_size: 1 inputs { key: 'x' value { data_type: TYPE_FP64 zero_data: false } } }",
    ),
    "spoken": (
        "echo_bytes",
        "model_warmup { batch_size: 1 inputs { key: 'x' value "
        "{ data_type: TYPE_STRING dims: 1 random_data: true } } }",
    ),
    "vain": (
        "echo_fp32",
        "name: 'other' optimization { graph { level: 1 } } metric_tags { key: 'a' value: 'b' } "
        "parameters { key: 'what' value: { string_value: '1' } } instance_group { name: 'g' }",
    ),
}
WARM = (
    "model_warmup { name: 'w' batch_size: 1 inputs { key: 'x' value { data_type: TYPE_FP32 dims: 2 %s } } }"
)
BAD = {
    "warm_outside": ("echo_fp32", WARM % "input_data_file: '../config.pbtxt'", "lies outside warmup/"),
    "warm_absent": (
        "echo_fp32",
        WARM % "input_data_file: 'q'",
        "model_warmup 'w': input 'x': input_data_file",
    ),
    "warm_none": ("echo_fp32", WARM % "", "expected zero_data, random_data or input_data_file, got none"),
    "warm_size": (
        "classifier",
        WARM % "zero_data: true",
        "unexpected input 'x'; model 'warm_size' takes: feat",
    ),
    "warm_rows": ("echo_fp32", "model_warmup { batch_size: 1 }", "model_warmup 1: input 'x' is missing"),
    "warm_rowless": (
        "scalar",
        "model_warmup { batch_size: 2 inputs { key: 'x' value { data_type: TYPE_FP64 zero_data: true } } }",
        "batch_size: expected 1 in a model without a batch dimension, got 2",
    ),
    "warm_fails": (
        "triples",
        (WARM % "zero_data: true").replace("dims: 2", "dims: [1, 2]"),
        "model_warmup 'w' cannot be computed",
    ),
    "garbage": ("pair", "max_batch_size = 1", "is not a model configuration"),
    "python": ("pair", 'backend: "python"', "got 'python'; this server runs ONNX models"),
    "unknown_input": ("pair", "input { name: 'x' }", "declares input 'x'; the graph has: left, right"),
    "left_out": (
        "pair",
        "input { name: 'left' dims: [-1, -1] }",
        "does not declare the graph's input 'right'",
    ),
    "dtype": (
        "scalar",
        "input { name: 'x' data_type: TYPE_FP32 }",
        "declares TYPE_FP32 [], the graph has TYPE_FP64 []",
    ),
    "dims": (
        "classifier",
        "max_batch_size: 2 input { name: 'features' data_type: TYPE_FP32 dims: [2, 4] }",
        "which dims must not include",
    ),
    "reshape": (
        "classifier",
        "max_batch_size: 2 input { name: 'features' data_type: TYPE_FP32 dims: [3] reshape { shape: [4] } }",
        "'features': reshape: expected the free dimensions of dims [3], with equal numbers of elements",
    ),
    "no_batch": ("scalar", "max_batch_size: 2", "set max_batch_size to 0"),
    "gpu": ("pair", "instance_group { kind: KIND_GPU }", "this server uses no GPU; use KIND_CPU"),
    "outside": (
        "classifier",
        "output { name: 'logits' dims: [3] label_filename: '../../x' } max_batch_size: 1",
        "outside",
    ),
    "needed": (
        "pair",
        "input { name: 'left' dims: [-1, -1] optional: true } input { name: 'right' dims: [-1, -1] }",
        "input 'left' is optional in the configuration, but the graph needs it",
    ),
    "rows": ("pair", "max_batch_size: -1", "max_batch_size: expected 0 to 2147483647, got -1"),
    "many": ("pair", "instance_group { count: 100000 }", "instance_group.count: expected 0 to 1024"),
    "preferred": (
        "pair",
        "max_batch_size: 4 dynamic_batching { preferred_batch_size: 8 }",
        "preferred_batch_size: expected 1 to 4, got 8",
    ),
    "priority": (
        "pair",
        "dynamic_batching { priority_levels: 2 default_priority_level: 3 }",
        "default_priority_level: expected 0 to 2, got 3",
    ),
    "priorities": (
        "pair",
        "dynamic_batching { priority_levels: 18446744073709551615 }",
        "priority_levels: expected 0 to 1024, got 18446744073709551615",
    ),
    "slots": (
        "pair",
        "sequence_batching { direct { minimum_slot_utilization: 50 } }",
        "minimum_slot_utilization: expected 0 to 1, got 50",
    ),
    "warm_more": (
        "echo_fp32",
        "max_batch_size: 4 model_warmup { batch_size: 5 }",
        "model_warmup.batch_size: expected 0 to 4, got 5",
    ),
    "shape_tensor": (
        "pair",
        "input { name: 'left' dims: [-1, 2] is_shape_tensor: true } input { name: 'right' dims: [-1, 2] }",
        "input.is_shape_tensor: this server does not support shape tensors",
    ),
    "free": ("pair", "input { name: 'left' dims: [-2, 2] }", "'left': dims: expected -1 to"),
    "twice": (
        "pair",
        "input { name: 'left' dims: [-1, 2] } input { name: 'left' dims: [-1, 2] }",
        "input 'left' is declared 2 times; expected once",
    ),
    "threads": (
        "pair",
        "parameters { key: 'intra_op_thread_count' value: { string_value: '100000' } }",
        "intra_op_thread_count: expected a number up to 1024",
    ),
    "no_inputs": ("constant", "max_batch_size: 2", "set max_batch_size to 0"),
    "escape": ("pair", "default_model_filename: '../1/model.onnx'", "expected the name of a file"),
}

TOMLS = {
    "typo": "max_batchsize = 1",
    "label": "labels = { 1 = 2 }",
    "truth": "labels = { stable = true }",
    "text": "[",
    "crowd": "threads = 100000",
    "buckets": "max_batch_size = 8\nbatch_buckets = [4, 16]",
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, models: Path, serve: Serve) -> Iterator[Any]:
    repository = tmp_path_factory.mktemp("triton")
    for name, (model, config, *_) in {**GOOD, **BAD}.items():
        folder = repository / name / "1"
        folder.mkdir(parents=True)
        shutil.copy(models / f"{model}.onnx", folder / ("net.onnx" if name == "named" else "model.onnx"))
        if config:
            (folder.parent / "config.pbtxt").write_text(config)
    (repository / "warm" / "warmup").mkdir()
    (repository / "warm" / "warmup" / "two").write_bytes(np.ones(2, np.float32).tobytes())
    (repository / "full" / "labels.txt").write_text("cat\ndog\nowl\n")
    toml = repository / "toml" / "1"
    toml.mkdir(parents=True)
    shutil.copy(models / "classifier.onnx", toml)
    (toml / "classifier.onnx").rename(toml / "model.onnx")
    (toml.parent / "config.pbtxt").write_text("max_batch_size: 2")
    (toml.parent / "config.toml").write_text(
        "max_batch_size = 16\nbatch_buckets = [4, 16]\n[dynamic_batching]\npriority_levels = 2"
    )
    for name, text in TOMLS.items():
        shutil.copytree(repository / "absent", repository / name)
        (repository / name / "config.toml").write_text(text)
    with serve(repository) as server, triton.InferenceServerClient(server.address) as client:
        client.log = server.log.read_text()
        yield client


def test_a_complete_configuration_is_served_as_it_says(running: Any) -> None:
    config = running.get_model_config("full").config
    assert config.max_batch_size == 8
    assert list(config.dynamic_batching.preferred_batch_size) == [4, 8]
    assert config.instance_group[0].count == 2
    metadata = running.get_model_metadata("full")
    assert [list(each.shape) for each in metadata.inputs] == [[-1, 4]]
    assert [each.name for each in metadata.outputs] == ["probabilities"]


def test_what_a_configuration_says_of_its_instances_is_kept() -> None:
    group = pb.ModelInstanceGroup
    limits = pb.ModelRateLimiter(priority=2)
    open_ = group(name="mine", host_policy="h0", rate_limiter=limits)
    place = group(name="m", kind=group.KIND_CPU, count=2)
    signature = Signature((), (), batched=False)
    (found,) = complete(pb.ModelConfig(instance_group=[open_]), "m", signature, [place]).instance_group
    assert found == group(name="mine", host_policy="h0", rate_limiter=limits, kind=group.KIND_CPU, count=2)


def test_class_labels_come_from_their_file(running: Any) -> None:
    tensor = triton.InferInput("features", [2, 4], "FP32")
    tensor.set_data_from_numpy(np.eye(2, 4, dtype=np.float32))
    wanted = triton.InferRequestedOutput("probabilities", class_count=2)
    answer = running.infer("full", [tensor], outputs=[wanted]).as_numpy("probabilities")
    assert answer.shape == (2, 2)
    score, index, label = answer[0, 0].decode().split(":")
    assert label == ("cat", "dog", "owl")[int(index)]
    assert 0 < float(score) < 1


def test_what_is_absent_is_completed_from_the_graph(running: Any) -> None:
    config = running.get_model_config("absent").config
    assert (config.name, config.platform, config.backend) == ("absent", "onnxruntime_onnx", "onnxruntime")
    assert config.max_batch_size > 0
    assert config.HasField("dynamic_batching")
    assert [(each.name, each.data_type, list(each.dims)) for each in config.input] == [("features", 11, [4])]
    assert [each.name for each in config.output] == ["probabilities", "logits"]
    assert config.version_policy.latest.num_versions == 1
    assert running.is_model_ready("named")


def test_declared_tensors_without_max_batch_size_are_a_model_without_a_batch(running: Any) -> None:
    assert running.get_model_config("unbatched").config.max_batch_size == 0
    tensor = triton.InferInput("features", [3, 4], "FP32")
    tensor.set_data_from_numpy(np.zeros((3, 4), np.float32))
    with pytest.raises(InferenceServerException, match=r"expected shape \[2, 4\], got \[3, 4\]"):
        running.infer("unbatched", [tensor])


def test_scalars_of_the_graph_are_tensors_of_one_element_where_they_are_declared_so(running: Any) -> None:
    tensor = triton.InferInput("x", [1], "FP64")
    tensor.set_data_from_numpy(np.array([2.5]))
    np.testing.assert_array_equal(running.infer("one_element", [tensor]).as_numpy("y"), [[-2.5]])
    config = running.get_model_config("one_element").config
    assert [list(config.input[0].dims), list(config.output[0].dims)] == [[1], [1, 1]]


def test_constants_of_the_graph_that_are_inputs_are_replaced_where_they_are_declared(running: Any) -> None:
    tensors = [triton.InferInput(name, [2], "FP32") for name in ("x", "offset")]
    for tensor in tensors:
        tensor.set_data_from_numpy(np.ones(2, np.float32))
    np.testing.assert_array_equal(running.infer("replaced", tensors[:1]).as_numpy("y"), [11, 21])
    np.testing.assert_array_equal(running.infer("replaced", tensors).as_numpy("y"), [2, 2])


def test_toml_refines_what_pbtxt_says(running: Any) -> None:
    config = running.get_model_config("toml").config
    assert config.max_batch_size == 16
    assert config.dynamic_batching.priority_levels == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        *((name, reason) for name, (_, _, reason) in BAD.items()),
        ("typo", "max_batchsize"),
        ("label", "expected a name that is not a number and a version number, as stable = 3; got '1' = 2"),
        ("truth", "got 'stable' = True"),
        ("text", "is not a TOML file"),
        ("crowd", "threads: expected 0 to 1024, got 100000"),
        ("buckets", "batch_buckets: expected sizes up to 8, the largest batch (max_batch_size), got 16"),
    ],
)
def test_the_index_says_why_a_model_is_not_served(name: str, reason: str, running: Any) -> None:
    (line,) = (each for each in running.get_model_repository_index().models if each.name == name)
    assert line.state == "UNAVAILABLE"
    assert reason in line.reason


def test_fields_that_are_set_in_vain_are_named_once(running: Any) -> None:
    (line,) = [line for line in running.log.splitlines() if "have no effect" in line]
    assert "model 'vain'" in line
    assert line.endswith(
        "name ('other'; the folder's name is used), instance_group.name, metric_tags, optimization, "
        "parameters['what']"
    )
    assert [*running.get_model_config("vain").config.parameters] == ["what"]


def test_what_is_to_be_computed_before_is(running: Any) -> None:
    assert running.is_model_ready("warm")
    assert running.is_model_ready("warm_whole")
    assert running.is_model_ready("spoken")

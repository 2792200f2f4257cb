"""`kerve convert-config`: what it prints serves as what it was given; what it cannot take over is named."""

import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import tritonclient.grpc as triton
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st

from kerve.inference import model_config_pb2
from kerve.runtime.config import read_settings
from kerve.runtime.conversion.toml import write

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]

TRITON = """
name: "echo_fp32"
platform: "onnxruntime_onnx"  # as Triton has it
max_batch_size: 8
input [ { name: "x" data_type: TYPE_FP32 dims: [ -1 ] } ]
output { name: "y", data_type: TYPE_FP32, dims: -1 }
version_policy: { specific: { versions: [1, 3] } }
instance_group [ { count: 2 kind: KIND_CPU } ]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 500
  priority_levels: 2
  default_priority_level: 1
  priority_queue_policy { key: 2 value: { timeout_action: DELAY default_timeout_microseconds: 100 } }
}
parameters { key: "intra_op_thread_count" value: { string_value: "2" } }
response_cache { enable: true }
"""


def run(file: Path, text: str) -> "subprocess.CompletedProcess[str]":
    file.write_text(text)
    command = [str(Path(sys.executable).with_name("kerve")), "convert-config", str(file)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_tritons_configuration_serves_the_same(tmp_path: Path, publish: Publish, serve: Serve) -> None:
    for name in ("echo_fp32", "converted"):
        publish(tmp_path / "models", "echo_fp32", name=name)
    done = run(tmp_path / "models" / "echo_fp32" / "config.pbtxt", TRITON)
    assert (done.returncode, done.stderr) == (0, "")
    (tmp_path / "models" / "converted" / "config.toml").write_text(done.stdout)
    expected = text_format.Parse(TRITON, model_config_pb2.ModelConfig())
    expected.ClearField("name")
    assert read_settings(tmp_path / "models" / "converted").config == expected
    with (
        serve(tmp_path / "models") as running,
        triton.InferenceServerClient(running.address) as client,
    ):
        original, converted = (client.get_model_config(name).config for name in ("echo_fp32", "converted"))
    converted.name = original.name
    assert converted == original


def test_what_cannot_be_taken_over_from_triton_is_named(tmp_path: Path) -> None:
    done = run(
        tmp_path / "config.pbtxt",
        'backend: "python" sequence_batching { max_sequence_idle_microseconds: 5 iterative_sequence: true } '
        "instance_group { kind: KIND_GPU gpus: [0] count: 2 } max_batch_size: 4 "
        'input { name: "x" allow_ragged_batch: true }',
    )
    assert done.returncode == 0
    table = tomllib.loads(done.stdout)
    groups = [{"count": 2, "gpus": [0], "kind": "KIND_GPU"}]
    assert (table["max_batch_size"], table["instance_group"]) == (4, groups)
    assert table["sequence_batching"] == {"max_sequence_idle_microseconds": 5}
    named = [line.split(": ")[1] for line in done.stderr.splitlines()]
    assert named == ["input.allow_ragged_batch", "sequence_batching.iterative_sequence", "backend"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param('name: "m" dynamic_baching { }', 'no field named "dynamic_baching"', id="misspelt"),
        pytest.param("max_batch_size: many", "max_batch_size", id="no number"),
        pytest.param("<html>", "expected protobuf's text format", id="another format"),
        pytest.param('name: "m" {', "expected protobuf's text format", id="cut off"),
    ],
)
def test_what_is_no_configuration_is_refused(text: str, told: str, tmp_path: Path) -> None:
    done = run(tmp_path / "config.pbtxt", text)
    assert done.returncode != 0
    assert done.stdout == ""
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_tensorflow_servings_list_of_models(tmp_path: Path) -> None:
    done = run(
        tmp_path / "models.config",
        """
        model_config_list {
          config { name: 'mnist', base_path: '/srv/all models/mnist', model_platform: "tensorflow"
                   model_version_policy { specific { versions: 4 versions: 42 } }
                   version_labels { key: 'stable' value: 4 } version_labels { key: 'canary' value: 42 }
                   logging_config { sampling_config { sampling_rate: 0.1 } } }
          config { name: 'other' base_path: '/srv/else' model_platform: "onnx"
                   model_version_policy { latest { num_versions: 2 } } }
        }
        """,
    )
    assert done.returncode == 0
    first, second, *flags = done.stdout.strip().split("\n\n# ")
    assert first.startswith("# mnist/config.toml\n")
    assert second.startswith("other/config.toml\n")
    assert tomllib.loads(first) == {
        "version_policy": {"specific": {"versions": [4, 42]}},
        "labels": {"stable": 4, "canary": 42},
    }
    assert tomllib.loads(f"# {second}") == {"version_policy": {"latest": {"num_versions": 2}}}
    assert flags == ["kerve serve --repository '/srv/all models'", "kerve serve --repository /srv"]
    named = [line.removeprefix("not converted: ") for line in done.stderr.splitlines()]
    assert [each.split(": ")[:2] for each in named] == [
        ["mnist", "model_platform"],
        ["mnist", "logging_config"],
        ["other", "base_path"],
    ]


def test_batching_parameters(tmp_path: Path) -> None:
    done = run(
        tmp_path / "batching_parameters.txt",
        "max_batch_size { value: 128 } batch_timeout_micros { value: 1000 } "
        "max_enqueued_batches { value: 1000000 } num_batch_threads { value: 8 } "
        "allowed_batch_sizes: 1 allowed_batch_sizes: 128 mixed_priority_batching_policy: 'x'",
    )
    assert done.returncode == 0
    (tmp_path / "config.toml").write_text(done.stdout)
    settings = read_settings(tmp_path)
    assert settings.config.max_batch_size == 128
    assert settings.config.dynamic_batching.max_queue_delay_microseconds == 1000
    assert settings.batch_buckets == (1, 128)
    named = [line.split(": ")[1] for line in done.stderr.splitlines()]
    assert named == ["max_enqueued_batches", "num_batch_threads", "mixed_priority_batching_policy"]


def test_the_monitoring_configuration(tmp_path: Path) -> None:
    done = run(
        tmp_path / "monitoring.config",
        'prometheus_config { enable: true, path: "/monitoring/prometheus/metrics" }',
    )
    assert done.returncode == 0
    assert done.stdout.startswith("#")
    told = "prometheus_config.path: /monitoring/prometheus/metrics: metrics are at /metrics here"
    assert done.stderr == f"not converted: {told}\n"


SCALARS = st.text() | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.floats(allow_nan=False)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), VALUES, max_size=4))
def test_what_is_written_as_toml_is_read_as_it_was(table: dict[str, Any]) -> None:
    assert tomllib.loads(write(table)) == table

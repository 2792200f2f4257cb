"""Whatever a file or a client says: it is understood or refused, and nothing else is raised."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.config import read_settings
from kerve.runtime.config.complete import complete, refuse_unsupported, settle
from kerve.runtime.config.policy import choose
from kerve.runtime.errors import ServingError
from kerve.runtime.http import infer
from kerve.runtime.http.wsgi import Request
from kerve.runtime.protocol import oip, oip_shared, tfs
from kerve.runtime.shared_memory import Region, Regions, RegionSlice
from kerve.runtime.signature import Signature, TensorSpec
from kerve.tensorflow_serving.apis import input_pb2, predict_pb2

# Words of the languages that the readers read, so that chance gets somewhere.
WORDS = st.sampled_from(
    [
        *(
            "max_batch_size",
            "input",
            "output",
            "name",
            "dims",
            "data_type",
            "TYPE_FP32",
            "version_policy",
            "latest",
        ),
        *(
            "num_versions",
            "specific",
            "versions",
            "all",
            "dynamic_batching",
            "labels",
            "batch_buckets",
            "threads",
        ),
        *(
            "parameters",
            "instance_group",
            "kind",
            "KIND_CPU",
            "count",
            "reshape",
            "shape",
            "x",
            "stable",
            "optional",
        ),
        *(
            "{",
            "}",
            "[",
            "]",
            ":",
            "=",
            ",",
            "\n",
            '"',
            "'",
            "#",
            "-1",
            "0",
            "1",
            "7",
            "99999999999999999999",
            "1e9",
        ),
        *("true", "[[", "]]", ".", "\\", "\0", "é"),
    ]
)
TEXTS = st.lists(WORDS, max_size=30).map(" ".join) | st.text(max_size=60)
SIGNATURE = Signature(
    (TensorSpec("x", "FP32", ("batch", 2)), TensorSpec("s", "BYTES", ("batch", None), optional=True)),
    (TensorSpec("y", "FP32", ("batch", 2)),),
    batched=True,
)
relaxed = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


@relaxed
@example(pbtxt="", toml="", override="0")
@given(pbtxt=TEXTS, toml=TEXTS, override=st.none() | TEXTS)
@example(pbtxt="max_batch_size: 4 input { name: 'x' dims: 2 }", toml="", override=None)
@example(pbtxt="version_policy { specific { versions: 3 } }", toml="labels = { a = 1 }", override=None)
@example(pbtxt="", toml="", override='{"maxBatchSize": 3}')
def test_any_configuration_is_read_or_refused(
    pbtxt: str, toml: str, override: str | None, tmp_path: Path
) -> None:
    (tmp_path / "config.pbtxt").write_text(pbtxt, "utf-8", errors="replace")
    (tmp_path / "config.toml").write_text(toml, "utf-8", errors="replace")
    with suppress(ServingError):
        found = read_settings(tmp_path, override)
        refuse_unsupported(found.config, tmp_path)
        assert set(choose(found.config.version_policy, [1, 2, 3]).candidates) <= {1, 2, 3}
        signature = settle(SIGNATURE, found.config, tmp_path)
        assert complete(found.config, "m", signature, []).name == "m"


LEAVES = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=4), max_leaves=8)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "s", "y"]) | VALUES,
        "datatype": st.sampled_from(["FP32", "BYTES", "BF16", "INT8", "BOOL"]) | VALUES,
        "shape": st.lists(st.integers(-1, 3), max_size=3) | VALUES,
        "data": VALUES,
        "parameters": st.dictionaries(
            st.sampled_from(["binary_data_size", "classification", "shared_memory_region"]), VALUES
        ),
    },
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "id": VALUES,
        "inputs": st.lists(TENSORS, max_size=2) | VALUES,
        "outputs": st.lists(TENSORS, max_size=2),
        "parameters": st.dictionaries(st.text(max_size=3), VALUES),
    },
)


@relaxed
@example(
    document={"outputs": [{"name": "y", "parameters": {"binary_data_size": -(2**63) - 1}}]},
    tail=b"",
    length=None,
)
@given(document=DOCUMENTS, tail=st.binary(max_size=20), length=st.none() | st.text("0123456789-", max_size=4))
def test_any_json_becomes_a_request_or_is_refused(document: Any, tail: bytes, length: str | None) -> None:
    header = json.dumps(document).encode()
    value = str(len(header)) if length is None else length
    request = Request("POST", "/", {"inference-header-content-length": value}, header + tail)
    with suppress(ServingError):
        message, _ = infer.decode(request, "m", "")
        asked = oip.decode_request(message, SIGNATURE)
        assert asked.inputs["x"].dtype == np.float32
        assert asked.inputs["x"].shape[1:] == (2,)


@relaxed
@given(data=st.binary(max_size=80))
def test_any_bytes_that_are_a_message_are_a_request_or_are_refused(data: bytes) -> None:
    for parse, decode in (
        (pb.ModelInferRequest.FromString, lambda message: oip.decode_request(message, SIGNATURE)),
        (pb.ModelInferRequest.FromString, lambda message: oip_shared.expand(message, Regions())),
        (predict_pb2.PredictRequest.FromString, lambda message: tfs.decode_predict(message, SIGNATURE)),
        (input_pb2.Input.FromString, lambda message: tfs.decode_examples(message, SIGNATURE)),
    ):
        try:
            message: Any = parse(data)
        except Exception:  # noqa: BLE001  not a message: protobuf's own business
            continue
        with suppress(ServingError):
            decode(message)


@pytest.fixture
def region() -> Any:
    file = Path("/dev/shm/kerve_properties")
    file.write_bytes(bytes(range(64)))
    yield Region("r", "/kerve_properties", 16, 32)
    file.unlink()


@relaxed
@given(offset=st.integers(-5, 70) | st.integers(), size=st.integers(-5, 70) | st.integers())
def test_no_offset_leads_out_of_a_region(offset: int, size: int, region: Region) -> None:
    regions = Regions()
    regions.register(region)
    try:
        found = regions.read("x", RegionSlice("r", offset, size))
    except ServingError:
        assert not (offset >= 0 and size >= 0 and offset + size <= 32)
    else:
        assert found == bytes(range(16 + offset, 16 + offset + size))
    finally:
        regions.unregister(Region, "")

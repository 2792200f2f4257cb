"""Our copy of the public contracts against the ones that other clients carry."""

import subprocess
import sys
from collections.abc import Iterator, Mapping

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from tritonclient.grpc import model_config_pb2 as triton_config
from tritonclient.grpc import service_pb2 as triton_service

from kerve.artifact.v1.manifest_pb2 import Manifest
from kerve.descriptors import POOL
from kerve.inference import grpc_service_pb2, model_config_pb2

FILES = [
    pytest.param(triton_service.DESCRIPTOR, grpc_service_pb2.DESCRIPTOR, id="grpc_service"),
    pytest.param(triton_config.DESCRIPTOR, model_config_pb2.DESCRIPTOR, id="model_config"),
]

# What the Open Inference Protocol and KServe have and Triton has not.
ADDITIONS = {
    "inference.ModelMetadataResponse.properties",
    "inference.RepositoryModelLoadResponse.model_name",
    "inference.RepositoryModelLoadResponse.isLoaded",
    "inference.RepositoryModelUnloadResponse.model_name",
    "inference.RepositoryModelUnloadResponse.isUnloaded",
}


def messages(descriptors: Mapping[str, Descriptor]) -> Iterator[Descriptor]:
    for descriptor in descriptors.values():
        yield descriptor
        yield from messages(descriptor.nested_types_by_name)


def facts(field: FieldDescriptor) -> tuple[object, ...]:
    return (
        field.number,
        field.type,
        field.is_repeated,
        field.has_presence,
        field.message_type and field.message_type.full_name,
        field.enum_type and field.enum_type.full_name,
        field.containing_oneof and field.containing_oneof.name,
    )


def fields(file: FileDescriptor) -> dict[str, tuple[object, ...]]:
    return {
        field.full_name: facts(field)
        for message in messages(file.message_types_by_name)
        if not message.GetOptions().map_entry
        for field in message.fields
    }


def enums(file: FileDescriptor) -> dict[str, dict[str, int]]:
    found: list[EnumDescriptor] = list(file.enum_types_by_name.values())
    for message in messages(file.message_types_by_name):
        found.extend(message.enum_types)
    return {enum.full_name: {value.name: value.number for value in enum.values} for enum in found}


@pytest.mark.parametrize(("theirs", "ours"), FILES)
def test_every_field_has_tritons_number_and_type(theirs: FileDescriptor, ours: FileDescriptor) -> None:
    expected, found = fields(theirs), fields(ours)
    assert {name: found.get(name) for name in expected} == expected
    assert found.keys() - expected.keys() == {name for name in ADDITIONS if name in found}


@pytest.mark.parametrize(("theirs", "ours"), FILES)
def test_every_enum_has_tritons_values(theirs: FileDescriptor, ours: FileDescriptor) -> None:
    assert enums(ours) == enums(theirs)


def test_the_service_has_tritons_methods() -> None:
    theirs, ours = (
        [
            (
                method.name,
                method.input_type.full_name,
                method.client_streaming,
                method.output_type.full_name,
                method.server_streaming,
            )
            for method in file.services_by_name["GRPCInferenceService"].methods
        ]
        for file in (triton_service.DESCRIPTOR, grpc_service_pb2.DESCRIPTOR)
    )
    assert sorted(ours) == sorted(theirs)
    assert len(ours) == 20


def test_the_additions_have_the_numbers_of_their_protocols() -> None:
    found = fields(grpc_service_pb2.DESCRIPTOR)
    assert {name.rpartition(".")[2]: found[name][0] for name in ADDITIONS} == {
        "properties": 6,
        "model_name": 1,
        "isLoaded": 2,
        "isUnloaded": 2,
    }


@pytest.mark.parametrize(
    "imports",
    [
        pytest.param("import kerve.runtime, tritonclient.grpc", id="kerve first"),
        pytest.param("import tritonclient.grpc, kerve.runtime", id="tritonclient first"),
    ],
)
def test_kerve_and_tritonclient_share_a_process(imports: str) -> None:
    script = f"""{imports}
from kerve.inference.grpc_service_pb2 import ModelInferRequest as ours
from tritonclient.grpc.service_pb2 import ModelInferRequest as theirs
assert ours is not theirs
assert theirs.FromString(ours(model_name="m", id="1").SerializeToString()).model_name == "m"
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_no_contract_of_ours_is_in_the_default_pool() -> None:
    script = """
import kerve.runtime, kerve.artifact.v1.manifest_pb2, kerve.inference.grpc_service_pb2
from google.protobuf.descriptor_pool import Default
for name in ("inference/grpc_service.proto", "kerve/artifact/v1/manifest.proto", "google/rpc/status.proto"):
    try:
        Default().FindFileByName(name)
    except KeyError:
        continue
    raise SystemExit(name)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_manifest_survives_its_json() -> None:
    manifest = Manifest(schema=1, name="digits")
    spec = manifest.signature.inputs.add(name="image", datatype="FP32", labels=["a", "b"])
    spec.shape.add(symbol="batch")
    spec.shape.add(size=0)
    spec.shape.add()
    manifest.state.add(input="h_in", output="h_out", initial=b"\0\1")
    text = json_format.MessageToJson(manifest, preserving_proto_field_name=True, sort_keys=True)
    assert json_format.Parse(text, Manifest()) == manifest
    assert [each.WhichOneof("kind") for each in spec.shape] == ["symbol", "size", None]


def test_every_contract_is_in_the_private_pool() -> None:
    for name in (
        "inference/grpc_service.proto",
        "inference/model_config.proto",
        "kerve/artifact/v1/manifest.proto",
    ):
        assert POOL.FindFileByName(name).name == name

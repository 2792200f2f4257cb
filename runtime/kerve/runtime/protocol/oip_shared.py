"""Tensors in shared memory: reads the inputs of requests from regions, writes outputs to regions."""

from collections.abc import Mapping
from typing import Any

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.errors import InvalidArgumentError
from kerve.runtime.protocol.oip import SHARED_MEMORY
from kerve.runtime.shared_memory import CudaRegion, Region, Regions, RegionSlice

__all__ = [
    "decode_cuda_region",
    "decode_region",
    "encode_cuda_status",
    "encode_status",
    "expand",
    "place",
    "regions_of",
]

PARAMETERS = (SHARED_MEMORY, "shared_memory_byte_size", "shared_memory_offset")


def regions_of(message: pb.ModelInferRequest) -> set[str]:
    """Return the names of the regions that contain tensors of the request."""
    return {
        tensor.parameters[SHARED_MEMORY].string_param
        for tensors in (message.inputs, message.outputs)
        for tensor in tensors
        if SHARED_MEMORY in tensor.parameters
    }


def expand(
    message: pb.ModelInferRequest, regions: Regions
) -> tuple[pb.ModelInferRequest, dict[str, RegionSlice]]:
    """Return the request with the contents of its inputs, and the locations to write its outputs to."""
    whole = pb.ModelInferRequest.FromString(message.SerializeToString())
    given = list(whole.raw_input_contents)
    del whole.raw_input_contents[:]
    for tensor in whole.inputs:
        if (where := take_place(tensor)) is not None:
            whole.raw_input_contents.append(regions.read(tensor.name, where))
        elif given:
            whole.raw_input_contents.append(given.pop(0))
    whole.raw_input_contents.extend(given)  # too many: reported when the request is decoded
    places = {}
    for wanted in whole.outputs:
        if (where := take_place(wanted)) is not None:
            places[wanted.name] = where
    return whole, places


def place(response: pb.ModelInferResponse, places: Mapping[str, RegionSlice], regions: Regions) -> None:
    """Move outputs from a response to their locations in shared memory."""
    for position, tensor in enumerate(response.outputs):
        where = places.get(tensor.name)
        if where is None:
            continue
        contents = response.raw_output_contents[position]
        regions.write(tensor.name, where, contents)
        response.raw_output_contents[position] = b""
        tensor.parameters[SHARED_MEMORY].string_param = where.region
        tensor.parameters["shared_memory_byte_size"].int64_param = len(contents)
        tensor.parameters["shared_memory_offset"].int64_param = where.offset


def take_place(tensor: Any) -> RegionSlice | None:
    """Remove and return the shared memory location of a tensor; None if it is in the request itself."""
    if SHARED_MEMORY not in tensor.parameters:
        return None
    region, size, offset = (tensor.parameters[name] for name in PARAMETERS)
    where = RegionSlice(region.string_param, number(offset), number(size))
    for name in PARAMETERS:
        del tensor.parameters[name]
    if not where.region or not where.byte_size:
        raise InvalidArgumentError(
            f"tensor {tensor.name!r}: expected shared_memory_region and shared_memory_byte_size, "
            f"got {where.region!r} and {where.byte_size}"
        )
    return where


def number(parameter: pb.InferParameter) -> int:
    """Return an integer parameter, whichever field it is in."""
    return parameter.int64_param or parameter.uint64_param


def decode_region(message: pb.SystemSharedMemoryRegisterRequest) -> Region:
    """Return the region in a request."""
    return Region(message.name, message.key, message.offset, message.byte_size)


def decode_cuda_region(message: pb.CudaSharedMemoryRegisterRequest) -> CudaRegion:
    """Return the GPU memory region in a request."""
    return CudaRegion(message.name, message.raw_handle, message.device_id, message.byte_size)


def encode_cuda_status(regions: list[CudaRegion]) -> pb.CudaSharedMemoryStatusResponse:
    """Return the response of CudaSharedMemoryStatus."""
    response = pb.CudaSharedMemoryStatusResponse()
    for region in regions:
        status = response.regions[region.name]
        status.name, status.device_id, status.byte_size = region.name, region.device_id, region.byte_size
    return response


def encode_status(regions: list[Region]) -> pb.SystemSharedMemoryStatusResponse:
    """Return the response of SystemSharedMemoryStatus."""
    response = pb.SystemSharedMemoryStatusResponse()
    for region in regions:
        status = response.regions[region.name]
        status.name, status.key = region.name, region.key
        status.offset, status.byte_size = region.offset, region.byte_size
    return response

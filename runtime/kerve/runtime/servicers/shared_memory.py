"""inference.GRPCInferenceService: shared memory.

CUDA's shared memory is not offered, which is said clearly; so there is none, and all of it can be
unregistered.
"""

import grpc

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.errors import NotFoundError, UnimplementedError
from kerve.runtime.protocol import oip_shared
from kerve.runtime.servicers.edge import answers_errors
from kerve.runtime.shared_memory import Regions

__all__ = ["SharedMemoryServicer"]


class SharedMemoryServicer:
    """Registers and forgets regions."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions

    @answers_errors
    def SystemSharedMemoryStatus(  # noqa: N802  the protocol's name
        self, request: pb.SystemSharedMemoryStatusRequest, _: grpc.ServicerContext
    ) -> pb.SystemSharedMemoryStatusResponse:
        """The registered regions."""
        return oip_shared.encode_status(self._regions.status(request.name))

    @answers_errors
    def SystemSharedMemoryRegister(  # noqa: N802  the protocol's name
        self, request: pb.SystemSharedMemoryRegisterRequest, _: grpc.ServicerContext
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Register a region."""
        self._regions.register(oip_shared.decode_region(request))
        return pb.SystemSharedMemoryRegisterResponse()

    @answers_errors
    def SystemSharedMemoryUnregister(  # noqa: N802  the protocol's name
        self, request: pb.SystemSharedMemoryUnregisterRequest, _: grpc.ServicerContext
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Forget a region, or all of them."""
        self._regions.unregister(request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    @answers_errors
    def CudaSharedMemoryStatus(  # noqa: N802  the protocol's name
        self, request: pb.CudaSharedMemoryStatusRequest, _: grpc.ServicerContext
    ) -> pb.CudaSharedMemoryStatusResponse:
        """No region."""
        if request.name:
            raise NotFoundError(f"CUDA shared memory region {request.name!r} is not registered here")
        return pb.CudaSharedMemoryStatusResponse()

    @answers_errors
    def CudaSharedMemoryRegister(  # noqa: N802  the protocol's name
        self, _: pb.CudaSharedMemoryRegisterRequest, __: grpc.ServicerContext
    ) -> pb.CudaSharedMemoryRegisterResponse:
        """Not offered."""
        raise UnimplementedError(
            "this server does not offer CUDA shared memory; use system shared memory, "
            "or send the tensors' contents in the request"
        )

    @answers_errors
    def CudaSharedMemoryUnregister(  # noqa: N802  the protocol's name
        self, _: pb.CudaSharedMemoryUnregisterRequest, __: grpc.ServicerContext
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        """Nothing is to do."""
        return pb.CudaSharedMemoryUnregisterResponse()

"""inference.GRPCInferenceService: shared memory of the system and, if there is a GPU, of CUDA."""

import grpc

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.protocol import oip_shared
from kerve.runtime.servicers.edge import answers_errors
from kerve.runtime.shared_memory import CudaRegion, Region, Regions

__all__ = ["SharedMemoryServicer"]


class SharedMemoryServicer:
    """Registers and unregisters regions."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions

    @answers_errors
    def SystemSharedMemoryStatus(  # noqa: N802  the protocol's name
        self, request: pb.SystemSharedMemoryStatusRequest, _: grpc.ServicerContext
    ) -> pb.SystemSharedMemoryStatusResponse:
        """Return the registered regions."""
        return oip_shared.encode_status(self._regions.status(Region, request.name))

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
        """Unregister a region, or all."""
        self._regions.unregister(Region, request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    @answers_errors
    def CudaSharedMemoryStatus(  # noqa: N802  the protocol's name
        self, request: pb.CudaSharedMemoryStatusRequest, _: grpc.ServicerContext
    ) -> pb.CudaSharedMemoryStatusResponse:
        """Return the registered regions."""
        return oip_shared.encode_cuda_status(self._regions.status(CudaRegion, request.name))

    @answers_errors
    def CudaSharedMemoryRegister(  # noqa: N802  the protocol's name
        self, request: pb.CudaSharedMemoryRegisterRequest, _: grpc.ServicerContext
    ) -> pb.CudaSharedMemoryRegisterResponse:
        """Register a region; UNIMPLEMENTED without a CUDA device."""
        self._regions.register(oip_shared.decode_cuda_region(request))
        return pb.CudaSharedMemoryRegisterResponse()

    @answers_errors
    def CudaSharedMemoryUnregister(  # noqa: N802  the protocol's name
        self, request: pb.CudaSharedMemoryUnregisterRequest, _: grpc.ServicerContext
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        """Unregister a region, or all."""
        self._regions.unregister(CudaRegion, request.name)
        return pb.CudaSharedMemoryUnregisterResponse()

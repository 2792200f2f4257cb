"""inference.GRPCInferenceService: shared memory; and ModelInfer for tensors in it, on either transport.

CUDA's shared memory is not offered, which is said clearly; so there is none, and all of it can be
unregistered.
"""

import grpc

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.callers import Caller
from kerve.runtime.errors import NotFoundError, UnimplementedError
from kerve.runtime.gateway import Gateway
from kerve.runtime.protocol import oip_shared
from kerve.runtime.servicers.edge import answers_errors
from kerve.runtime.shared_memory import Regions

__all__ = ["SharedInferServicer", "SharedMemoryServicer"]


class SharedInferServicer:
    """Makes a request whole, lets it go the way of every other, and puts its outputs where they are
    wanted.
    """

    def __init__(self, regions: Regions, gateway: Gateway) -> None:
        self._regions = regions
        self._gateway = gateway

    @answers_errors
    def ModelInfer(  # noqa: N802  the protocol's name
        self, request: pb.ModelInferRequest, context: grpc.ServicerContext
    ) -> pb.ModelInferResponse:
        """Compute outputs from inputs, either of which may lie in shared memory."""
        whole, places = oip_shared.expand(request, self._regions)
        response: pb.ModelInferResponse = self._gateway.call(
            "ModelInfer", whole, Caller.of(context), timeout=context.time_remaining()
        )
        oip_shared.place(response, places, self._regions)
        return response


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

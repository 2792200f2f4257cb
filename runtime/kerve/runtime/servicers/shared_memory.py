"""inference.GRPCInferenceService: the calls of shared memory, for clients that look and clean up.

No region can be registered, which is said clearly; so there is none, and all of them can be unregistered.
"""

from typing import NoReturn

import grpc

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.errors import NotFoundError, UnimplementedError
from kerve.runtime.servicers.edge import answers_errors

__all__ = ["SharedMemoryServicer"]


class SharedMemoryServicer:
    """Tells that there are no regions."""

    @answers_errors
    def SystemSharedMemoryStatus(  # noqa: N802  the protocol's name
        self, request: pb.SystemSharedMemoryStatusRequest, _: grpc.ServicerContext
    ) -> pb.SystemSharedMemoryStatusResponse:
        """No region."""
        check_all(request.name)
        return pb.SystemSharedMemoryStatusResponse()

    @answers_errors
    def SystemSharedMemoryRegister(  # noqa: N802  the protocol's name
        self, _: pb.SystemSharedMemoryRegisterRequest, __: grpc.ServicerContext
    ) -> pb.SystemSharedMemoryRegisterResponse:
        """Not offered."""
        refuse("system")

    @answers_errors
    def SystemSharedMemoryUnregister(  # noqa: N802  the protocol's name
        self, request: pb.SystemSharedMemoryUnregisterRequest, _: grpc.ServicerContext
    ) -> pb.SystemSharedMemoryUnregisterResponse:
        """Nothing is to do."""
        check_all(request.name)
        return pb.SystemSharedMemoryUnregisterResponse()

    @answers_errors
    def CudaSharedMemoryStatus(  # noqa: N802  the protocol's name
        self, request: pb.CudaSharedMemoryStatusRequest, _: grpc.ServicerContext
    ) -> pb.CudaSharedMemoryStatusResponse:
        """No region."""
        check_all(request.name)
        return pb.CudaSharedMemoryStatusResponse()

    @answers_errors
    def CudaSharedMemoryRegister(  # noqa: N802  the protocol's name
        self, _: pb.CudaSharedMemoryRegisterRequest, __: grpc.ServicerContext
    ) -> pb.CudaSharedMemoryRegisterResponse:
        """Not offered."""
        refuse("CUDA")

    @answers_errors
    def CudaSharedMemoryUnregister(  # noqa: N802  the protocol's name
        self, request: pb.CudaSharedMemoryUnregisterRequest, _: grpc.ServicerContext
    ) -> pb.CudaSharedMemoryUnregisterResponse:
        """Nothing is to do."""
        check_all(request.name)
        return pb.CudaSharedMemoryUnregisterResponse()


def check_all(name: str) -> None:
    """Raise NotFoundError when a region is named: there is none."""
    if name:
        raise NotFoundError(f"shared memory region {name!r} is not registered here")


def refuse(kind: str) -> NoReturn:
    """Raise UnimplementedError."""
    raise UnimplementedError(
        f"this server does not offer {kind} shared memory; send the tensors' contents in the request"
    )

"""gRPC services from their descriptors: handlers for a server, calls for a client, reflection.

grpcio's generated stubs use protobuf's default descriptor pool; kerve's descriptors are in a separate pool.
"""

from __future__ import annotations  # grpc's classes take type arguments in the stubs only

import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import (
    Descriptor,
    FieldDescriptor,
    FileDescriptor,
    MethodDescriptor,
    ServiceDescriptor,
)
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection, reflection_pb2

from kerve.descriptors import POOL

__all__ = ["add_reflection", "add_service", "calls", "in_pool", "methods_of"]

T = TypeVar("T")

# By (client streaming, server streaming).
HANDLERS = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
CALLS = {
    (False, False): "unary_unary",
    (False, True): "unary_stream",
    (True, False): "stream_unary",
    (True, True): "stream_stream",
}

REFLECTION = (reflection.SERVICE_NAME, "grpc.reflection.v1.ServerReflection")
REFLECTION_THREADS = 16


class Host(Protocol):
    """The part of grpc.Server that is needed to host a service."""

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Sequence[grpc.GenericRpcHandler], /) -> None:
        """Host a service."""

    def add_registered_method_handlers(
        self, service_name: str, method_handlers: dict[str, grpc.RpcMethodHandler[Any, Any]], /
    ) -> None:
        """Host a service by its methods."""


def add_service(server: Host, service: ServiceDescriptor, methods: Mapping[str, Callable[..., Any]]) -> None:
    """Host the given methods of a service; its other methods stay UNIMPLEMENTED."""
    handlers = {
        name: HANDLERS[streaming(service.methods_by_name[name])](
            method,
            request_deserializer=message_class(service.methods_by_name[name].input_type).FromString,
            response_serializer=message_class(service.methods_by_name[name].output_type).SerializeToString,
        )
        for name, method in methods.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service.full_name, handlers),))
    server.add_registered_method_handlers(service.full_name, handlers)


def methods_of(service: ServiceDescriptor, servicer: object) -> dict[str, Callable[..., Any]]:
    """Return the methods of a service that a servicer implements."""
    return {
        method.name: getattr(servicer, method.name)
        for method in service.methods
        if hasattr(servicer, method.name)
    }


def in_pool(method: Callable[..., Any], pool: ThreadPoolExecutor) -> Callable[..., Any]:
    """Return a method that a server runs in a separate pool, so that it takes no threads from others."""
    separate = functools.partial(method)
    separate.experimental_thread_pool = pool  # type: ignore[attr-defined]  # partial takes any, grpcio reads it
    return separate


def calls(channel: grpc.Channel, service: ServiceDescriptor) -> dict[str, Any]:
    """Return grpcio's multi-callables of a service's methods, by method name."""
    return {
        method.name: getattr(channel, CALLS[streaming(method)])(
            f"/{service.full_name}/{method.name}",
            request_serializer=message_class(method.input_type).SerializeToString,
            response_deserializer=message_class(method.output_type).FromString,
        )
        for method in service.methods
    }


def streaming(method: MethodDescriptor) -> tuple[bool, bool]:
    """Return whether the client streams, and whether the server streams."""
    return method.client_streaming, method.server_streaming


def message_class(descriptor: Descriptor) -> type[Message]:
    """Return the class of a message."""
    return message_factory.GetMessageClass(descriptor)


class MergedDescriptorPool:
    """A descriptor pool of kerve's contracts and then protobuf's default pool (health, reflection)."""

    def FindFileByName(self, name: str) -> FileDescriptor:  # noqa: N802  DescriptorPool's interface
        """Return a file by its path."""
        return find_in_either(lambda pool: pool.FindFileByName(name))

    def FindFileContainingSymbol(self, symbol: str) -> FileDescriptor:  # noqa: N802  DescriptorPool's interface
        """Return the file that declares a message, enum, service or method.

        DescriptorPool finds methods only through their services.
        """
        service, _, method = symbol.rpartition(".")
        try:
            return find_in_either(lambda pool: pool.FindFileContainingSymbol(symbol))
        except KeyError:
            return find_in_either(
                lambda pool: pool.FindServiceByName(service).methods_by_name[method]
            ).containing_service.file

    def FindMessageTypeByName(self, name: str) -> Descriptor:  # noqa: N802  DescriptorPool's interface
        """Return a message by its full name."""
        return find_in_either(lambda pool: pool.FindMessageTypeByName(name))

    def FindExtensionByNumber(self, message: Descriptor, number: int) -> FieldDescriptor:  # noqa: N802  its interface
        """Return an extension of a message."""
        return message.file.pool.FindExtensionByNumber(message, number)

    def FindAllExtensions(self, message: Descriptor) -> list[FieldDescriptor]:  # noqa: N802  its interface
        """Return every extension of a message."""
        return message.file.pool.FindAllExtensions(message)


def find_in_either(find: Callable[[DescriptorPool], T]) -> T:
    """Return what is found in kerve's pool, else in the default pool; raises KeyError if in neither."""
    try:
        return find(POOL)
    except KeyError:
        return find(descriptor_pool.Default())


def add_reflection(server: Host, services: Sequence[str]) -> None:
    """Let clients list and describe the named services, through reflection v1alpha and v1.

    grpcio's package has only `grpc.reflection.v1alpha`; `grpc.reflection.v1` has the same messages.
    """
    servicer = reflection.ReflectionServicer([*services, *REFLECTION], pool=MergedDescriptorPool())
    # An idle stream occupies a thread.
    pool = ThreadPoolExecutor(REFLECTION_THREADS, "reflection")
    handler = grpc.stream_stream_rpc_method_handler(
        in_pool(servicer.ServerReflectionInfo, pool),
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in REFLECTION:
        handlers = {"ServerReflectionInfo": handler}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
        server.add_registered_method_handlers(name, handlers)

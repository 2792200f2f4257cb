"""The server's own door to its services."""

import threading

import pytest

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.callers import Caller
from kerve.runtime.errors import SHUTTING_DOWN, UnavailableError
from kerve.runtime.gateway import Gateway
from kerve.runtime.transport.grpcio import GrpcioTransport


def test_what_reaches_a_server_that_ends_is_told_so_and_nothing_of_the_socket() -> None:
    transport, stopping = GrpcioTransport(), threading.Event()
    gateway = Gateway(transport, stopping)
    transport.start()
    stopping.set()
    assert transport.stop(0).wait(30)
    with pytest.raises(UnavailableError) as caught:
        gateway.call("ServerLive", pb.ServerLiveRequest(), Caller("", {}))
    assert str(caught.value) == SHUTTING_DOWN
    gateway.close()
    with pytest.raises(UnavailableError) as caught:
        gateway.call("ServerLive", pb.ServerLiveRequest(), Caller("", {}))
    assert str(caught.value) == SHUTTING_DOWN

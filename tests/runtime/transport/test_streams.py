"""Streams of requests on grpcio."""

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from kerve.inference import grpc_service_pb2 as pb
from kerve.runtime.signature import Signature, TensorSpec
from kerve.runtime.transport.base import ServedModel
from kerve.runtime.transport.grpcio import GrpcioTransport

Until = Callable[[Callable[[], bool], str], None]


def readers() -> int:
    return sum(each.name == "stream" for each in threading.enumerate())


def test_a_stream_that_is_given_up_with_more_requests_than_may_wait_keeps_no_thread(until: Until) -> None:
    transport, over = GrpcioTransport(), threading.Event()
    spec = (TensorSpec("x", "FP32", ("batch",)),)
    queue = transport.attach(ServedModel("m", 1, Signature(spec, spec, batched=True)))
    transport.publish("m", {"": queue})
    port = transport.add_insecure_port("127.0.0.1:0")
    transport.start()
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[bytes(4)])
    request.inputs.add(name="x", datatype="FP32", shape=[1])

    def requests() -> Iterator[bytes]:
        yield from [request.SerializeToString()] * 500
        over.wait()

    before = readers()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call: Any = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        stream = call(requests())
        until(lambda: queue.depth >= 64, "as many wait as may")  # nobody computes here
        stream.cancel()
        over.set()
        until(lambda: readers() == before, "nobody reads any more")
    queue.close()
    assert transport.stop(0).wait(30)

"""Servicers written for grpcio, on the wire: all four kinds of call, and what a context offers."""

import asyncio
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

import kerve_wire

BIG = 3 << 20


class Echo:
    """A servicer of byte strings."""

    def __init__(self) -> None:
        self.notes: dict[str, Any] = {}
        self.waiting = threading.Event()
        self.ended = threading.Event()
        self.go = threading.Event()

    def unary(self, request: bytes, _context: grpc.ServicerContext) -> bytes:
        return request * 2

    def split(self, request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from (request[index : index + 1] for index in range(len(request)))

    def join(self, requests: Iterator[bytes], _context: grpc.ServicerContext) -> bytes:
        return b"".join(requests)

    def each(self, requests: Iterator[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield request.upper()

    def large(self, _request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
        for _ in range(5):
            yield bytes(BIG)

    def abort(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("why", "because"), ("data-bin", b"\0\xff")))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: é")

    def code(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_code(grpc.StatusCode.OUT_OF_RANGE)
        context.set_details("too far")
        return b""

    def error(self, _request: bytes, _context: grpc.ServicerContext) -> bytes:
        raise ValueError("broken")

    def late_error(self, _request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b"one"
        raise ValueError("broken")

    def look(self, _request: bytes, context: Any) -> bytes:
        self.notes = {
            "metadata": [(each.key, each.value) for each in context.invocation_metadata()],
            "peer": context.peer(),
            "remaining": context.time_remaining(),
            "active": context.is_active(),
            "auth": dict(context.auth_context()),
            "identities": context.peer_identities(),
        }
        context.send_initial_metadata((("first", "1"), ("first-bin", b"\1\2")))
        context.set_trailing_metadata((("last", "2"),))
        return b"seen"

    def wait(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        assert context.add_callback(self.ended.set)
        self.waiting.set()
        self.go.wait(20)
        self.notes["active"] = context.is_active()
        self.notes["after"] = context.add_callback(lambda: None)
        return b""

    def nonsense(self, _request: bytes, context: Any) -> bytes:
        context.set_trailing_metadata((("UPPER CASE", "1"),))
        return b""

    def squeeze(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_compression(grpc.Compression.Deflate)
        return bytes(BIG)

    def cancel(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        context.cancel()
        return b""

    def endless(self, _request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        context.add_callback(self.ended.set)
        while True:
            yield bytes(1000)


KINDS = {
    "unary_unary": ("unary", "abort", "code", "error", "look", "wait", "cancel", "nonsense", "squeeze"),
    "unary_stream": ("split", "large", "late_error", "endless"),
    "stream_unary": ("join",),
    "stream_stream": ("each",),
}


def host(server: kerve_wire.Server, echo: Echo) -> None:
    handlers = {
        name: getattr(grpc, f"{kind}_rpc_method_handler")(getattr(echo, name))
        for kind, names in KINDS.items()
        for name in names
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    server.add_registered_method_handlers("test.Registered", handlers)


@pytest.fixture(scope="module")
def echo() -> Echo:
    return Echo()


@pytest.fixture(scope="module")
def channel(serve: Any, echo: Echo) -> Iterator[grpc.Channel]:
    with serve(prepare=lambda server: host(server, echo)) as served:
        options = [("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(served.address, options) as channel:
            yield channel


def call(channel: Any, name: str, service: str = "test.Echo") -> Any:
    kind = next(kind for kind, names in KINDS.items() if name in names)
    return getattr(channel, kind)(f"/{service}/{name}")


@pytest.mark.parametrize("service", ["test.Echo", "test.Registered"])
def test_all_four_kinds_of_call_are_served(channel: grpc.Channel, service: str) -> None:
    assert call(channel, "unary", service)(b"ab") == b"abab"
    assert list(call(channel, "split", service)(b"abc")) == [b"a", b"b", b"c"]
    assert call(channel, "join", service)(iter([b"a", b"", b"bc"])) == b"abc"
    assert list(call(channel, "each", service)(iter([b"a", b"b"]))) == [b"A", b"B"]


def test_a_conversation_alternates(channel: grpc.Channel) -> None:
    answered = threading.Semaphore(1)

    def ask() -> Iterator[bytes]:
        for letter in b"abc":
            assert answered.acquire(timeout=10)
            yield bytes([letter])

    found = []
    for message in call(channel, "each")(ask()):
        found.append(message)
        answered.release()
    assert found == [b"A", b"B", b"C"]


def test_large_messages_pass_both_ways(channel: grpc.Channel) -> None:
    assert len(call(channel, "unary")(bytes(BIG))) == 2 * BIG
    assert [len(message) for message in call(channel, "large")(b"")] == [BIG] * 5


def test_messages_are_compressed_both_ways(channel: grpc.Channel) -> None:
    assert call(channel, "squeeze")(b"", compression=grpc.Compression.Gzip) == bytes(BIG)
    assert len(call(channel, "unary")(bytes(BIG), compression=grpc.Compression.Deflate)) == 2 * BIG


def test_messages_are_unpacked_when_their_call_is_permitted(serve: Any, echo: Echo) -> None:
    class Guard(grpc.ServerInterceptor):
        def intercept_service(self, continuation: Any, details: Any) -> Any:
            def refuse(_: Any, context: grpc.ServicerContext) -> None:
                context.abort(grpc.StatusCode.PERMISSION_DENIED, "not you")

            permitted = any(each[0] == "permitted" for each in details.invocation_metadata)
            return continuation(details) if permitted else grpc.stream_unary_rpc_method_handler(refuse)

    server = kerve_wire.Server(
        kerve_wire.ServerOptions(max_receive_message_length=100_000), interceptors=(Guard(),)
    )
    host(server, echo)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        with grpc.insecure_channel(address) as channel:

            def ask(*metadata: tuple[str, str]) -> tuple[grpc.StatusCode, str]:
                future = call(channel, "unary").future(
                    bytes(BIG), metadata=metadata, compression=grpc.Compression.Gzip, timeout=20
                )
                return future.code(), future.details()

            assert ask() == (grpc.StatusCode.PERMISSION_DENIED, "not you")
            code, details = ask(("permitted", "1"))
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "decompresses to more than 100000 bytes" in details
    finally:
        assert server.stop(5).wait(10)


def test_asyncio_clients_are_served(serve: Any, echo: Echo) -> None:
    async def ask(address: str) -> Any:
        async with grpc.aio.insecure_channel(address) as channel:
            many = await asyncio.gather(*(call(channel, "unary")(str(n).encode()) for n in range(100)))
            stream = call(channel, "each")(iter([b"a", b"b"]))
            return many, [message async for message in stream]

    with serve(prepare=lambda server: host(server, echo)) as served:
        many, stream = asyncio.run(ask(served.address))
    assert many == [str(n).encode() * 2 for n in range(100)]
    assert stream == [b"A", b"B"]


@pytest.mark.parametrize(
    ("name", "code", "details"),
    [
        pytest.param("abort", "FAILED_PRECONDITION", "not now: é", id="abort"),
        pytest.param("code", "OUT_OF_RANGE", "too far", id="set_code"),
        pytest.param("error", "UNKNOWN", "Exception calling application: broken", id="exception"),
        pytest.param("cancel", "CANCELLED", "the server cancelled the call", id="cancel"),
        pytest.param("nonsense", "INTERNAL", "the servicer's status is not valid: metadata \"UPPER CASE\": "
                     "the key is not valid", id="metadata"),
    ],
)  # fmt: skip
def test_a_method_that_fails_ends_with_its_status(
    channel: grpc.Channel, oip: Any, name: str, code: str, details: str
) -> None:
    assert oip.refusal(lambda: call(channel, name)(b"")) == (grpc.StatusCode[code], details)


def test_a_stream_that_fails_keeps_what_was_sent(channel: grpc.Channel) -> None:
    stream = call(channel, "late_error")(b"")
    assert next(stream) == b"one"
    with pytest.raises(grpc.RpcError):
        next(stream)
    assert stream.code() is grpc.StatusCode.UNKNOWN


def test_trailing_metadata_comes_with_a_failure(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        call(channel, "abort")(b"")
    assert isinstance(failed.value, grpc.Call)
    trailing = dict(failed.value.trailing_metadata())
    assert (trailing["why"], trailing["data-bin"]) == ("because", b"\0\xff")


def test_a_context_shows_the_call(channel: grpc.Channel, echo: Echo) -> None:
    metadata = (("key", "value"), ("key", "again"), ("raw-bin", b"\0\1\xff"))
    response, outcome = call(channel, "look").with_call(b"", metadata=metadata, timeout=50)
    assert response == b"seen"
    assert dict(outcome.initial_metadata()) == {"first": "1", "first-bin": b"\1\2"}
    assert dict(outcome.trailing_metadata())["last"] == "2"
    assert [pair for pair in echo.notes["metadata"] if pair[0] != "user-agent"] == list(metadata)
    assert echo.notes["peer"].startswith("ipv4:127.0.0.1:")
    assert 20 < echo.notes["remaining"] <= 51
    assert echo.notes["active"]
    assert echo.notes["auth"] == {}
    assert echo.notes["identities"] is None


def test_unknown_methods_are_unimplemented(channel: grpc.Channel, oip: Any) -> None:
    nothing: Any = channel.unary_unary("/test.Echo/Nothing")
    found = oip.refusal(lambda: nothing(b""))
    assert found == (grpc.StatusCode.UNIMPLEMENTED, "Method not found!")


def test_callbacks_are_called_when_the_client_goes(serve: Any, until: Any) -> None:
    echo = Echo()
    with serve(prepare=lambda server: host(server, echo)) as served, served.channel() as channel:
        future = call(channel, "wait").future(b"")
        assert echo.waiting.wait(20)
        future.cancel()
        assert echo.ended.wait(10)
        echo.go.set()
        until(lambda: "after" in echo.notes, "the method is over")
    assert echo.notes == {"active": False, "after": False}


def test_what_python_has_not_seen_to_is_bounded_by_what_it_unfolds_to(serve: Any, oip: Any) -> None:
    """A message of a few bytes may be a thousand times as large."""
    echo, size = Echo(), 700_000
    options = kerve_wire.ServerOptions(max_buffered_bytes=1_000_000)
    with (
        serve(prepare=lambda server: host(server, echo), server_options=options) as served,
        served.channel() as channel,
    ):
        folded = {"compression": grpc.Compression.Gzip}
        first = call(channel, "wait").future(bytes(size), **folded)
        assert echo.waiting.wait(20)
        code, text = oip.refusal(lambda: call(channel, "unary")(bytes(size), **folded))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "1000000 bytes of requests that are not answered" in text
        echo.go.set()
        first.result(20)
        assert len(call(channel, "unary")(bytes(size), **folded)) == 2 * size


def test_threads_that_cannot_be_had_end_none_of_those_there_are(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container's limit of processes, say."""

    def refuse(**_: object) -> None:
        raise RuntimeError("can't start new thread")

    with serve(prepare=lambda server: host(server, Echo())) as served, served.channel() as channel:
        assert call(channel, "unary")(b"a") == b"aa"
        with monkeypatch.context() as patched:
            patched.setattr("kerve_wire._hosting.threading", SimpleNamespace(Thread=refuse))
            answers = [call(channel, "unary").future(b"b", timeout=60) for _ in range(20)]
            assert [each.result() for each in answers] == [b"bb"] * 20
        assert call(channel, "unary")(b"a") == b"aa"


def test_a_deadline_ends_a_call_that_is_served(serve: Any, oip: Any) -> None:
    echo = Echo()
    with serve(prepare=lambda server: host(server, echo)) as served, served.channel() as channel:
        found = oip.refusal(lambda: call(channel, "wait")(b"", timeout=0.2))
        assert found[0] is grpc.StatusCode.DEADLINE_EXCEEDED
        assert echo.ended.wait(10)
        echo.go.set()


def test_a_slow_reader_slows_its_servicer_and_nobody_else(serve: Any) -> None:
    echo = Echo()
    with serve(prepare=lambda server: host(server, echo)) as served, served.channel() as channel:
        stream = call(channel, "endless")(b"")
        next(stream)
        assert call(channel, "unary")(b"a") == b"aa"
        stream.cancel()
        assert echo.ended.wait(10)


def test_interceptors_see_every_call(serve: Any, oip: Any) -> None:
    seen: list[str] = []

    class Note(grpc.ServerInterceptor):
        def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            seen.append(handler_call_details.method)
            if dict(handler_call_details.invocation_metadata).get("let") == "in":
                return continuation(handler_call_details)

            def refuse(request: bytes, context: grpc.ServicerContext) -> bytes:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")

            return grpc.unary_unary_rpc_method_handler(refuse)

    server = kerve_wire.Server(interceptors=(Note(),))
    host(server, Echo())
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        assert call(channel, "unary")(b"a", metadata=(("let", "in"),)) == b"aa"
        found = oip.refusal(lambda: call(channel, "unary")(b"a"))
    assert server.stop(None).wait(10)
    assert found == (grpc.StatusCode.UNAUTHENTICATED, "who are you?")
    assert seen == ["/test.Echo/unary"] * 2


@pytest.mark.parametrize("non_blocking", [False, True])
def test_health_and_reflection_run_unchanged(serve: Any, *, non_blocking: bool) -> None:
    servicer = health.HealthServicer(experimental_non_blocking=non_blocking)

    def prepare(server: kerve_wire.Server) -> None:
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        reflection.enable_server_reflection(["grpc.health.v1.Health", reflection.SERVICE_NAME], server)

    with serve(prepare=prepare) as served, served.channel() as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        watch = stub.Watch(health_pb2.HealthCheckRequest(service="m"))
        states = [next(watch).status]
        servicer.set("m", health_pb2.HealthCheckResponse.SERVING)
        states.append(next(watch).status)
        assert stub.Check(health_pb2.HealthCheckRequest(service="m")).status == 1
        services = ProtoReflectionDescriptorDatabase(channel).get_services()
    assert states == [health_pb2.HealthCheckResponse.SERVICE_UNKNOWN, health_pb2.HealthCheckResponse.SERVING]
    assert set(services) == {"grpc.health.v1.Health", reflection.SERVICE_NAME}

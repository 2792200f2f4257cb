"""Clients that do not play by the rules; after each of them another client is served as if nothing was."""

import gzip
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kerve_wire

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0, 1, 2, 3, 4, 6, 7, 8, 9,
)  # fmt: skip
END_STREAM, END_HEADERS = 1, 4
METHOD = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name: bytes, value: bytes) -> bytes:
    assert max(len(name), len(value)) < 127
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


def head(path: str = METHOD, content_type: bytes = b"application/grpc", *more: bytes) -> bytes:
    # :method POST and :scheme http stand in HPACK's static table
    fields = [literal(b":path", path.encode()), literal(b":authority", b"x")]
    return b"\x83\x86" + b"".join([*fields, literal(b"content-type", content_type), *more])


def message(payload: bytes, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(payload)) + payload


class Raw:
    """A connection on which anything can be said."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.received = b""

    def say(self, *parts: bytes) -> None:
        with suppress(ConnectionError):  # the server may have hung up already
            self.socket.sendall(b"".join(parts))

    def greet(self) -> None:
        self.say(PREFACE, frame(SETTINGS))

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """The server's frames, until it hangs up."""
        while True:
            while len(self.received) >= 9:
                size = int.from_bytes(self.received[:3], "big")
                if len(self.received) < 9 + size:
                    break
                kind, flags = self.received[3], self.received[4]
                stream = int.from_bytes(self.received[5:9], "big")
                payload, self.received = self.received[9 : 9 + size], self.received[9 + size :]
                yield kind, flags, stream, payload
            try:
                more = self.socket.recv(65536)
            except ConnectionError:
                return
            if not more:
                return
            self.received += more

    def answer(self, stream: int) -> str:
        """How the server ended a stream: with trailers, a reset, or the whole connection."""
        for kind, flags, number, _ in self.frames():
            if kind == GOAWAY:
                return "goaway"
            if number == stream and kind == RST_STREAM:
                return "reset"
            if number == stream and flags & END_STREAM:
                return "trailers"
        return "closed"


@contextmanager
def attacked(serve: Any, oip: Any, rows: Any) -> Iterator[Raw]:
    """A server, a hostile connection to it, and a good client that must be served before and after."""
    with serve() as served, served.channel() as channel:
        stub = oip.stub(channel)
        np.testing.assert_array_equal(oip.answer(stub.ModelInfer(oip.request(rows(1)))), rows(1) * 2)
        raw = Raw(served.address)
        yield raw
        request = oip.request(rows(3))
        np.testing.assert_array_equal(oip.answer(stub.ModelInfer(request, timeout=20)), rows(3) * 2)
        raw.socket.close()


def good(oip: Any, rows: Any) -> bytes:
    return bytes(oip.request(rows(1)).SerializeToString())


def windows_open(address: str) -> Raw:
    """A connection on which large messages can be sent, and whose answers nobody reads."""
    raw = Raw(address)
    raw.greet()
    assert next(raw.frames())[0] == SETTINGS
    raw.say(frame(SETTINGS, 1))  # acknowledged: the server's windows are larger than HTTP/2's own,
    assert any(kind == WINDOW_UPDATE for kind, *_ in raw.frames())  # from here on
    return raw


def send(raw: Raw, stream: int, *messages: bytes, path: str = METHOD, end: bool = True) -> None:
    """A call with all of its messages."""
    body = b"".join(map(message, messages))
    raw.say(frame(HEADERS, END_HEADERS, stream, head(path)))
    pieces = [body[at : at + 16_384] for at in range(0, len(body), 16_384)]
    raw.say(*(frame(DATA, 0, stream, piece) for piece in pieces))
    if end:
        raw.say(frame(DATA, END_STREAM, stream))


@pytest.mark.parametrize("path", [METHOD, STREAM])
def test_answers_that_nobody_reads_are_bounded(
    path: str, serve: Any, oip: Any, rows: Any, until: Any
) -> None:
    options = kerve_wire.ServerOptions(max_buffered_bytes=1_000_000)
    with serve(server_options=options) as served, served.channel() as channel:
        raw, stub, large = windows_open(served.address), oip.stub(channel), oip.request(rows(10_000))
        for number in range(1, 6):
            send(raw, 2 * number - 1, large.SerializeToString(), path=path)
            until(lambda sent=number: served.queue.statistics()["codes"].get(0) == sent, "it is answered")
        until(lambda: served.server.statistics()["bytes_buffered_now"] >= 800_000, "no answer is sent")
        code, told = oip.refusal(lambda: stub.ModelInfer(oip.request(rows(20_000))))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "answers that are not read" in told
        raw.socket.close()
        until(lambda: served.server.statistics()["bytes_buffered_now"] == 0, "nothing is held")
        np.testing.assert_array_equal(oip.answer(stub.ModelInfer(large)), rows(10_000) * 2)


def test_the_answers_of_one_stream_count_while_they_wait_for_one_another(
    serve: Any, oip: Any, rows: Any, until: Any
) -> None:
    with serve(go=False) as served:
        raw, large = windows_open(served.address), oip.request(rows(10_000)).SerializeToString()
        send(raw, 1, *[large] * 10, path=STREAM)
        until(lambda: served.queue.statistics()["waiting"] == 10, "all wait")
        served.go.set()
        until(lambda: served.queue.statistics()["codes"].get(0) == 10, "all are answered")
        until(lambda: served.server.statistics()["bytes_buffered_now"] >= 9 * 160_000, "none is sent")
        raw.socket.close()
        until(lambda: served.server.statistics()["bytes_buffered_now"] == 0, "nothing is held")


@pytest.mark.parametrize("what", ["answers", "requests"])
def test_a_client_that_has_stopped_gives_way_to_others(
    what: str, serve: Any, oip: Any, rows: Any, until: Any
) -> None:
    options = kerve_wire.ServerOptions(max_buffered_bytes=1_000_000, keepalive_timeout=0.2)
    with serve(server_options=options) as served, served.channel() as channel:
        raw, stub, large = windows_open(served.address), oip.stub(channel), oip.request(rows(10_000))
        for number in range(1, 8):
            data = large.SerializeToString()
            if what == "answers":
                send(raw, 2 * number - 1, data)
            else:
                send(raw, 2 * number - 1, data[:-1] if number > 2 else data, end=number <= 2)

        def answered() -> bool:
            with suppress(grpc.RpcError):
                return bool(np.array_equal(oip.answer(stub.ModelInfer(large)), rows(10_000) * 2))
            return False

        until(answered, "another is served")


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        pytest.param(head(), message(b"good"), {"trailers"}, id="not protobuf"),
        pytest.param(head(), message(b"x" * 10)[:8], {"trailers"}, id="ends within a message"),
        pytest.param(head(), b"\0\0", {"trailers"}, id="ends within a prefix"),
        pytest.param(head(), b"", {"trailers"}, id="no message"),
        pytest.param(head(), message(b"") * 2, {"trailers"}, id="two messages"),
        pytest.param(head(), message(b"", 1), {"trailers"}, id="compressed without an encoding"),
        pytest.param(head(), message(b"", 9), {"trailers"}, id="unknown flag"),
        pytest.param(head(), b"\0\xff\xff\xff\xff", {"trailers"}, id="four gigabytes announced"),
        pytest.param(head(content_type=b"text/html"), b"", {"trailers"}, id="not gRPC"),
        pytest.param(head(METHOD, b"application/grpc", literal(b"grpc-encoding", b"gzip")),
                     message(b"not gzip", 1), {"trailers"}, id="not gzip"),
        pytest.param(head(METHOD, b"application/grpc", literal(b"grpc-encoding", b"zebra")),
                     message(b"", 1), {"trailers"}, id="unknown encoding"),
        pytest.param(head(METHOD, b"application/grpc", literal(b"grpc-timeout", b"soon")),
                     message(b""), {"trailers"}, id="malformed timeout"),
        pytest.param(head("/nothing"), message(b""), {"trailers"}, id="unknown method"),
        pytest.param(head("*"), message(b""), {"trailers", "reset"}, id="no path"),
        pytest.param(b"\x83\x86", message(b""), {"reset", "goaway", "trailers"}, id="no path at all"),
        pytest.param(b"\xff\xff\xff\xff\xff\xff", b"", {"goaway", "closed"}, id="broken HPACK"),
        pytest.param(head(METHOD, b"application/grpc", literal(b"UPPER", b"x")), b"",
                     {"reset", "goaway"}, id="upper case"),
        pytest.param(head(METHOD, b"application/grpc", literal(b"connection", b"close")), b"",
                     {"reset", "goaway", "trailers"}, id="connection header"),
    ],
)  # fmt: skip
def test_a_malformed_call_is_ended(
    serve: Any, oip: Any, rows: Any, headers: bytes, body: bytes, expected: set[str]
) -> None:
    with attacked(serve, oip, rows) as raw:
        raw.greet()
        raw.say(frame(HEADERS, END_HEADERS, 1, headers), frame(DATA, END_STREAM, 1, body))
        assert raw.answer(1) in expected


@pytest.mark.parametrize(
    "said",
    [
        pytest.param([b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], id="HTTP/1"),
        pytest.param([os.urandom(4096)], id="noise"),
        pytest.param([PREFACE, frame(DATA, 0, 1, b"x")], id="data before settings"),
        pytest.param([PREFACE, frame(SETTINGS), frame(DATA, 0, 1, b"x")], id="data on an idle stream"),
        pytest.param([PREFACE, frame(SETTINGS, 0, 0, b"abc")], id="settings of a wrong length"),
        pytest.param([PREFACE, frame(SETTINGS), frame(PING, 0, 0, b"x")], id="ping of a wrong length"),
        pytest.param([PREFACE, frame(SETTINGS), frame(HEADERS, END_HEADERS, 2, head())], id="even stream"),
        pytest.param([PREFACE, frame(SETTINGS), frame(HEADERS, 0, 1, head()), frame(PING, 0, 0, bytes(8))],
                     id="something between headers"),
        pytest.param([PREFACE, frame(SETTINGS), frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff") * 2],
                     id="window overflow"),
        pytest.param([PREFACE, frame(SETTINGS), b"\xff\xff\xff" + bytes([DATA, 0, 0, 0, 0, 1])],
                     id="frame too large"),
        pytest.param([PREFACE, frame(SETTINGS), frame(CONTINUATION, 0, 1, b"x")], id="stray continuation"),
    ],
)  # fmt: skip
def test_a_connection_that_breaks_the_rules_is_ended(
    serve: Any, oip: Any, rows: Any, said: list[bytes]
) -> None:
    with attacked(serve, oip, rows) as raw:
        raw.say(*said)
        assert raw.answer(1) in ("goaway", "closed")


def test_data_after_the_end_of_a_stream_ends_it_only(serve: Any, oip: Any, rows: Any) -> None:
    with attacked(serve, oip, rows) as raw:
        raw.greet()
        body = message(good(oip, rows))
        raw.say(
            frame(HEADERS, END_HEADERS, 1, head()),
            frame(DATA, END_STREAM, 1, body),
            frame(DATA, 0, 1, b"more"),
        )
        assert raw.answer(1) in ("reset", "goaway", "trailers")


def test_endless_headers_are_cut_off(serve: Any, oip: Any, rows: Any) -> None:
    with attacked(serve, oip, rows) as raw:
        raw.greet()
        raw.say(frame(HEADERS, 0, 1, head()))
        more = frame(CONTINUATION, 0, 1, literal(b"x", b"y" * 120) * 100)
        for _ in range(2000):
            raw.say(more)
        assert raw.answer(1) in ("goaway", "closed", "reset", "trailers")


def test_a_client_may_give_up_many_calls_at_once(serve: Any, oip: Any, rows: Any) -> None:
    with attacked(serve, oip, rows) as raw:
        raw.greet()
        reset = struct.pack(">I", 8)
        calls = [
            frame(HEADERS, END_HEADERS, stream, head()) + frame(RST_STREAM, 0, stream, reset)
            for stream in range(1, 601, 2)
        ]
        raw.say(b"".join(calls), frame(HEADERS, END_HEADERS | END_STREAM, 601, head()))
        assert raw.answer(601) == "trailers"


def test_rapid_resets_are_answered_or_cut_off(serve: Any, oip: Any, rows: Any) -> None:
    """As many calls as a connection may have may be given up at once; what is read beyond them ends it."""
    with attacked(serve, oip, rows) as raw:
        raw.greet()
        for stream in range(1, 20_001, 2):
            reset = frame(RST_STREAM, 0, stream, struct.pack(">I", 8))
            raw.say(frame(HEADERS, END_HEADERS, stream, head()), reset)
        raw.say(frame(HEADERS, END_HEADERS | END_STREAM, 20_001, head()))
        assert raw.answer(20_001) in ("trailers", "goaway", "closed")


@pytest.mark.parametrize(
    "flood",
    [
        pytest.param(frame(SETTINGS), id="settings"),
        pytest.param(frame(PING, 0, 0, bytes(8)), id="pings"),
        pytest.param(frame(PRIORITY, 0, 1, bytes([0, 0, 0, 3, 1])), id="priorities"),
        pytest.param(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)), id="window updates"),
    ],
)
def test_floods_of_small_frames_hurt_nobody_else(serve: Any, oip: Any, rows: Any, flood: bytes) -> None:
    with attacked(serve, oip, rows) as raw:
        raw.greet()
        raw.socket.settimeout(0.5)
        with suppress(TimeoutError):  # a server that answers nothing more reads nothing more
            for _ in range(50):
                raw.say(flood * 1000)


def test_a_client_that_never_reads_costs_only_itself(serve: Any, oip: Any) -> None:
    wide = np.zeros((4, 50_000), np.float32)
    shape = ("batch", 50_000)
    with (
        serve(inputs=(("x", "FP32", shape),), outputs=(("y", "FP32", shape),)) as served,
        served.channel() as channel,
    ):
        raw = Raw(served.address)
        raw.greet()
        body = message(oip.request(wide).SerializeToString())
        for stream in range(1, 41, 2):
            raw.say(frame(HEADERS, END_HEADERS, stream, head()))
            for start in range(0, len(body), 16_384):
                last = start + 16_384 >= len(body)
                raw.say(frame(DATA, END_STREAM if last else 0, stream, body[start : start + 16_384]))
        for _ in range(20):
            oip.stub(channel).ModelInfer(oip.request(wide), timeout=20)
        raw.socket.close()


def test_many_half_open_streams_hurt_nobody_else(serve: Any, oip: Any, rows: Any) -> None:
    with attacked(serve, oip, rows) as raw:
        raw.greet()
        for stream in range(1, 2001, 2):
            raw.say(frame(HEADERS, END_HEADERS, stream, head()), frame(DATA, 0, stream, b"\0\0\0\1"))


@pytest.mark.parametrize("messages", [0, 2])
def test_requests_that_never_end_keep_no_servicer_from_others(serve: Any, messages: int) -> None:
    servicer = health.HealthServicer()
    with serve(
        prepare=lambda server: health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    ) as served:
        raw = Raw(served.address)
        raw.greet()
        for stream in range(1, 401, 2):
            raw.say(frame(HEADERS, END_HEADERS, stream, head("/grpc.health.v1.Health/Check")))
            if messages:
                raw.say(frame(DATA, 0, stream, message(b"") * messages))
        with served.channel() as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            assert stub.Check(health_pb2.HealthCheckRequest(), timeout=20).status == 1
        # Each is served all the same once it is complete.
        raw.say(frame(DATA, END_STREAM, 201, message(b"")))
        assert raw.answer(201) == "trailers"
        raw.socket.close()


def test_a_message_that_unfolds_to_much_keeps_nobody_waiting(serve: Any, oip: Any, rows: Any) -> None:
    with serve(server_options=kerve_wire.ServerOptions(workers=1)) as served, served.channel() as channel:
        ask = oip.stub(channel).ModelInfer
        ask(oip.request(rows(1)), timeout=20)
        raw = Raw(served.address)
        raw.greet()
        assert any(kind == WINDOW_UPDATE for kind, *_ in raw.frames())  # then there is room for all of it
        raw.say(frame(SETTINGS, 1))
        packed = literal(b"grpc-encoding", b"gzip")
        raw.say(frame(HEADERS, END_HEADERS, 1, head(METHOD, b"application/grpc", packed)))
        body = message(gzip.compress(bytes(16 << 20)) * 16, 1)
        raw.say(*(frame(DATA, 0, 1, body[start : start + 16_384]) for start in range(0, len(body), 16_384)))
        raw.say(frame(DATA, END_STREAM, 1))
        # In one piece, it would be in hand before anything that is asked now.
        for _ in range(3):
            ask(oip.request(rows(1)), timeout=60)
        raw.socket.setblocking(False)
        with pytest.raises(BlockingIOError):  # there is no answer yet
            raw.answer(1)
        raw.socket.settimeout(60)
        assert raw.answer(1) == "trailers"


def test_a_timeout_of_ages_is_no_deadline(serve: Any, oip: Any, rows: Any) -> None:
    ages = literal(b"grpc-timeout", b"99999999H")
    with attacked(serve, oip, rows) as raw:
        raw.greet()
        raw.say(
            frame(HEADERS, END_HEADERS, 1, head(METHOD, b"application/grpc", ages)),
            frame(DATA, END_STREAM, 1, message(good(oip, rows))),
        )
        assert raw.answer(1) == "trailers"


def test_many_messages_in_one_frame_wait_their_turn(serve: Any, oip: Any, rows: Any) -> None:
    with attacked(serve, oip, rows) as raw:
        raw.greet()
        raw.say(
            frame(HEADERS, END_HEADERS, 1, head("/inference.GRPCInferenceService/ModelStreamInfer")),
            frame(DATA, END_STREAM, 1, message(b"") * 13_000),
        )
        # Each of them is refused; the client reads on.
        raw.say(
            frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)),
            frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", 1 << 30)),
        )
        assert raw.answer(1) == "trailers"


def test_hundreds_of_silent_connections_hurt_nobody(serve: Any, oip: Any, rows: Any) -> None:
    with serve() as served, served.channel() as channel:
        host, _, port = served.address.rpartition(":")
        silent = [socket.create_connection((host, int(port))) for _ in range(400)]
        for each in silent[::2]:
            each.sendall(PREFACE + frame(SETTINGS))
        oip.stub(channel).ModelInfer(oip.request(rows(1)), timeout=20)
        for each in silent:
            each.close()
        end = time.monotonic() + 20
        while served.server.statistics()["connections_now"] > 1:
            assert time.monotonic() < end
            time.sleep(0.01)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutated_requests_are_answered_or_refused(mutated: tuple[Any, bytes], data: st.DataObject) -> None:
    call, original = mutated
    body = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(body) - 1))
        body[position] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    for each in (bytes(body), bytes(body[:cut])):
        answered = call.future(each, timeout=20)
        assert answered.code().name in ("OK", "INVALID_ARGUMENT", "INTERNAL", "NOT_FOUND", "UNIMPLEMENTED")


@pytest.fixture
def mutated(serve: Any, oip: Any, rows: Any) -> Iterator[tuple[Any, bytes]]:
    with serve() as served, served.channel() as channel:
        yield channel.unary_unary(METHOD), good(oip, rows)


def test_memory_stays_flat_under_cancelled_and_broken_calls(serve: Any, oip: Any, rows: Any) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    with serve() as served, served.channel() as channel:
        call = channel.unary_unary(METHOD)
        body = good(oip, rows)

        def abuse(times: int) -> None:
            for number in range(times):
                future = call.future(body if number % 2 else body[:-1])
                if number % 3 == 0:
                    future.cancel()
                else:
                    future.exception()

        threads = [threading.Thread(target=abuse, args=(1000,)) for _ in range(4)]
        abuse(1000)
        before = resident()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        grown = resident() - before
        end = time.monotonic() + 20
        while served.server.statistics()["in_flight_now"]:
            assert time.monotonic() < end
            time.sleep(0.01)
    assert grown < 32 << 20

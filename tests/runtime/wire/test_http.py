"""HTTP before an application: what the wire serves and hands on, and clients that play by no rules."""

import gzip
import http.client
import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

import kerve_wire

PATH = "/v2/models/m/infer"
NONE: Mapping[str, str] = {}
Ports = Callable[..., AbstractContextManager[tuple[Any, int]]]


class Told(BaseHTTPRequestHandler):
    """Answers with what it was told; to /wait, once it may."""

    protocol_version = "HTTP/1.1"
    go = threading.Event()
    waiting: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        if self.path == "/wait":
            self.waiting.append(self.path)
            self.go.wait()
        said = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def address_string(self) -> str:
        return "unix"

    def log_message(self, *_: Any) -> None: ...


class Application(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 100


@pytest.fixture
def fronted(serve: Any, tmp_path: Path) -> Ports:
    """Serves model `m` over HTTP, before an application or none."""

    @contextmanager
    def running(*, application: bool = False, **options: Any) -> Iterator[tuple[Any, int]]:
        ports: list[int] = []

        def prepare(server: Any) -> None:
            ports.append(server.add_http_port("127.0.0.1:0", tmp_path / "http"))

        behind = Application(str(tmp_path / "http"), Told) if application else None
        if behind is not None:
            Told.go.clear()
            Told.waiting.clear()
            threading.Thread(target=behind.serve_forever, daemon=True).start()
        try:
            with serve(prepare=prepare, **options) as served:
                yield served, ports[0]
        finally:
            if behind is not None:
                behind.shutdown()
                behind.server_close()

    return running


def request(rows: np.ndarray[Any, Any]) -> bytes:
    tensor = {"name": "x", "shape": rows.shape, "datatype": "FP32", "data": rows.tolist()}
    return json.dumps({"inputs": [tensor]}).encode()


def ask(
    port: int, body: bytes | None = None, path: str = PATH, headers: Mapping[str, str] = NONE
) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET" if body is None else "POST", path, body, dict(headers))
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def begin(port: int, sent: int, length: int) -> socket.socket:
    """A request that says how long it is, and sends less."""
    client = socket.create_connection(("127.0.0.1", port), timeout=60)
    client.sendall(b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (PATH.encode(), length))
    client.sendall(bytes(sent))
    return client


def test_a_large_request_is_computed_in_parts(fronted: Ports, rows: Any) -> None:
    with fronted(options=kerve_wire.QueueOptions(max_batch_size=2)) as (served, port):
        status, answer = ask(port, request(rows(5)))
        assert (status, answer["outputs"][0]["shape"]) == (200, [5, 4])
        assert answer["outputs"][0]["data"] == (rows(5) * 2).ravel().tolist()
        assert sum(served.batches) == 5
        assert max(served.batches) == 2


def test_much_json_is_read_too(fronted: Ports, rows: Any) -> None:
    body = request(rows(20_000))
    with fronted(options=kerve_wire.QueueOptions(max_batch_size=20_000)) as (_, port):
        for sent, headers in ((body, NONE), (gzip.compress(body, 1), {"Content-Encoding": "gzip"})):
            status, answer = ask(port, sent, headers=headers)
            assert status == 200
            assert answer["outputs"][0]["data"] == (rows(20_000) * 2).ravel().tolist()


def test_requests_of_many_connections_share_a_batch(fronted: Ports, rows: Any, until: Any) -> None:
    with fronted(go=False) as (served, port), ThreadPoolExecutor(9) as pool:
        first = pool.submit(ask, port, request(rows(1)))
        until(lambda: served.queue.statistics()["waiting"] == 1, "one waits")
        others = [pool.submit(ask, port, request(rows(1, number))) for number in range(8)]
        until(lambda: served.queue.statistics()["waiting"] == 9, "all wait")
        served.go.set()
        assert first.result()[0] == 200
        for number, other in enumerate(others):
            assert other.result()[1]["outputs"][0]["data"] == (rows(1, number) * 2).ravel().tolist()
        assert served.batches == [9]


def test_an_answer_counts_until_it_is_read(fronted: Ports, rows: Any, until: Any) -> None:
    body = request(rows(250_000))  # more than the system's buffers hold
    batches = kerve_wire.QueueOptions(max_batch_size=250_000)
    with fronted(options=batches) as (served, port), socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", port))
        said = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (PATH.encode(), len(body))
        client.sendall(said + body)
        until(lambda: served.queue.statistics()["codes"].get(0) == 1, "it is answered")
        until(lambda: served.server.statistics()["bytes_sent"] > 5_000_000, "the answer is encoded")
        until(lambda: served.server.statistics()["bytes_buffered_now"] > 5_000_000, "it counts")
        client.close()
        until(lambda: served.server.statistics()["bytes_buffered_now"] == 0, "nothing is held")


def test_bodies_that_are_not_complete_are_bounded_together(fronted: Ports, rows: Any, until: Any) -> None:
    options = kerve_wire.ServerOptions(max_buffered_bytes=4000)
    with fronted(server_options=options) as (served, port):
        first = begin(port, 3000, 3500)
        until(lambda: served.server.statistics()["bytes_buffered_now"] >= 3000, "one is there in part")
        second = begin(port, 3000, 3500)
        until(lambda: served.server.statistics()["refused"] == {8: 1}, "another is refused")
        second.sendall(bytes(500))
        answer = http.client.HTTPResponse(second)
        answer.begin()
        assert answer.status == 429
        assert "requests that are not answered" in json.loads(answer.read())["error"]
        first.close()
        until(lambda: served.server.statistics()["bytes_buffered_now"] == 0, "nothing is held")
        assert ask(port, request(rows(1)))[0] == 200
        second.close()


def test_who_hangs_up_is_not_computed_for(fronted: Ports, rows: Any, until: Any) -> None:
    with fronted(go=False) as (served, port):
        body = request(rows(3))
        with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
            head = b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (PATH.encode(), len(body))
            client.sendall(head + body)
            until(lambda: served.queue.statistics()["waiting"] == 1, "it waits")
        until(lambda: served.queue.statistics()["waiting"] == 0, "it waits no more")
        served.go.set()
        assert ask(port, request(rows(1)))[0] == 200
        assert served.batches == [1]


def test_what_is_no_http_harms_nobody(fronted: Ports, rows: Any) -> None:
    with fronted() as (_, port):
        for said in (
            b"\r\n\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\x00",
            b"POST " + PATH.encode() + b" HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
            b"POST " + PATH.encode() + b" HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
            b"POST " + PATH.encode() + b" HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 10_000,
            b"GET /" + b"a" * 1_000_000,
        ):
            # The server may hang up before all of it is said.
            with (
                socket.create_connection(("127.0.0.1", port), timeout=60) as client,
                suppress(OSError),
            ):
                client.sendall(said)
                client.shutdown(socket.SHUT_WR)
                while client.recv(1 << 16):
                    pass
            assert ask(port, request(rows(1)))[0] == 200


def test_the_application_learns_who_asks_and_only_that(fronted: Ports) -> None:
    claims = {"Forwarded": "for=10.0.0.1", "X-Forwarded-For": "10.0.0.1", "Connection": "x-hop", "X-Hop": "1"}
    with fronted(application=True) as (_, port):
        status, told = ask(port, path="/anything?a=b", headers={**claims, "X-Mine": "kept"})
        assert status == 200
        assert told["forwarded"].startswith('for="127.0.0.1:')
        assert told["x-mine"] == "kept"
        assert not {"x-forwarded-for", "x-hop", "connection"} & told.keys()
        with ThreadPoolExecutor(100) as pool:
            found = [pool.submit(ask, port, path="/metrics") for _ in range(300)]
            assert {each.result()[0] for each in found} == {200}


def test_probes_wait_for_nobody_who_has_the_application_compute(fronted: Ports, until: Any) -> None:
    """A pod whose requests take long would be ended by those who look whether it lives."""

    def ask(path: str) -> int:
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as client:
            client.request("GET", path)
            return client.getresponse().status

    with fronted(application=True) as (_, port), ThreadPoolExecutor(80) as pool:
        try:
            others = [pool.submit(ask, "/wait") for _ in range(80)]
            until(lambda: len(Told.waiting) == 16, "as many are computed as may be")
            assert [ask("/v2/health/live") for _ in range(3)] == [200] * 3
            assert len(Told.waiting) == 16
        finally:
            Told.go.set()
        assert [each.result() for each in others] == [200] * 80


def test_who_leaves_keeps_the_seat_until_the_application_has_answered(fronted: Ports, until: Any) -> None:
    """The application computes on; if others came in their place, it had no thread for probes in the end."""

    def begin() -> socket.socket:
        client = socket.create_connection(("127.0.0.1", port), timeout=60)
        client.sendall(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        return client

    with fronted(application=True) as (served, port):
        try:
            gone = [begin() for _ in range(16)]
            until(lambda: len(Told.waiting) == 16, "as many are computed as may be")
            for each in gone:
                each.close()
            until(lambda: served.server.statistics()["connections_now"] == 0, "the server knows")
            with closing(begin()) as other:
                assert [ask(port, path="/v2/health/live")[0] for _ in range(10)] == [200] * 10
                assert len(Told.waiting) == 16
                Told.go.set()
                assert other.recv(1000).startswith(b"HTTP/1.1 200")
        finally:
            Told.go.set()


def test_without_its_application_the_wire_serves_on(fronted: Ports, rows: Any) -> None:
    with fronted() as (_, port):
        status, answer = ask(port, path="/metrics")
        assert (status, "try again later" in answer["error"]) == (503, True)
        assert ask(port, request(rows(1)))[0] == 200

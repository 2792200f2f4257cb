"""HTTP itself: connections that are kept, bodies in pieces, what is too large, who may infer."""

import hashlib
import http.client
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path
from typing import Any

import pytest

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]

PATH = "/v2/models/echo_fp32/infer"
TENSOR = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2.5]}
BODY = json.dumps({"inputs": [TENSOR]}).encode()
MOST = 4000
TOKENS = {"all": "infer read", "reader": "read"}


@pytest.fixture(scope="module")
def running(
    transport: str, tmp_path_factory: pytest.TempPathFactory, publish: Publish, serve: Serve
) -> Iterator[Any]:
    """A server that takes small requests, from who has a token."""
    folder = tmp_path_factory.mktemp("http")
    publish(folder / "models", "echo_fp32")
    hashes = [f"{hashlib.sha256(token.encode()).hexdigest()} {may}\n" for token, may in TOKENS.items()]
    (folder / "tokens").write_text("".join(hashes))
    options = ("--max-message-bytes", str(MOST), "--tokens", str(folder / "tokens"), "--http-port", "-1")
    with serve(folder / "models", "--transport", transport, *options) as server:
        yield server


@pytest.fixture
def connection(running: Any) -> Iterator[http.client.HTTPConnection]:
    with closing(http.client.HTTPConnection(running.http, timeout=60)) as made:
        yield made


def ask(
    connection: http.client.HTTPConnection,
    method: str = "POST",
    path: str = PATH,
    body: Any = BODY,
    *,
    token: str = "all",
    **headers: str,
) -> tuple[int, http.client.HTTPMessage, Any]:
    """The status, the headers, and the body, which is JSON."""
    connection.request(method, path, body, {"Authorization": f"Bearer {token}", **headers})
    answer = connection.getresponse()
    text = answer.read()
    return answer.status, answer.headers, json.loads(text) if text else None


def test_a_connection_is_kept_whoever_answers(connection: http.client.HTTPConnection) -> None:
    assert ask(connection)[2]["outputs"][0]["data"] == [1, 2.5]
    kept = connection.sock
    for _ in range(2):
        assert ask(connection, "GET", "/v2/health/ready", None)[0] == 200
        assert ask(connection, path="/v2/models/nobody/infer")[0] == 404
        assert ask(connection, body=b"{")[0] == 400
        assert ask(connection, token="reader")[0] == 403
        assert ask(connection, "GET", "/v3", None)[0] == 404
        assert ask(connection)[0] == 200
    assert connection.sock is kept
    assert ask(connection, Connection="close")[0] == 200
    assert connection.sock is None


def test_bodies_come_in_pieces_and_are_waited_for(running: Any) -> None:
    host, _, port = running.http.rpartition(":")
    head = f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer all\r\n".encode()
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in (BODY[:1], BODY[1:9], BODY[9:]))
    with socket.create_connection((host, int(port)), timeout=60) as client, client.makefile("rb") as answers:

        def answer() -> Any:
            assert answers.readline().startswith(b"HTTP/1.1 200")
            headers = http.client.parse_headers(answers)
            return json.loads(answers.read(int(headers["Content-Length"])))["outputs"][0]["data"]

        client.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        assert answer() == [1, 2.5]
        client.sendall(head + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % len(BODY))
        assert answers.readline().startswith(b"HTTP/1.1 100")
        assert answers.readline() == b"\r\n"
        client.sendall(BODY)
        assert answer() == [1, 2.5]
        client.sendall(2 * (head + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY))
        assert [answer(), answer()] == 2 * [[1, 2.5]]
        client.sendall(head.replace(b"1.1", b"1.0") + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY)
        assert b"200" in answers.readline()
        assert answers.read().endswith(b"}")


@pytest.mark.parametrize("path", [PATH, "/v2/repository/index"])
def test_what_is_too_large_is_refused_and_nothing_else(
    path: str, transport: str, running: Any, connection: http.client.HTTPConnection
) -> None:
    assert ask(connection, path=path, body=BODY + b" " * (MOST - len(BODY)))[0] != 413
    for body in (bytes(MOST + 1), iter([bytes(MOST), b"1"])):
        with suppress(BrokenPipeError, ConnectionResetError):  # the answer comes before the end of the body
            connection.request("POST", path, body, {"Authorization": "Bearer all"})
        answer = connection.getresponse()
        text = answer.read()
        assert answer.status == 413
        if transport == "wire":
            assert f"larger than {MOST} bytes" in json.loads(text)["error"]
        connection.close()
    assert ask(connection)[0] == 200


def test_who_may_not_infer_is_told_so(connection: http.client.HTTPConnection) -> None:
    status, headers, answer = ask(connection, token="made-up")
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    assert "expected the metadata authorization: Bearer TOKEN" in answer["error"]
    status, headers, answer = ask(connection, token="reader")
    assert (status, headers["WWW-Authenticate"]) == (403, None)
    assert "needs the permission infer" in answer["error"]
    assert ask(connection, "GET", "/v2/models/echo_fp32", None, token="reader")[0] == 200
    assert ask(connection, "GET", "/v2/health/live", None, token="")[0] == 200


def test_who_does_not_ask_for_html_is_told_that_the_server_is_alive(
    connection: http.client.HTTPConnection,
) -> None:
    # KServe's V1 client, which sends Accept: */*
    assert ask(connection, "GET", "/", None, token="", Accept="*/*")[2] == {"status": "alive"}
    connection.request("GET", "/", headers={"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"})
    assert b"<html" in connection.getresponse().read()


@pytest.mark.parametrize(
    "path", ["/v2/health/ready", "/v2/models/echo_fp32", "/v2/models/nope", "/metrics", "/", PATH]
)
def test_a_head_is_what_getting_would_be_without_the_body(
    path: str, connection: http.client.HTTPConnection
) -> None:
    found = {}
    for method in ("GET", "HEAD"):
        connection.request(method, path, headers={"Authorization": "Bearer all"})
        answer = connection.getresponse()
        found[method] = (
            answer.status,
            answer.headers["Content-Type"],
            answer.headers["Allow"],
            answer.read(),
        )
    assert found["HEAD"] == (*found["GET"][:3], b"")
    assert (found["HEAD"][0] == 405) == (path == PATH)
    assert ask(connection)[0] == 200


def test_names_may_be_written_in_any_way(connection: http.client.HTTPConnection) -> None:
    for path in (
        "/v2/models/echo%5Ffp32/infer",
        "/v2/models/echo_fp32/versions/1/infer?a=b",
        "http://elsewhere/v2/models/echo_fp32/infer",
    ):
        assert ask(connection, path=path)[0] == 200, path
    assert ask(connection, path="/v2/models/echo_fp32/versions/9/infer")[0] == 404

"""Who is let in: bearer tokens with permissions, TLS with and without client certificates, on both
transports.
"""

import hashlib
import json
import queue
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import click
import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.http as triton_http
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tritonclient.utils import InferenceServerException

from kerve.runtime.commands.connection import Connection
from kerve.runtime.commands.serve import Options

KERVE = str(Path(sys.executable).with_name("kerve"))
Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]
Until = Callable[[Callable[[], bool], str], None]


def line(token: str, permissions: str) -> str:
    return f"{hashlib.sha256(token.encode()).hexdigest()} {permissions} whose it is\n"


@pytest.fixture(scope="module")
def guarded(
    transport: str, tmp_path_factory: pytest.TempPathFactory, publish: Publish, serve: Serve
) -> Iterator[Any]:
    """A server that asks for tokens, and the file of these."""
    folder = tmp_path_factory.mktemp("guarded")
    publish(folder / "models", "echo_fp32")
    tokens = folder / "tokens"
    tokens.write_text(
        "# for the tests\n" + line("all", "infer,read,control") + line("user", "infer") + line("eye", "read")
    )
    options = ("--tokens", str(tokens), "--transport", transport, "--http-port", "-1")
    with serve(
        folder / "models", *options, "--model-control-mode", "explicit", "--load-model", "*"
    ) as running:
        yield running, tokens


def bearer(token: str | None) -> dict[str, str]:
    return {} if token is None else {"authorization": f"Bearer {token}"}


def infer(client: Any, module: Any, headers: dict[str, str]) -> Any:
    tensor = module.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
    return client.infer("echo_fp32", [tensor], headers=headers).as_numpy("y")


CALLS: dict[str, tuple[str, Callable[[Any, dict[str, str]], Any]]] = {
    "infer": ("infer", lambda client, headers: infer(client, triton, headers)),
    "metadata": ("read", lambda client, headers: client.get_model_metadata("echo_fp32", headers=headers)),
    "statistics": ("read", lambda client, headers: client.get_inference_statistics(headers=headers)),
    "index": ("read", lambda client, headers: client.get_model_repository_index(headers=headers)),
    "load": ("control", lambda client, headers: client.load_model("echo_fp32", headers=headers)),
    "logging": ("control", lambda client, headers: client.get_log_settings(headers=headers)),
}
ALLOWED = {"all": {"infer", "read", "control"}, "user": {"infer"}, "eye": {"read"}, "bad": set(), None: set()}


@pytest.mark.parametrize("call", list(CALLS))
@pytest.mark.parametrize("token", list(ALLOWED))
def test_a_call_needs_a_token_with_its_permission(token: str | None, call: str, guarded: Any) -> None:
    permission, ask = CALLS[call]
    with triton.InferenceServerClient(guarded[0].address) as client:
        if permission in ALLOWED[token]:
            ask(client, bearer(token))
            return
        with pytest.raises(InferenceServerException) as caught:
            ask(client, bearer(token))
    known = token in ("user", "eye")
    assert caught.value.status() == f"StatusCode.{'PERMISSION_DENIED' if known else 'UNAUTHENTICATED'}"
    expected = f"it needs the permission {permission}" if known else "expected the metadata authorization"
    assert expected in caught.value.message()


def test_a_call_that_is_refused_is_not_waited_for(guarded: Any) -> None:
    """Its messages, which may unfold to a thousand times as much, are not unpacked either."""
    done = threading.Event()

    def never() -> Iterator[bytes]:
        done.wait()
        yield from ()

    with grpc.insecure_channel(guarded[0].address) as channel:
        method: Any = channel.stream_unary("/inference.GRPCInferenceService/RepositoryIndex")
        call = method.future(never(), timeout=20)
        try:
            assert call.code() is grpc.StatusCode.UNAUTHENTICATED
        finally:
            done.set()


@pytest.mark.parametrize("method", ["ModelInfer", "RepositoryIndex"])
def test_of_two_tokens_none_counts(method: str, guarded: Any) -> None:
    """One reader would take the first, and another the last."""
    with grpc.insecure_channel(guarded[0].address) as channel:
        both = (("authorization", "Bearer bad"), ("authorization", "Bearer all"))
        for metadata in (both, both[::-1], (both[1], both[1])):
            call: Any = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
            future = call.future(b"", metadata=metadata, timeout=20)
            assert future.code() is grpc.StatusCode.UNAUTHENTICATED


def test_probes_need_no_token(guarded: Any) -> None:
    with (
        triton.InferenceServerClient(guarded[0].address) as client,
        grpc.insecure_channel(guarded[0].address) as channel,
    ):
        assert client.is_server_live()
        assert client.is_server_ready()
        assert client.is_model_ready("echo_fp32")
        reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert reply.status == health_pb2.HealthCheckResponse.SERVING


def test_streams_and_predict_are_guarded_too(guarded: Any) -> None:
    with grpc.insecure_channel(guarded[0].address) as channel:
        stream: Any = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer")
        with pytest.raises(grpc.RpcError) as caught:
            list(stream(iter([b""]), timeout=10))
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        predict: Any = channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        with pytest.raises(grpc.RpcError) as caught:
            predict(b"", timeout=10, metadata=(("authorization", "Bearer eye"),))
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_http_asks_for_the_same_tokens(guarded: Any) -> None:
    def status(path: str, token: str | None) -> int:
        request = urllib.request.Request(f"http://{guarded[0].http}{path}", headers=bearer(token))
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code if json.loads(error.read())["error"] else 0

    for path in ("/metrics", "/status.json", "/v2/models/echo_fp32", "/v2"):
        assert [status(path, token) for token in (None, "bad", "user", "eye")] == [401, 401, 403, 200], path
    for path in ("/v2/health/live", "/v2/health/ready", "/"):
        assert status(path, None) == 200
    with triton_http.InferenceServerClient(guarded[0].http) as client:
        assert infer(client, triton_http, bearer("user")).tolist() == [[1, 1]]
        with pytest.raises(InferenceServerException):
            infer(client, triton_http, {})


@pytest.mark.parametrize(
    "path",
    [
        "repository/index",
        "repository/models/m/load",
        "logging",
        "trace/setting",
        "systemsharedmemory/region/r/register",
    ],
)
def test_http_unpacks_nothing_for_those_who_may_not_ask(path: str, guarded: Any) -> None:
    headers = {"Content-Encoding": "gzip"}
    request = urllib.request.Request(
        f"http://{guarded[0].http}/v2/{path}", b"no gzip", headers, method="POST"
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=30)
    assert refused.value.code == 401


def test_the_file_is_read_again_and_a_damaged_one_is_not(guarded: Any, until: Until) -> None:
    running, tokens = guarded
    before = tokens.read_text()

    def works(token: str) -> bool:
        with triton.InferenceServerClient(running.address) as client:
            try:
                infer(client, triton, bearer(token))
                client.get_model_metadata("echo_fp32", headers=bearer(token))
            except InferenceServerException:
                return False
            return True

    tokens.write_text(before + line("new", "infer,read"))
    until(lambda: works("new"), "the new token is let in")
    tokens.write_text("what is this\n")
    until(lambda: "the previous tokens stay valid" in running.log.read_text(), "the file is read again")
    assert works("new")
    tokens.write_text(before)
    until(lambda: not works("new"), "the new token is refused")
    assert works("all")


def test_a_stream_ends_when_its_token_is_taken_back(
    transport: str, tmp_path: Path, publish: Publish, serve: Serve, until: Until
) -> None:
    publish(tmp_path / "models", "echo_fp32")
    tokens = tmp_path / "tokens"
    tokens.write_text(line("one", "infer") + line("other", "infer"))
    answers: queue.Queue[Any] = queue.Queue()

    def ask(client: Any) -> Any:
        tensor = triton.InferInput("x", [1, 2], "FP32")
        tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
        client.async_stream_infer("echo_fp32", [tensor])
        return answers.get(timeout=60)[1]

    def is_known(token: str) -> bool:
        with triton.InferenceServerClient(running.address) as client:
            try:
                infer(client, triton, bearer(token))
            except InferenceServerException:
                return False
            return True

    with (
        serve(tmp_path / "models", "--tokens", str(tokens), "--transport", transport) as running,
        triton.InferenceServerClient(running.address) as client,
        grpc.insecure_channel(running.address) as channel,
    ):
        client.start_stream(lambda result, error: answers.put((result, error)), headers=bearer("one"))
        assert ask(client) is None
        evaluate: Any = channel.stream_stream("/kerve.evaluation.v1.EvaluationService/Evaluate")
        messages: queue.Queue[bytes] = queue.Queue()
        call = evaluate(iter(messages.get, None), metadata=tuple(bearer("one").items()), timeout=60)
        tokens.write_text(line("other", "infer"))
        until(lambda: not is_known("one"), "the file has been read again")
        assert ask(client).status() == "StatusCode.UNAUTHENTICATED"
        messages.put(b"")
        assert call.code() is grpc.StatusCode.UNAUTHENTICATED
        client.stop_stream()
        client.start_stream(lambda result, error: answers.put((result, error)), headers=bearer("other"))
        assert ask(client) is None


def test_certificates_that_cannot_be_used_are_told_in_the_log(
    tmp_path: Path, certificates: Path, publish: Publish, serve: Serve, transport: str, until: Until
) -> None:
    publish(tmp_path / "models", "echo_fp32")
    chain = tmp_path / "server.pem"
    chain.write_bytes((certificates / "server.pem").read_bytes())
    given: tuple[str, ...] = ("--transport", transport, "--grpc-use-ssl", "--grpc-server-cert", str(chain))
    given += ("--grpc-server-key", f"{certificates}/server.key", "--log-format", "json")
    root = f"{certificates}/root.pem"
    with serve(tmp_path / "models", *given) as running:
        chain.write_text("no certificate")

        def is_told() -> bool:
            with triton.InferenceServerClient(running.address, ssl=True, root_certificates=root) as client:
                assert client.is_server_live()
            return "the changed certificates cannot be used" in running.log.read_text()

        until(is_told, "the file has been looked at again")
        for line in running.log.read_text().splitlines():
            json.loads(line)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(
            {"grpc_server_cert": "c", "grpc_server_key": "k"}, "need --grpc-use-ssl", id="not encrypted"
        ),
        pytest.param(
            {"grpc_use_ssl": True, "grpc_server_cert": "c", "grpc_server_key": "k", "grpc_root_cert": "r"},
            "--grpc-root-cert needs --grpc-use-ssl-mutual",
            id="not mutual",
        ),
    ],
)
def test_certificates_that_would_be_of_no_use_are_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Options(repository=(), **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param({"client_cert": "c", "client_key": "k"}, "needs --root-cert", id="not encrypted"),
        pytest.param({"root_cert": "r", "client_cert": "c"}, "must be given together", id="no key"),
    ],
)
def test_a_clients_certificate_is_never_left_out_in_silence(given: dict[str, Any], message: str) -> None:
    with pytest.raises(click.UsageError, match=message):
        Connection(**given).connect()


@pytest.mark.parametrize(
    ("key", "chain", "said"),
    [
        pytest.param(
            "client.key", "server.pem", "cannot be used for TLS: expected a chain", id="another's key"
        ),
        pytest.param("server.pem", "server.key", "as PEM and without a passphrase", id="exchanged"),
        pytest.param("names", "server.pem", "OpenSSL says", id="no key"),
        pytest.param("locked.key", "server.pem", "without a passphrase", id="passphrase"),
    ],
)
def test_certificates_that_cannot_be_used_are_told_at_the_start(
    key: str, chain: str, said: str, transport: str, tmp_path: Path, certificates: Path, publish: Publish
) -> None:
    publish(tmp_path, "echo_fp32")
    command = [KERVE, "serve", "--repository", str(tmp_path), "--grpc-port", "0", "--http-port", "0"]
    command += ["--transport", transport, "--grpc-use-ssl", "--grpc-server-key", f"{certificates}/{key}"]
    command += ["--grpc-server-cert", f"{certificates}/{chain}"]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 3
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_tls_with_and_without_client_certificates(
    transport: str, tmp_path: Path, certificates: Path, publish: Publish, serve: Serve
) -> None:
    publish(tmp_path, "echo_fp32")
    given: tuple[str, ...] = ("--transport", transport, "--grpc-server-cert", f"{certificates}/server.pem")
    given += ("--grpc-server-key", f"{certificates}/server.key", "--http-port", "-1")
    root = f"{certificates}/root.pem"
    key, chain = f"{certificates}/client.key", f"{certificates}/client.pem"
    with serve(tmp_path, *given, "--grpc-use-ssl") as running:
        with triton.InferenceServerClient(running.address, ssl=True, root_certificates=root) as client:
            assert infer(client, triton, {}).tolist() == [[1, 1]]
            assert client.is_server_ready()
        with triton_http.InferenceServerClient(running.http) as client:
            assert infer(client, triton_http, {}).tolist() == [[1, 1]]
    with serve(tmp_path, *given, "--grpc-use-ssl-mutual", "--grpc-root-cert", root) as running:
        with triton.InferenceServerClient(
            running.address, ssl=True, root_certificates=root, private_key=key, certificate_chain=chain
        ) as client:
            assert infer(client, triton, {}).tolist() == [[1, 1]]
        with (
            triton.InferenceServerClient(running.address, ssl=True, root_certificates=root) as client,
            pytest.raises(InferenceServerException),
        ):
            client.is_server_live(client_timeout=5)
        # HTTP is not encrypted: what needs a client certificate is not to be had there
        with triton_http.InferenceServerClient(running.http) as client:
            assert client.is_server_ready()
            with pytest.raises(InferenceServerException):
                infer(client, triton_http, {})

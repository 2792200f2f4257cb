"""Where a server listens, with which certificates, and how it ends."""

import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

import kerve_wire

Options = kerve_wire.ServerOptions


def ask(channel: grpc.Channel, oip: Any, rows: Any) -> None:
    np.testing.assert_array_equal(oip.answer(oip.stub(channel).ModelInfer(oip.request(rows(2)))), rows(2) * 2)


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "localhost:0", "[::]:0", "0.0.0.0:0"])
def test_every_kind_of_address_is_listened_on(serve: Any, oip: Any, rows: Any, address: str) -> None:
    with serve(address=address) as served, served.channel() as channel:
        ask(channel, oip, rows)


def test_a_port_for_every_network_takes_ipv4_too(serve: Any, oip: Any, rows: Any) -> None:
    with serve(address="[::]:0") as served:
        port = served.address.rpartition(":")[2]
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            ask(channel, oip, rows)


def test_a_unix_socket_is_listened_on_and_removed(serve: Any, oip: Any, rows: Any, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for _ in range(2):
        with serve(address=f"unix:{path}") as served, served.channel() as channel:
            ask(channel, oip, rows)
        assert not path.exists()


def test_tls_is_spoken_on_a_unix_socket(
    serve: Any, oip: Any, rows: Any, certificates: Path, tmp_path: Path
) -> None:
    given = kerve_wire.Credentials(certificates / "server.key", certificates / "server.pem")
    address = f"unix:{tmp_path / 'socket'}"
    trusted = grpc.ssl_channel_credentials((certificates / "ca.pem").read_bytes())
    name = [("grpc.ssl_target_name_override", "localhost")]
    with serve(address=address, credentials=given), grpc.secure_channel(address, trusted, name) as channel:
        for size in (1, 3000, 7, 20_000):
            array = np.arange(4 * size, dtype=np.float32).reshape(size, 4)
            found = oip.answer(oip.stub(channel).ModelInfer(oip.request(array), timeout=10))
            np.testing.assert_array_equal(found, array * 2)


def test_a_port_in_use_cannot_be_had(serve: Any) -> None:
    with serve() as served:
        server = kerve_wire.Server()
        with pytest.raises(RuntimeError, match="cannot listen on"):
            server.add_insecure_port(served.address)


def test_several_servers_may_share_a_port_when_told_so(serve: Any, oip: Any, rows: Any) -> None:
    options = Options(so_reuseport=True)
    with (
        serve(server_options=options) as first,
        serve(server_options=options, address=first.address) as second,
    ):
        assert second.address == first.address
        for _ in range(20):
            with first.channel() as channel:
                ask(channel, oip, rows)
        assert first.batches
        assert second.batches


def test_several_workers_share_the_connections(serve: Any, oip: Any, rows: Any) -> None:
    with serve(server_options=Options(workers=3)) as served:
        channels = [served.channel() for _ in range(6)]
        for channel in channels:
            ask(channel, oip, rows)
        assert served.server.statistics()["connections_now"] == 6
        for channel in channels:
            channel.close()


def openssl(folder: Path, *arguments: str) -> None:
    subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)


def issue(folder: Path, name: str, ca: str = "ca") -> None:
    """Make a key and a certificate for `localhost`, signed by a certificate authority."""
    openssl(folder, "req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr",
            "-subj", f"/CN={name}")  # fmt: skip
    (folder / "names").write_text(f"subjectAltName=DNS:localhost,DNS:{name}\n")
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{ca}.pem", "-CAkey", f"{ca}.key",
            "-CAcreateserial", "-out", f"{name}.pem", "-days", "2", "-extfile", "names")  # fmt: skip


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates")
    for ca in ("ca", "other"):
        openssl(folder, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{ca}.key", "-out",
                f"{ca}.pem", "-subj", f"/CN={ca}", "-days", "2")  # fmt: skip
    issue(folder, "server")
    issue(folder, "client")
    issue(folder, "stranger", "other")
    return folder


def secure(served: Any, folder: Path, client: str | None = None) -> grpc.Channel:
    read = [(folder / f"{client}{end}").read_bytes() if client else None for end in (".key", ".pem")]
    credentials = grpc.ssl_channel_credentials((folder / "ca.pem").read_bytes(), *read)
    port = served.address.rpartition(":")[2]
    return grpc.secure_channel(f"localhost:{port}", credentials, [("grpc.use_local_subchannel_pool", 1)])


@pytest.mark.parametrize("in_memory", [True, False])
def test_tls_is_spoken(serve: Any, oip: Any, rows: Any, certificates: Path, *, in_memory: bool) -> None:
    files = [certificates / "server.key", certificates / "server.pem"]
    material = [file.read_bytes() for file in files] if in_memory else files
    with serve(credentials=kerve_wire.Credentials(*material)) as served:
        with secure(served, certificates) as channel:
            ask(channel, oip, rows)
        with served.channel() as channel:
            code, _ = oip.refusal(lambda: oip.stub(channel).ModelInfer(oip.request(rows(1)), timeout=5))
    assert code is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_both_versions_of_tls_are_spoken(serve: Any, certificates: Path, version: str) -> None:
    given = kerve_wire.Credentials(certificates / "server.key", certificates / "server.pem")
    context = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    context.set_alpn_protocols(["h2"])
    with serve(credentials=given) as served:
        host, _, port = served.address.rpartition(":")
        with (
            socket.create_connection((host, int(port))) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as spoken,
        ):
            assert spoken.selected_alpn_protocol() == "h2"
            assert spoken.version() == version.replace("_", ".")


def test_clients_show_certificates_where_they_must(
    serve: Any, oip: Any, rows: Any, certificates: Path
) -> None:
    seen: list[Any] = []

    class Look(grpc.GenericRpcHandler):
        def service(self, _: grpc.HandlerCallDetails) -> Any:
            def look(_: bytes, context: Any) -> bytes:
                seen.append((dict(context.auth_context()), list(context.peer_identities())))
                return b""

            return grpc.unary_unary_rpc_method_handler(look)

    given = kerve_wire.Credentials(
        certificates / "server.key",
        certificates / "server.pem",
        root_certificates=certificates / "ca.pem",
        require_client_auth=True,
    )
    with serve(
        credentials=given, prepare=lambda server: server.add_generic_rpc_handlers((Look(),))
    ) as served:
        with secure(served, certificates, "client") as channel:
            ask(channel, oip, rows)
            look: Any = channel.unary_unary("/test/look")
            look(b"")
        for nobody in (None, "stranger"):
            with secure(served, certificates, nobody) as channel:
                code, _ = oip.refusal(lambda: oip.stub(channel).ModelInfer(oip.request(rows(1)), timeout=5))
                assert code is grpc.StatusCode.UNAVAILABLE
    ((context, identities),) = seen
    assert context["transport_security_type"] == [b"ssl"]
    assert context["x509_common_name"] == [b"client"]
    assert context["x509_pem_cert"][0].startswith(b"-----BEGIN CERTIFICATE-----")
    assert identities == [b"localhost", b"client"]


def test_certificates_are_read_again_when_they_change(
    serve: Any, oip: Any, rows: Any, certificates: Path, tmp_path: Path, until: Any
) -> None:
    key, chain = tmp_path / "key", tmp_path / "chain"
    key.write_bytes((certificates / "stranger.key").read_bytes())
    chain.write_bytes((certificates / "stranger.pem").read_bytes())
    with serve(credentials=kerve_wire.Credentials(key, chain)) as served:
        with secure(served, certificates) as channel:
            code, _ = oip.refusal(lambda: oip.stub(channel).ModelInfer(oip.request(rows(1)), timeout=5))
        assert code is grpc.StatusCode.UNAVAILABLE
        key.write_bytes((certificates / "server.key").read_bytes())
        chain.write_bytes((certificates / "server.pem").read_bytes())

        def trusted() -> bool:
            with secure(served, certificates) as channel:
                call = oip.stub(channel).ModelInfer.future(oip.request(rows(1)), timeout=5)
                return call.code() is grpc.StatusCode.OK

        until(trusted, "the new certificate is shown")


def test_certificates_that_take_long_to_read_keep_nobody_else_waiting(
    serve: Any, oip: Any, rows: Any, certificates: Path, tmp_path: Path, until: Any
) -> None:
    key, chain = tmp_path / "key", tmp_path / "chain"
    key.write_bytes((certificates / "server.key").read_bytes())
    chain.write_bytes((certificates / "server.pem").read_bytes())
    options = Options(workers=1)
    with (
        serve(credentials=kerve_wire.Credentials(key, chain), server_options=options) as served,
        secure(served, certificates) as channel,
    ):
        ask(channel, oip, rows)
        chain.unlink()
        os.mkfifo(chain)  # whoever opens it waits for somebody who writes
        time.sleep(1.1)
        with secure(served, certificates) as waits:
            call = oip.stub(waits).ModelInfer.future(oip.request(rows(1)), timeout=60)
            until(lambda: served.server.statistics()["connections_now"] == 2, "the file is being read")
            code = oip.stub(channel).ModelInfer.future(oip.request(rows(1)), timeout=10).code()
            chain.write_bytes((certificates / "server.pem").read_bytes())
            assert call.code() is code is grpc.StatusCode.OK


DROPPED = """
import subprocess, sys, time
from pathlib import Path
from kerve_wire import _native, ServerOptions
key, chain = map(Path, sys.argv[1:])
server = _native.Server(ServerOptions(workers=1).fields())
port = server.listen("127.0.0.1:0", (key, chain, None, False))
server.start()
chain.write_text("no certificate")
time.sleep(1.1)
code = f"import socket, time; time.sleep(1); socket.create_connection(('127.0.0.1', {port})); time.sleep(3)"
client = subprocess.Popen([sys.executable, "-c", code])
sys.setswitchinterval(1000)  # the worker is to have something to say while this thread has Python
end = time.monotonic() + 3
while time.monotonic() < end:
    pass
del server
client.wait()
print("over")
"""


def test_a_server_that_nobody_stopped_ends_when_it_is_dropped(certificates: Path, tmp_path: Path) -> None:
    key, chain = tmp_path / "key", tmp_path / "chain"
    key.write_bytes((certificates / "server.key").read_bytes())
    chain.write_bytes((certificates / "server.pem").read_bytes())
    command = [sys.executable, "-c", DROPPED, str(key), str(chain)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "over\n"
    assert "the changed certificates cannot be used" in done.stderr


@pytest.mark.parametrize(
    ("key", "chain", "told"),
    [
        pytest.param("ca.pem", "server.pem", "private key cannot be used", id="no key"),
        pytest.param("server.key", "server.key", "no certificate in it", id="no certificate"),
        pytest.param("client.key", "server.pem", "pair of private key and certificate", id="not a pair"),
        pytest.param("nothing", "server.pem", "nothing", id="no file"),
    ],
)
def test_credentials_that_cannot_be_used_are_told(
    certificates: Path, key: str, chain: str, told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        kerve_wire.Server().add_secure_port(
            "127.0.0.1:0", kerve_wire.Credentials(certificates / key, certificates / chain)
        )


def test_a_stop_finishes_what_is_in_flight_and_refuses_the_rest(
    serve: Any, oip: Any, rows: Any, until: Any
) -> None:
    with serve(go=False) as served, served.channel() as channel:
        call = oip.stub(channel).ModelInfer.future(oip.request(rows(1)))
        until(lambda: served.queue.depth > 0, "the request waits")
        stopped = served.server.stop(20)
        assert not stopped.wait(0.1)
        code, _ = oip.refusal(lambda: oip.stub(channel).ModelInfer(oip.request(rows(1)), timeout=5))
        served.go.set()
        np.testing.assert_array_equal(oip.answer(call.result(10)), rows(1) * 2)
        assert stopped.wait(10)
        assert not served.server.wait_for_termination(1)
    assert code is grpc.StatusCode.UNAVAILABLE


def test_a_stop_without_grace_ends_every_call(serve: Any, oip: Any, rows: Any, until: Any) -> None:
    release = threading.Event()
    with serve(lambda _: release.wait(20) and None) as served, served.channel() as channel:
        call = oip.stub(channel).ModelInfer.future(oip.request(rows(1)))
        until(lambda: bool(served.batches), "the request is computed")
        assert served.server.stop(None).wait(10)
        code, _ = oip.refusal(lambda: call.result(10))
        release.set()
    assert code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


def test_old_connections_are_replaced_without_a_failed_call(serve: Any, oip: Any, rows: Any) -> None:
    options = Options(max_connection_age=0.2, max_connection_age_grace=5)
    with serve(server_options=options) as served, served.channel() as channel:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            ask(channel, oip, rows)
        assert served.server.statistics()["connections"] >= 3


def test_idle_connections_are_closed(serve: Any, oip: Any, rows: Any, until: Any) -> None:
    with serve(server_options=Options(max_connection_idle=0.2)) as served, served.channel() as channel:
        ask(channel, oip, rows)
        until(lambda: not served.server.statistics()["connections_now"], "no connection is left")
        ask(channel, oip, rows)


def test_clients_that_do_not_answer_pings_are_dropped(serve: Any, oip: Any, rows: Any, until: Any) -> None:
    options = Options(keepalive_time=0.1, keepalive_timeout=0.2)
    with serve(server_options=options) as served, served.channel() as channel:
        ask(channel, oip, rows)
        host, _, port = served.address.rpartition(":")
        with socket.create_connection((host, int(port))) as silent:
            silent.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
            silent.settimeout(10)
            while silent.recv(4096):
                pass
        until(lambda: served.server.statistics()["connections_now"] == 1, "one connection is left")
        ask(channel, oip, rows)


def test_a_connection_has_no_more_streams_than_allowed(serve: Any, oip: Any, rows: Any, until: Any) -> None:
    options = Options(max_concurrent_streams=3)
    with serve(server_options=options, go=False) as served, served.channel() as channel:
        calls = [oip.stub(channel).ModelInfer.future(oip.request(rows(1))) for _ in range(10)]
        until(lambda: served.queue.depth >= 3, "three wait")
        time.sleep(0.1)  # what would come in spite of the limit would have come
        assert served.queue.depth == 3
        served.go.set()
        for call in calls:
            call.result(20)


def test_requests_that_are_not_complete_are_bounded_together(serve: Any, oip: Any, rows: Any) -> None:
    options = Options(max_buffered_bytes=100_000)
    with serve(server_options=options) as served, served.channel() as channel:
        code, _ = oip.refusal(lambda: oip.stub(channel).ModelInfer(oip.request(rows(10_000))))
        ask(channel, oip, rows)
        assert served.server.statistics()["bytes_buffered_now"] == 0
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_requests_that_wait_are_bounded_over_all_models(serve: Any, oip: Any, rows: Any, until: Any) -> None:
    """Each queue has room for them, but the server has not."""

    def attach_another(server: Any) -> None:
        spec = [kerve_wire.TensorSpec("x", "FP32", ("batch", 4))]
        server.publish("n", {"": server.attach("n", 1, spec, spec, batched=True)})

    options = Options(max_buffered_bytes=1_000_000)
    with (
        serve(server_options=options, prepare=attach_another, go=False) as served,
        served.channel() as channel,
    ):
        stub, large = oip.stub(channel), rows(20_000)
        waiting = [stub.ModelInfer.future(oip.request(large, model_name=name)) for name in ("m", "n", "m")]
        until(lambda: served.server.statistics()["bytes_buffered_now"] > 960_000, "three wait")
        code, told = oip.refusal(lambda: stub.ModelInfer(oip.request(large, model_name="n")))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "more than 1000000 bytes of requests that are not answered" in told
        served.go.set()
        waiting[0].result(20)
        waiting[1].cancel()
        waiting[2].result(20)
        until(lambda: served.server.statistics()["bytes_buffered_now"] == 0, "nothing is held")
        ask(channel, oip, rows)


def test_messages_larger_than_allowed_are_refused(serve: Any, oip: Any, rows: Any) -> None:
    options = Options(max_receive_message_length=1000)
    with serve(server_options=options) as served, served.channel() as channel:
        ask(channel, oip, rows)
        found = oip.refusal(lambda: oip.stub(channel).ModelInfer(oip.request(rows(100))))
        compressed = oip.refusal(
            lambda: oip.stub(channel).ModelInfer(
                oip.request(rows(10_000) * 0), compression=grpc.Compression.Gzip
            )
        )
    assert found[0] is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max" in found[1]
    assert compressed[0] is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_answers_are_compressed_when_the_server_is_told_so(serve: Any, oip: Any, rows: Any) -> None:
    with serve(server_options=Options(compression="gzip")) as served, served.channel() as channel:
        zeros = rows(10_000) * 0
        found = oip.answer(oip.stub(channel).ModelInfer(oip.request(zeros)))
        np.testing.assert_array_equal(found, zeros)
        assert served.server.statistics()["bytes_sent"] < 10_000
        assert [
            len(each.infer_response.raw_output_contents[0])
            for each in oip.stub(channel).ModelStreamInfer(iter([oip.request(zeros)]))
        ] == [160_000]

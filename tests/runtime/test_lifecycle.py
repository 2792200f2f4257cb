"""Versions come and go while the server runs: policies, labels, polling, loading on request, and what is
broken.
"""

import functools
import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from kerve.runtime import Client
from kerve.runtime.errors import UnavailableError

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]
Until = Callable[[Callable[[], bool], str], None]

POLL = ("--model-control-mode", "poll", "--repository-poll-secs", "0.1")
EXPLICIT = ("--model-control-mode", "explicit")


@pytest.fixture
def transport(transport: str) -> tuple[str, str]:
    return ("--transport", transport)


@pytest.fixture
def explicit(tmp_path: Path, serve: Serve, transport: tuple[str, str]) -> Iterator[Any]:
    """A server that loads on request, on an empty repository, and Triton's client."""
    (tmp_path / "models").mkdir()
    with (
        serve(tmp_path / "models", *EXPLICIT, *transport) as running,
        triton.InferenceServerClient(running.address) as client,
    ):
        client.repository = tmp_path / "models"
        client.log = running.log
        yield client


def states(client: Any) -> dict[tuple[str, str], tuple[str, str]]:
    index = client.get_model_repository_index()
    return {(each.name, each.version): (each.state, each.reason) for each in index.models}


def number(client: Any, name: str, version: str = "") -> str:
    """Which version answers: its number in the reply."""
    tensor = triton.InferInput("x", [1, 2], "FP32")
    tensor.set_data_from_numpy(np.ones((1, 2), np.float32))
    return str(client.infer(name, [tensor], model_version=version).get_response().model_version)


def broken(folder: Path) -> Path:
    (folder / "model.onnx").write_bytes(b"nope")
    return folder


def test_polling_follows_new_broken_changed_and_removed_versions(
    tmp_path: Path, publish: Publish, serve: Serve, transport: tuple[str, str], until: Until
) -> None:
    publish(tmp_path, "echo_fp32", name="m", version=1)
    with (
        serve(tmp_path, *POLL, *transport) as running,
        triton.InferenceServerClient(running.address) as client,
    ):
        assert number(client, "m") == "1"
        # a broken version never replaces a good one, and the index says why it is not there
        broken(publish(tmp_path, "echo_fp32", name="m", version=3))
        until(lambda: states(client).get(("m", "3"), ("", ""))[0] == "UNAVAILABLE", "3 is known as broken")
        assert "is not an ONNX model" in states(client)["m", "3"][1]
        assert number(client, "m") == "1"
        # nor does it stop the poller: a good one is found after it
        publish(tmp_path, "echo_fp32", name="m", version=2)
        until(lambda: number(client, "m") == "2", "2 serves")
        until(lambda: states(client)["m", "1"][0] == "UNAVAILABLE", "1 is unloaded")
        # repaired, it is loaded
        good = (tmp_path / "m" / "2" / "model.onnx").read_bytes()
        (tmp_path / "m" / "3" / "model.onnx").write_bytes(good)
        until(lambda: number(client, "m") == "3", "3 serves")
        # a new model; one that is removed is not found
        publish(tmp_path, "pair")
        until(lambda: client.is_model_ready("pair"), "pair serves")
        for file in [*(tmp_path / "pair" / "1").iterdir()]:
            file.unlink()
        (tmp_path / "pair" / "1").rmdir()
        (tmp_path / "pair").rmdir()
        until(lambda: not any(name == "pair" for name, _ in states(client)), "pair is gone")
        with pytest.raises(InferenceServerException, match="'pair' is not found"):
            client.get_model_metadata("pair")


def test_a_version_that_is_changed_in_place_is_swapped_between_two_batches(
    tmp_path: Path, publish: Publish, serve: Serve, transport: tuple[str, str], until: Until
) -> None:
    file = publish(tmp_path, "echo_fp32", name="m") / "model.onnx"
    failures: list[Exception] = []
    stop = threading.Event()

    def ask() -> None:
        with Client(running.address) as own:
            while not stop.is_set():
                try:
                    own.infer("m", np.ones((1, 2), np.float32))
                except Exception as error:  # noqa: BLE001  whatever it is, the test tells it
                    failures.append(error)
                    return

    def swapped(loads: int) -> bool:
        return bool(running.log.read_text().count("is ready after") > loads)

    with serve(tmp_path, *POLL, *transport) as running, Client(running.address) as client:
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for _ in range(5):
            loads = running.log.read_text().count("is ready after")
            temporary = file.with_name(".new")
            temporary.write_bytes(file.read_bytes())
            temporary.rename(file)
            until(functools.partial(swapped, loads), "the new one serves")
        assert client.ready("m")
        stop.set()
        for thread in threads:
            thread.join()
    assert not failures


def test_policies_and_labels_choose_what_serves(
    tmp_path: Path, publish: Publish, serve: Serve, transport: tuple[str, str]
) -> None:
    for name in ("all", "two", "some"):
        for version in (1, 2, 10):
            publish(tmp_path, "echo_fp32", name=name, version=version)
    (tmp_path / "all" / "config.pbtxt").write_text("version_policy { all {} }")
    (tmp_path / "two" / "config.toml").write_text(
        "labels = { stable = 2, canary = 10, gone = 1, absent = 7 }\n"
        "[version_policy.latest]\nnum_versions = 2"
    )
    (tmp_path / "some" / "config.toml").write_text("[version_policy.specific]\nversions = [1, 7]")
    with (
        serve(tmp_path, *transport) as running,
        triton.InferenceServerClient(running.address) as client,
    ):
        assert "all (versions 1, 2, 10)" in running.ready_line
        found = {
            (name, version) for (name, version), (state, _) in states(client).items() if state == "READY"
        }
        assert found == {
            *(("all", each) for each in ("1", "2", "10")),
            ("two", "2"),
            ("two", "10"),
            ("some", "1"),
        }
        assert states(client)["some", "7"] == (
            "UNAVAILABLE",
            "version 7 is requested by the version policy, but has no folder",
        )
        assert number(client, "two") == "10"
        assert number(client, "two", "stable") == "2"
        assert number(client, "two", "canary") == "10"
        for label, version in (("gone", 1), ("absent", 7)):
            with pytest.raises(InferenceServerException, match=f"label of version {version},") as caught:
                number(client, "two", label)
            assert caught.value.status() == "StatusCode.UNAVAILABLE"
        log = running.log.read_text()
        assert "label 'gone': expected a version that serves (2, 10), got 1, which does not serve" in log
        assert "label 'absent': expected a version that serves (2, 10), got 7, which has no folder" in log


def test_a_promoted_label_stays_until_the_configuration_changes_it(
    tmp_path: Path, publish: Publish, serve: Serve, transport: tuple[str, str], until: Until
) -> None:
    for version in (1, 2):
        publish(tmp_path, "echo_fp32", name="m", version=version)
    settings = tmp_path / "m" / "config.toml"
    settings.write_text("[version_policy.all]")
    polling = ("--model-control-mode", "poll", "--repository-poll-secs", "0.1")
    with serve(tmp_path, *transport, *polling) as running:
        with Client(running.address) as client, triton.InferenceServerClient(running.address) as other:
            client.promote("m", 1, "stable")
            client.promote("m", "stable", "canary")
            publish(tmp_path, "echo_fp32", name="m", version=3)
            until(lambda: number(other, "m") == "3", "the new one serves")
            assert number(other, "m", "stable") == "1"
        assert running.stop() == 0
    with (
        serve(tmp_path, *transport, *polling) as running,
        triton.InferenceServerClient(running.address) as other,
    ):
        assert [number(other, "m", label) for label in ("stable", "canary")] == ["1", "1"]
        settings.write_text("labels = { stable = 2 }\n[version_policy.all]")
        until(lambda: number(other, "m", "stable") == "2", "the configuration says otherwise")
        assert number(other, "m", "canary") == "1"


def test_models_are_loaded_and_unloaded_on_request(explicit: Any, publish: Publish, until: Until) -> None:
    publish(explicit.repository, "echo_fp32", name="m", version=1)
    assert states(explicit)["m", ""] == ("UNAVAILABLE", "not loaded")
    explicit.load_model("m")
    assert number(explicit, "m") == "1"
    publish(explicit.repository, "echo_fp32", name="m", version=2)
    explicit.load_model("m")
    assert number(explicit, "m") == "2"
    broken(publish(explicit.repository, "echo_fp32", name="m", version=3))
    with pytest.raises(InferenceServerException, match="is not an ONNX model"):
        explicit.load_model("m")
    assert number(explicit, "m") == "2"
    explicit.unload_model("m")
    assert not explicit.is_model_ready("m")
    until(lambda: states(explicit)["m", "2"] == ("UNAVAILABLE", "unloaded"), "2 is unloaded")
    with pytest.raises(InferenceServerException, match="failed to load 'foo', failed to poll") as caught:
        explicit.load_model("foo")
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException, match="'foo' is not loaded here, and is in no repository"):
        explicit.unload_model("foo")


def test_unloading_what_does_not_serve_changes_nothing(explicit: Any, publish: Publish) -> None:
    publish(explicit.repository, "echo_fp32", name="idle", version=1)
    explicit.unload_model("idle")
    explicit.load_model("idle")
    for _ in range(2):
        explicit.unload_model("idle")
    assert not explicit.is_model_ready("idle")


def test_a_sent_configuration_counts_until_the_folder_changes(explicit: Any, publish: Publish) -> None:
    for version in (1, 2):
        publish(explicit.repository, "echo_fp32", name="m2", version=version)
    sent = json.dumps({"version_policy": {"specific": {"versions": [1]}}})
    explicit.load_model("m2", config=sent)
    explicit.load_model("m2")
    assert number(explicit, "m2") == "1"
    (explicit.repository / "m2" / "config.toml").write_text("max_batch_size = 7")
    explicit.load_model("m2")
    assert number(explicit, "m2") == "2"
    assert explicit.get_model_config("m2").config.max_batch_size == 7
    explicit.load_model("m2", config=sent)
    explicit.unload_model("m2")
    explicit.load_model("m2")
    assert number(explicit, "m2") == "2"


def test_a_version_without_a_folder_does_not_make_the_load_of_others_fail(
    explicit: Any, publish: Publish
) -> None:
    publish(explicit.repository, "echo_fp32", name="some", version=1)
    settings = explicit.repository / "some" / "config.toml"
    settings.write_text("[version_policy.specific]\nversions = [1, 7]")
    explicit.load_model("some")
    assert number(explicit, "some") == "1"
    assert states(explicit)["some", "7"] == (
        "UNAVAILABLE",
        "version 7 is requested by the version policy, but has no folder",
    )
    settings.write_text("[version_policy.specific]\nversions = [7]")
    with pytest.raises(
        InferenceServerException, match="version 7 is requested by the version policy, but has no folder"
    ):
        explicit.load_model("some")


def test_a_client_loads_a_model_with_its_own_configuration_and_files(explicit: Any, models: Path) -> None:
    contents = (models / "echo_fp32.onnx").read_bytes()
    config = {"max_batch_size": 7, "version_policy": {"specific": {"versions": [3]}}}
    explicit.load_model("sent", config=json.dumps(config), files={"file:3/model.onnx": contents})
    assert number(explicit, "sent") == "3"
    assert explicit.get_model_config("sent").config.max_batch_size == 7
    with pytest.raises(InferenceServerException, match="failed to load 'sent': parameter 'config'"):
        explicit.load_model("sent", config="[]", files={"file:3/model.onnx": contents})
    for bad in ("file:3/../../../x", "file:model.onnx", "file:/3/model.onnx"):
        with pytest.raises(InferenceServerException, match="expected file:<version>/<path>"):
            explicit.load_model("sent", config="{}", files={bad: contents})
    with pytest.raises(InferenceServerException, match="with a number as the version"):
        explicit.load_model("sent", config="{}", files={"file:x/model.onnx": contents})
    assert number(explicit, "sent") == "3"  # it serves as it did
    for long in ("file:3/" + 300 * "x", "file:3/model.onnx/y"):
        files = {"file:3/model.onnx": contents, long: contents}
        with pytest.raises(InferenceServerException, match="cannot be written"):
            explicit.load_model("sent", config="{}", files=files)
    for name in ("../sent", "/sent", "sent/../../x", "."):
        with pytest.raises(InferenceServerException, match="expected a model's name of letters"):
            explicit.load_model(name, config="{}", files={"file:3/model.onnx": contents})
        with pytest.raises(InferenceServerException, match="failed to poll from model repository"):
            explicit.load_model(name)
    for wrong in ('{"max_batch": 7}', "[]"):
        with pytest.raises(InferenceServerException, match="expected a ModelConfig as JSON"):
            explicit.load_model("sent", config=wrong, files={"file:3/model.onnx": contents})
    with pytest.raises(InferenceServerException, match="need parameter 'config'"):
        explicit.load_model("sent", files={"file:3/model.onnx": contents})
    with pytest.raises(InferenceServerException, match="unrecognized load parameter 'policy'"):
        explicit.load_model("sent", config="{}", files={"policy": contents})
    assert number(explicit, "sent") == "3"
    explicit.unload_model("sent")


def test_kserves_dialect_loads_and_unloads_too(explicit: Any, publish: Publish) -> None:
    publish(explicit.repository, "pair")
    # message RepositoryModelLoadRequest { string model_name = 1; }, reply { model_name = 1; bool isLoaded =
    # 2; }
    request = b"\x0a\x04pair"
    with grpc.insecure_channel(explicit._channel._channel.target().decode()) as channel:
        service = "/inference.GRPCInferenceService"
        load: Any = channel.unary_unary(f"{service}/RepositoryModelLoad")
        assert load(request) == b"\x0a\x04pair\x10\x01"
        assert explicit.is_model_ready("pair")
        unload: Any = channel.unary_unary(f"{service}/RepositoryModelUnload")
        assert unload(request) == b"\x0a\x04pair\x10\x01"
    assert not explicit.is_model_ready("pair")


def test_without_explicit_control_nothing_is_loaded_on_request(server: Any) -> None:
    with (
        triton.InferenceServerClient(server.address) as client,
        pytest.raises(InferenceServerException, match="--model-control-mode explicit") as caught,
    ):
        client.load_model("pair")
    assert caught.value.status() == "StatusCode.FAILED_PRECONDITION"


def test_sighup_looks_at_the_repository_again(
    tmp_path: Path, publish: Publish, serve: Serve, until: Until
) -> None:
    publish(tmp_path, "echo_fp32", name="m", version=1)
    with serve(tmp_path) as running, triton.InferenceServerClient(running.address) as client:
        publish(tmp_path, "echo_fp32", name="m", version=2)
        running.process.send_signal(signal.SIGHUP)
        until(lambda: number(client, "m") == "2", "2 serves")


INTERRUPTED = """
import signal
from kerve.runtime.lifecycle.poller import Poller

poller = Poller(lambda: None, None)
poller.start()
signal.signal(signal.SIGALRM, lambda *_: poller.wake(int))
for number in range(20_000):  # one signal for each, at another moment of it
    signal.setitimer(signal.ITIMER_REAL, 1e-6 * (1 + number % 30))
    poller.wake(int)
signal.setitimer(signal.ITIMER_REAL, 0)
poller.stop()
poller.join()
"""


def test_a_signal_may_come_while_another_is_heeded() -> None:
    subprocess.run([sys.executable, "-c", INTERRUPTED], timeout=60, check=True)


def test_looking_again_and_loading_on_request_get_along(
    tmp_path: Path, publish: Publish, serve: Serve, transport: tuple[str, str], until: Until
) -> None:
    """Clients load and unload while the repository is looked at again and again, and versions come."""
    publish(tmp_path, "echo_fp32", name="m", version=1)
    publish(tmp_path, "echo_fp32", name="calm", version=1)
    failures: list[BaseException] = []

    def turn(address: str) -> None:
        try:
            with triton.InferenceServerClient(address) as client:
                for _ in range(10):
                    client.load_model("m")
                    client.unload_model("m")
        except BaseException as error:  # noqa: BLE001  told to the test's own thread
            failures.append(error)

    options = (*EXPLICIT, "--load-model", "calm", *transport)
    with serve(tmp_path, *options) as running, triton.InferenceServerClient(running.address) as client:
        threads = [threading.Thread(target=turn, args=(running.address,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        version = 1
        while any(thread.is_alive() for thread in threads):
            running.process.send_signal(signal.SIGHUP)
            assert number(client, "calm") in {str(each) for each in range(1, version + 1)}
            if version < 5:
                version += 1
                publish(tmp_path, "echo_fp32", name="calm", version=version)
        assert not failures
        client.load_model("m")
        assert number(client, "m") == "1"
        running.process.send_signal(signal.SIGHUP)
        until(lambda: number(client, "calm") == str(version), "the newest version serves")
        assert [key for key, (state, _) in states(client).items() if state == "READY"] == [
            ("calm", str(version)),
            ("m", "1"),
        ]


def test_a_link_out_of_the_models_folder_is_not_followed(
    tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    (tmp_path / "secret").write_text("secret\n")
    repository = tmp_path / "models"
    for name in ("labels", "warm"):
        publish(repository, "classifier", name=name)
    (repository / "labels" / "labels.txt").symlink_to(tmp_path / "secret")
    (repository / "labels" / "config.pbtxt").write_text(
        "max_batch_size: 2 input { name: 'features' dims: 4 } "
        "output { name: 'logits' dims: 3 label_filename: 'labels.txt' }"
    )
    (repository / "warm" / "warmup").mkdir()
    (repository / "warm" / "warmup" / "x").symlink_to(tmp_path / "secret")
    (repository / "warm" / "config.pbtxt").write_text(
        "model_warmup { batch_size: 1 inputs { key: 'features' "
        "value { data_type: TYPE_FP32 dims: 4 input_data_file: 'x' } } }"
    )
    publish(repository, "echo_fp32")
    with serve(repository) as running, triton.InferenceServerClient(running.address) as client:
        for name in ("labels", "warm"):
            assert "outside" in states(client)[name, "1"][1]


def test_files_that_cannot_be_read_are_told_without_a_traceback(
    tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    publish(tmp_path, "echo_fp32")
    (publish(tmp_path, "classifier", name="odd") / "manifest.json").mkdir()
    with serve(tmp_path) as running, triton.InferenceServerClient(running.address) as client:
        assert re.search(r"odd/1 cannot be loaded: .*manifest\.json", states(client)["odd", "1"][1])
        assert "Traceback" not in running.log.read_text()


def test_several_repositories_are_one_and_a_model_in_two_of_them_is_refused(
    tmp_path: Path, publish: Publish, serve: Serve
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    publish(first, "echo_fp32", name="a")
    publish(second, "echo_fp32", name="b")
    for repository in (first, second):
        publish(repository, "echo_fp32", name="both")
    with (
        serve(first, "--repository", str(second)) as running,
        triton.InferenceServerClient(running.address) as client,
    ):
        assert client.is_model_ready("a")
        assert client.is_model_ready("b")
        assert "is in two repositories" in states(client)["both", ""][1]
        with Client(running.address) as ours, pytest.raises(UnavailableError, match="'both' has no"):
            ours.infer("both", np.ones((1, 2), np.float32))


def test_strict_readiness_waits_for_every_model(
    tmp_path: Path, publish: Publish, serve: Serve, until: Until
) -> None:
    publish(tmp_path, "pair")
    bad = broken(publish(tmp_path, "scalar", name="bad"))
    with (
        serve(tmp_path, *POLL, "--strict-readiness") as running,
        triton.InferenceServerClient(running.address) as client,
    ):
        assert client.is_model_ready("pair")
        assert not client.is_server_ready()
        (bad / "model.onnx").write_bytes((tmp_path / "pair" / "1" / "model.onnx").read_bytes())
        until(client.is_server_ready, "the server is ready")

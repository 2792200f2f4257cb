"""A served model is evaluated over gRPC, on each transport; the numbers are Keras's."""

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kerve.evaluation.v1 import evaluation_pb2 as pb
from kerve.runtime import Client, InvalidArgumentError, NotFoundError, rpc
from kerve.runtime.cpus import cpu_name
from kerve.runtime.protocol.evaluation import SERVICE, encode_batch

HERE = Path(__file__).parent
KERAS = json.loads((HERE / "keras.json").read_text())
with np.load(HERE / "rows.npz") as arrays:
    ROWS = dict(arrays)
TRANSPORTS = ["grpcio", *(["wire"] if find_spec("kerve_wire") else [])]
KERVE = str(Path(sys.executable).with_name("kerve"))
X, CLASSES, NUMBERS, WEIGHTS = (ROWS[name] for name in ("x", "classes", "numbers", "weights"))


@pytest.fixture(scope="module", params=TRANSPORTS)
def client(
    request: Any,
    serve: Callable[..., AbstractContextManager[Any]],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Client]:
    repository = shutil.copytree(HERE / "models", tmp_path_factory.mktemp("served") / "models")
    for model in ("classifier", "summed"):
        (repository / model / "config.pbtxt").write_text("version_policy: { all {} }")
    with serve(repository, "--transport", request.param) as running, Client(running.address) as client:
        yield client


def kerve(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([KERVE, *arguments], capture_output=True, text=True, timeout=120, check=False)


def equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("kind", ["plain", "weighted"])
def test_the_numbers_are_those_of_keras(client: Client, kind: str) -> None:
    weights = WEIGHTS if kind == "weighted" else None
    result = client.evaluate("classifier", X, CLASSES, weights)
    assert (result.model, result.version, result.rows, result.final) == ("classifier", "2", 300, True)
    assert result.seconds > 0
    assert result.latency["p50"] > 0
    equal(result.results, KERAS[f"classifier/2/{kind}"])


def batches_of(size: int) -> Iterator[Any]:
    for begin in range(0, 300, size):
        yield X[begin : begin + size], NUMBERS[begin : begin + size], WEIGHTS[begin : begin + size]


@pytest.mark.parametrize("size", [1, 7, 300])
def test_with_a_batch_size_the_grouping_of_the_rows_does_not_matter(client: Client, size: int) -> None:
    found = client.evaluate("summed", batches_of(size), batch_size=32).results
    equal(found, KERAS["summed/2/weighted"])


@pytest.mark.parametrize("size", [7, 32, 50])
def test_the_batches_of_a_generator_are_the_steps_as_in_keras(client: Client, size: int) -> None:
    found = client.evaluate("summed", batches_of(size)).results
    equal(found, client.evaluate("summed", X, NUMBERS, WEIGHTS, batch_size=size).results)
    assert (found["loss"] == pytest.approx(KERAS["summed/2/weighted"]["loss"])) == (size == 32)


def test_labels_come_in_every_form_that_keras_takes(client: Client) -> None:
    kinds = (np.uint8, np.float64, np.dtype(">i8"))  # the last in another order of bytes
    for labels in (CLASSES[:, None], {"y": CLASSES}, *(CLASSES.astype(kind) for kind in kinds)):
        result = client.evaluate("classifier", {"x": X}, labels)
        equal(result.results, KERAS["classifier/2/plain"])


def test_metrics_are_chosen_by_name(client: Client) -> None:
    result = client.evaluate("classifier", X, CLASSES, metrics=["accuracy"])
    assert list(result.results) == ["accuracy"]
    with pytest.raises(InvalidArgumentError, match=r"metric 'f1' does not exist .* it has: loss, accuracy"):
        client.evaluate("classifier", X, CLASSES, metrics=["f1"])


def test_running_results_come_at_the_interval(client: Client) -> None:
    seen: list[int] = []
    client.evaluate("classifier", X, CLASSES, interval=1e-9, progress=lambda so_far: seen.append(so_far.rows))
    assert seen == [256, 300, 300]


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (
            np.where(np.arange(300) == 270, 3, CLASSES),
            r"row 270: labels 'y': expected a class from 0 to 2, got 3",
        ),
        (
            np.where(np.arange(300) == 7, np.nan, CLASSES),
            r"row 7: labels 'y': expected finite numbers, got nan",
        ),
        (np.where(np.arange(300) == 9, 0.5, CLASSES), r"row 9: labels 'y': expected whole numbers, got 0.5"),
        (np.zeros((300, 4)), r"labels 'y': expected shape \[batch\], got \[256, 4\]"),
        (CLASSES[:299], r"tensor 'y' has 299 rows where input 'x' has 300"),
        ({"z": CLASSES}, r"unexpected tensor 'z'; expected the inputs x, the labels y \(or y\)"),
        (None, r"the labels of output 'y' are missing"),
    ],
)
def test_labels_that_do_not_fit_are_named_by_row_and_tensor(client: Client, labels: Any, text: str) -> None:
    with pytest.raises(InvalidArgumentError, match=text):
        client.evaluate("classifier", X, labels)


def test_what_is_not_served_is_not_found(client: Client) -> None:
    with pytest.raises(NotFoundError, match="Request for unknown model: 'nobody' is not found"):
        client.evaluate("nobody", X, CLASSES)
    with pytest.raises(NotFoundError, match="version 9 is not found"):
        client.evaluate("classifier", X, CLASSES, version="9")


def test_a_generator_that_fails_ends_the_evaluation_with_its_error(client: Client) -> None:
    def batches() -> Iterator[Any]:
        yield X, CLASSES
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        client.evaluate("classifier", batches())


def test_an_evaluation_that_its_caller_left_is_over(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, streams = client._channel.evaluation, []
    call = calls["Evaluate"]

    def watched(*args: Any, **given: Any) -> Any:
        streams.append(call(*args, **given))
        return streams[-1]

    monkeypatch.setitem(calls, "Evaluate", watched)

    def leave(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as left:  # which is kept, as a notebook does
        client.evaluate("classifier", itertools.repeat((X, CLASSES)), interval=1e-9, progress=leave)
    assert not streams[0].is_active()
    assert left.value.__traceback__ is not None


def test_a_stream_without_rows_gives_no_result(client: Client) -> None:
    with pytest.raises(InvalidArgumentError, match="the stream ended without a row"):
        client.evaluate("classifier", iter(()))


def test_messages_that_are_not_in_order_are_refused(client: Client) -> None:
    def begins(**begin: Any) -> pb.EvaluateRequest:
        return pb.EvaluateRequest(begin=pb.Begin(model="classifier", **begin))

    with grpc.insecure_channel(client.address) as channel:
        call = rpc.calls(channel, SERVICE)["Evaluate"]
        batch = pb.EvaluateRequest(batch=encode_batch({"x": ("FP32", X)}))
        backwards = pb.EvaluateRequest(batch=pb.Batch(tensors=[pb.Tensor(name="x", datatype="FP32")]))
        backwards.batch.tensors[0].shape.extend([-300, -4])
        for messages, text in (
            ([batch], "expected `begin`"),
            ([begins(), begins()], "expected `batch`"),
            ([begins(), backwards], "expected sizes of 0 or more, got [-300, -4]"),
            ([begins(interval=float("nan"))], "expected seconds, 0 or more, got nan"),
            ([begins(versions=["1", "1"])], "expected different versions"),
        ):
            with pytest.raises(grpc.RpcError) as caught:
                list(call(iter(messages)))
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert text in str(caught.value.details())


def stream(**begin: Any) -> Iterator[pb.EvaluateRequest]:
    yield pb.EvaluateRequest(begin=pb.Begin(**begin))
    for part in (slice(0, 200), slice(200, 300)):
        batch = encode_batch({"x": ("FP32", X[part]), "y": ("INT64", CLASSES[part])})
        yield pb.EvaluateRequest(batch=batch)


def test_versions_are_compared_on_one_stream(client: Client) -> None:
    with grpc.insecure_channel(client.address) as channel:
        call = rpc.calls(channel, SERVICE)["Compare"]
        (answer,) = call(stream(model="classifier", versions=["", "2"]))
        assert [each.rows for each in answer.results] == [300, 300]
        (difference,) = answer.differences
        assert difference.agreement == {"y": 1.0}
        assert not difference.disagreeing_rows
        (interval,) = difference.intervals
        assert (interval.metric, interval.low, interval.high) == ("accuracy", 0.0, 0.0)
        with pytest.raises(grpc.RpcError, match="two versions or more"):
            list(call(stream(model="classifier")))


def test_finished_evaluations_are_kept_and_cut_ones_are_not(client: Client) -> None:
    with grpc.insecure_channel(client.address) as channel:
        calls = rpc.calls(channel, SERVICE)
        before = len(calls["ListEvaluations"](pb.ListEvaluationsRequest(model="classifier")).records)

        def cut() -> Iterator[pb.EvaluateRequest]:
            yield from stream(model="classifier")
            raise OSError("the line is dead")

        with pytest.raises(grpc.RpcError):
            list(calls["Evaluate"](cut()))
        list(calls["Evaluate"](stream(model="classifier")))
        list(calls["Evaluate"](stream(model="classifier")))
        records = calls["ListEvaluations"](pb.ListEvaluationsRequest(model="classifier")).records
    assert len(records) == before + 2
    listed = client.evaluations("classifier", limit=2)
    assert [each.time for each in listed] == [each.time for each in records[:2]]
    assert listed[0].evaluated.rows == 300
    newest, older = records[:2]
    assert newest.id > older.id
    assert newest.data_fingerprint == older.data_fingerprint
    assert newest.results.rows == 300
    assert newest.results.version == "2"
    assert newest.hardware == cpu_name()


def test_a_label_moves_if_the_requirements_hold(client: Client) -> None:
    client.evaluate("classifier", X, CLASSES)
    with grpc.insecure_channel(client.address) as channel:
        promote = rpc.calls(channel, SERVICE)["Promote"]
        for requirement, promoted in (("accuracy > 2", False), ("accuracy >= 0", True)):
            request = pb.PromoteRequest(
                model="classifier", version="2", label="stable", requirements=[requirement]
            )
            assert promote(request).promoted == promoted
    assert client.evaluate("classifier", X, CLASSES, version="stable").version == "2"


def test_the_command_promotes_or_says_why_not(client: Client) -> None:
    client.evaluate("classifier", X, CLASSES)
    arguments = ("promote", "classifier", "2", "--label", "best", "--address", client.address, "--require")
    refused = kerve(*arguments, "accuracy > 2")
    assert refused.returncode == 1
    assert "accuracy > 2" in refused.stdout
    assert "the label 'best' was not moved" in refused.stderr
    moved = kerve(*arguments, "accuracy >= 0")
    assert moved.returncode == 0, moved.stderr
    assert "best is version 2 now" in moved.stdout
    assert client.promote("classifier", 2, "best", ["accuracy >= best.accuracy"]).promoted
    with pytest.raises(NotFoundError, match="version 7 is not found"):
        client.promote("classifier", 7, "best")


def test_the_command_prints_one_json_object(client: Client, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=X, y=CLASSES)
    done = kerve(
        "evaluate", "classifier", "--data", str(tmp_path / "data.npz"), "--address", client.address, "--json"
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert list(printed) == ["model", "version", "rows", "seconds", "results"]
    assert (printed["model"], printed["version"], printed["rows"]) == ("classifier", "2", 300)
    equal(printed["results"], KERAS["classifier/2/plain"])


def test_what_is_no_number_is_null_in_json(client: Client, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.full((2, 4), np.nan, np.float32), y=CLASSES[:2])
    arguments = ["evaluate", "classifier", "--data", str(tmp_path / "data.npz"), "--address", client.address]

    def refuse(text: str) -> None:
        pytest.fail(f"{text} is not JSON")

    for versions in ((), ("--version", "1", "--version", "2")):
        done = kerve(*arguments, *versions, "--json")
        assert done.returncode == 0, done.stderr
        printed = json.loads(done.stdout, parse_constant=refuse)
        results = [printed] if "results" in printed else printed["versions"]
        assert [each["results"]["loss"] for each in results] == [None] * len(results)


def test_the_command_prints_a_table(client: Client, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=X, y=CLASSES)
    done = kerve("evaluate", "classifier", "--data", str(tmp_path / "data.npz"), "--address", client.address)
    assert done.returncode == 0, done.stderr
    assert "version 2" in done.stdout
    assert f"{KERAS['classifier/2/plain']['accuracy']:.4f}" in done.stdout


@pytest.mark.parametrize("kind", ["csv", "parquet", "npy"])
def test_the_command_takes_files_of_rows(client: Client, kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"data.{kind}"
    files = [file]
    if kind == "csv":
        header = "x_0,x_1,x_2,x_3,y,sample_weight"
        np.savetxt(file, np.c_[X, CLASSES, WEIGHTS], "%.9g", delimiter=",", header=header, comments="")
    elif kind == "parquet":
        columns = {"x": X.tolist(), "y": CLASSES, "sample_weight": WEIGHTS}
        pq.write_table(pa.table(columns), file, row_group_size=70)
    else:
        files = [tmp_path / f"{name}.npy" for name in ("x", "y", "sample_weight")]
        for path, array in zip(files, (X, CLASSES, WEIGHTS), strict=True):
            np.save(path, array)
    data = [argument for path in files for argument in ("--data", str(path))]
    done = kerve("evaluate", "classifier", *data, "--address", client.address, "--json")
    assert done.returncode == 0, done.stderr
    equal(json.loads(done.stdout)["results"], KERAS["classifier/2/weighted"])
    done = kerve("predict", "classifier", *data, "--address", client.address)
    assert done.returncode == 0, done.stderr
    assert "(300, 3)" in done.stdout


def test_what_a_file_lacks_is_told_in_one_line_and_nothing_is_kept(client: Client, tmp_path: Path) -> None:
    (tmp_path / "data.csv").write_text("x_0,x_1,x_2,x_3,y\n" + "1,2,3,4,0\n" * 300 + "1,2,3,four,0\n")
    with grpc.insecure_channel(client.address) as channel:
        listed = rpc.calls(channel, SERVICE)["ListEvaluations"]
        before = [each.id for each in listed(pb.ListEvaluationsRequest()).records]
        done = kerve(
            "evaluate", "classifier", "--data", str(tmp_path / "data.csv"), "--address", client.address
        )
        assert [each.id for each in listed(pb.ListEvaluationsRequest()).records] == before
    assert done.returncode == 2
    assert "row 300, column 'x_3': expected a number, got 'four'" in done.stderr
    assert "Traceback" not in done.stderr


def test_versions_that_differ_are_told_apart_as_by_hand(client: Client) -> None:
    compared = client.compare("classifier", X, CLASSES, versions=["1", "2"])
    for version, result in zip(("1", "2"), compared.results, strict=True):
        equal(result.results, KERAS[f"classifier/{version}/plain"])
    first, second = (
        client.predict("classifier", X, version=version).argmax(axis=1) for version in ("1", "2")
    )
    (difference,) = compared.differences
    assert (difference.version, difference.baseline) == ("2", "1")
    assert difference.agreement == {"y": pytest.approx((first == second).mean())}
    assert 0 < difference.agreement["y"] < 1
    assert difference.disagreeing_rows == tuple(np.flatnonzero(first != second)[:100].tolist())
    by_row = (second == CLASSES).astype(float) - (first == CLASSES)
    half = 1.959964 * by_row.std(ddof=1) / np.sqrt(len(by_row))
    (interval,) = difference.intervals
    assert interval.metric == "accuracy"
    np.testing.assert_allclose(
        (interval.difference, interval.low, interval.high),
        (by_row.mean(), by_row.mean() - half, by_row.mean() + half),
        rtol=1e-9,
    )


def test_numbers_of_versions_that_differ_are_compared_by_their_errors(client: Client) -> None:
    def batches() -> Iterator[Any]:
        for begin in range(0, 300, 70):
            yield X[begin : begin + 70], NUMBERS[begin : begin + 70]

    compared = client.compare("summed", batches(), versions=["2", "1"])
    assert [each.version for each in compared.results] == ["2", "1"]
    first, second = (
        ((client.predict("summed", X, version=version).astype(float) - NUMBERS) ** 2).mean(axis=1)
        for version in ("2", "1")
    )
    (interval,) = compared.differences[0].intervals
    half = 1.959964 * (second - first).std(ddof=1) / np.sqrt(300)
    assert interval.metric == "mean_squared_error"
    np.testing.assert_allclose(interval.difference, (second - first).mean(), rtol=1e-6)
    np.testing.assert_allclose(interval.high - interval.difference, half, rtol=1e-6)


def test_each_batch_comes_back_with_what_every_version_made_of_it(client: Client) -> None:
    seen: dict[str, list[Any]] = {"1": [], "2": []}

    def watch(version: str, first: int, sent: Any, outputs: Any) -> None:
        np.testing.assert_array_equal(sent["x"], X[first : first + len(sent["x"])])
        seen[version].append(outputs["y"])

    client.compare("classifier", X, CLASSES, versions=["1", "2"], watch=watch)
    for version, parts in seen.items():
        expected = client.predict("classifier", X, version=version)
        np.testing.assert_allclose(np.concatenate(parts), expected, rtol=1e-5, atol=1e-6)


def test_the_command_compares_and_writes_a_report(client: Client, tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=X, y=CLASSES)
    report = tmp_path / "report.html"
    arguments = ("evaluate", "classifier", "--version", "1", "--version", "2", "--address", client.address)
    done = kerve(*arguments, "--data", str(tmp_path / "data.npz"), "--report", str(report))
    assert done.returncode == 0, done.stderr
    for text in ("version 1", "version 2", "version 2 vs. version 1", "agreement of y"):
        assert text in done.stdout
    for text in ("Version 1", "Version 2", "Confusion matrix", "Version 2 vs. version 1"):
        assert text in report.read_text()
    done = kerve(*arguments, "--data", str(tmp_path / "data.npz"), "--json")
    printed = json.loads(done.stdout)
    assert [each["version"] for each in printed["versions"]] == ["1", "2"]
    assert printed["differences"][0]["intervals"][0]["metric"] == "accuracy"


def test_a_notebook_shows_models_and_results(client: Client) -> None:
    compared = client.compare("classifier", X, CLASSES, versions=["1", "2"])
    for shown, texts in (
        (client.metadata("classifier")._repr_html_(), ("classifier", "[batch, 4]", "versions 1, 2")),
        (compared.results[1]._repr_html_(), ("version 2", "accuracy", "300")),
        (compared._repr_html_(), ("version 2 vs. version 1", "agreement of y")),
    ):
        for text in texts:
            assert text in shown

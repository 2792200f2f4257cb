"""TensorFlow Serving's REST API, as its documentation has it, for curl and requests."""

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

Publish = Callable[..., Path]
Serve = Callable[..., AbstractContextManager[Any]]
Ask = Callable[..., tuple[int, Any]]

ROWS = [[1.0, -2.0, 0.5, 0.25], [0.0, 3.0, -1.0, 1.0]]


@pytest.fixture(scope="module")
def ask(
    transport: str,
    tmp_path_factory: pytest.TempPathFactory,
    models: Path,
    publish: Publish,
    serve: Serve,
) -> Iterator[Ask]:
    """Return `ask(path, body)`: the status and the JSON of an answer; a body is sent by POST."""
    repository = tmp_path_factory.mktemp("models")
    for name in ("classifier", "pair", "scalar", "echo_fp32", "echo_int64", "echo_bool", "echo_bf16"):
        publish(repository, name)
    publish(repository, "echo_bytes")
    publish(repository, "classifier", version=2)
    (repository / "classifier" / "config.toml").write_text("labels = { stable = 1 }\n[version_policy.all]\n")
    with serve(repository, "--http-port", "-1", "--transport", transport) as running:

        def asked(path: str, body: Any = None) -> tuple[int, Any]:
            data = (
                None
                if body is None
                else body.encode()
                if isinstance(body, str)
                else json.dumps(body).encode()
            )
            try:
                with urllib.request.urlopen(f"http://{running.http}/v1/models/{path}", data, 60) as answer:
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                return error.code, json.load(error)

        yield asked


@pytest.mark.parametrize(
    ("model", "rows"),
    [
        pytest.param("echo_fp32", [[1, 2.5], [float("inf"), -3]], id="numbers"),
        pytest.param("echo_int64", [[2**62, -1]], id="integers"),
        pytest.param("echo_bool", [[True, False]], id="truth values"),
        pytest.param("echo_bytes", [["a", "ß"], ["", "Hello World!"]], id="text"),
        pytest.param("echo_bf16", [[1.5, -2]], id="bfloat16"),
    ],
)
def test_rows_and_columns_come_back_as_they_were_given(ask: Ask, model: str, rows: Any) -> None:
    assert ask(f"{model}:predict", {"instances": rows}) == (200, {"predictions": rows})
    assert ask(f"{model}:predict", {"instances": [{"x": row} for row in rows]}) == (
        200,
        {"predictions": rows},
    )
    assert ask(f"{model}:predict", {"inputs": rows}) == (200, {"outputs": rows})
    assert ask(f"{model}:predict", {"inputs": {"x": rows}}) == (200, {"outputs": rows})


def test_whole_numbers_are_numbers_however_large(ask: Ask) -> None:
    given = [[2**70, 1.5], [-(10**30), 10**60]]
    answer = [[2.0**70, 1.5], [float(np.float32(-1e30)), float("inf")]]
    assert ask("echo_fp32:predict", {"instances": given}) == (200, {"predictions": answer})


def test_bytes_come_in_base64(ask: Ask) -> None:
    given = [[{"b64": base64.b64encode(b"image bytes").decode()}, "text"]]
    assert ask("echo_bytes:predict", {"instances": given}) == (
        200,
        {"predictions": [["image bytes", "text"]]},
    )


def test_several_inputs_and_outputs_have_their_names(ask: Ask) -> None:
    _, metadata = ask("pair/metadata")
    inputs = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    names = sorted(inputs)
    assert len(names) == 2
    columns = dict.fromkeys(names, ROWS)
    rows = [dict.fromkeys(names, row) for row in ROWS]
    _, whole = ask("pair:predict", {"inputs": columns})
    _, split = ask("pair:predict", {"instances": rows})
    assert split["predictions"] == whole["outputs"]
    _, answer = ask("classifier:predict", {"instances": ROWS})
    assert {frozenset(row) for row in answer["predictions"]} == {frozenset({"probabilities", "logits"})}
    np.testing.assert_allclose([sum(row["probabilities"]) for row in answer["predictions"]], 1, rtol=1e-6)


def test_examples_are_classified_and_regressed(ask: Ask) -> None:
    _, scores = ask("classifier:predict", {"instances": ROWS})
    status, answer = ask("classifier:classify", {"examples": [{"features": row} for row in ROWS]})
    assert status == 200
    found = [[score for _, score in row] for row in answer["results"]]
    np.testing.assert_allclose(found, [row["probabilities"] for row in scores["predictions"]], rtol=1e-6)
    regressed = ask("echo_fp32:regress", {"context": {"x": 2.5}, "examples": [{"x": [1]}, {}]})
    assert regressed == (200, {"results": [1.0, 2.5]})


def test_states_and_signatures_are_told(ask: Ask) -> None:
    fine = {"state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    both = {"model_version_status": [{"version": "2", **fine}, {"version": "1", **fine}]}
    ready = {"name": "classifier", "ready": True}  # for which KServe's client asks, with V1
    assert ask("classifier") == (200, both | ready)
    names = {
        "classifier",
        "pair",
        "scalar",
        "echo_fp32",
        "echo_int64",
        "echo_bool",
        "echo_bf16",
        "echo_bytes",
    }
    assert ask("") == (200, {"models": sorted(names)})
    assert ask("classifier/labels/stable") == (200, {"model_version_status": [{"version": "1", **fine}]})
    status, metadata = ask("classifier/versions/1/metadata")
    assert status == 200
    assert metadata["model_spec"] == {"name": "classifier", "signature_name": "", "version": "1"}
    definition = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert definition["method_name"] == "tensorflow/serving/predict"
    features = definition["inputs"]["features"]
    assert features["dtype"] == "DT_FLOAT"
    assert [each["size"] for each in features["tensor_shape"]["dim"]] == ["-1", "4"]


def test_versions_labels_and_signatures_choose(ask: Ask) -> None:
    body = {"signature_name": "serving_default", "instances": ROWS}
    for route in ("", "/versions/1", "/versions/2", "/labels/stable"):
        assert ask(f"classifier{route}:predict", body)[0] == 200
    for route in ("classifier/versions/7", "classifier/labels/canary", "half"):
        status, answer = ask(f"{route}:predict", body)
        assert status == 404
        assert set(answer) == {"error"}
    assert ask("classifier/labels/canary") == (404, {"error": "model 'classifier' has no label 'canary'"})
    assert ask("classifier:predict", {**body, "signature_name": "train"})[0] == 400


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("classifier:predict", {}, "expected either 'instances'"),
        ("classifier:predict", {"instances": ROWS, "inputs": ROWS}, "got both"),
        ("classifier:predict", {"instances": []}, "expected a list of at least one row"),
        ("classifier:predict", {"instances": 1}, "expected a list of at least one row"),
        ("classifier:predict", {"instances": [[1, 2], [3]]}, "data: expected FP32: "),
        ("classifier:predict", {"instances": [["a", "b", "c", "d"]]}, "data: expected FP32: "),
        ("classifier:predict", {"instances": [[1, 2, 3]]}, r"expected shape [batch, 4], got [1, 3]"),
        ("classifier:predict", {"instances": [{"features": ROWS[0]}, ROWS[1]]}, "in row 1"),
        ("classifier:predict", {"inputs": {"feature": ROWS}}, "unexpected input 'feature'"),
        ("pair:predict", {"inputs": ROWS}, "the model has several inputs"),
        ("echo_int64:predict", {"instances": [[1.5]]}, "expected INT64"),
        ("echo_bytes:predict", {"instances": [[1]]}, 'expected text or {"b64": ...}, got 1'),
        ("echo_bytes:predict", {"instances": [["a", ["b"]]]}, "got ['b']"),
        ("echo_bytes:predict", {"instances": [[{"b64": "?"}]]}, "expected base64"),
        ("echo_bytes:predict", {"instances": [[{"b64": "ß"}]]}, "expected base64"),
        ("classifier:predict", "[1, 2", "expected a JSON object"),
        ("classifier:predict", {"signature_name": ["a"], "instances": ROWS}, "signature_name: expected text"),
        ("classifier:classify", {"examples": []}, "expected a list of at least one object"),
        ("classifier:classify", {"examples": [1]}, "example 0: expected an object of features, got 1"),
        ("classifier:classify", {"examples": [{"features": [1, "a"]}]}, "expected numbers, or texts"),
        ("classifier:classify", {"examples": [{"features": [2**64]}]}, "expected numbers of 64 bits"),
        ("classifier:regress", {"examples": [{"other": 1}]}, "feature 'features' is missing"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(ask: Ask, path: str, body: Any, said: str) -> None:
    status, answer = ask(path, body)
    assert (status, list(answer)) == (400, ["error"])
    assert said in answer["error"]

"""The main job through the front door: files, commands, processes, and clients that others wrote."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
import tritonclient.grpc as triton

from kerve.compiler import Artifact, ConversionError, compile_model
from kerve.runtime import Client

KERVE = str(Path(sys.executable).with_name("kerve"))
IMAGES = np.random.default_rng(0).random((37, 8, 8, 1), np.float32)


def kerve(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([KERVE, *arguments], capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(7)
    return keras.Sequential(
        [
            keras.layers.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(4, 3, padding="same", activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax", name="probabilities"),
        ]
    )


@pytest.fixture(scope="module")
def files(model: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    model.save(folder / "digits.keras")
    model.save(folder / "digits.h5")
    return folder


@pytest.fixture(scope="module")
def recurrent() -> keras.Model:
    """A model that remembers what it was asked."""
    keras.utils.set_random_seed(7)
    return keras.Sequential(
        [
            keras.layers.Input(batch_shape=(2, 1, 3), name="steps"),
            keras.layers.LSTM(4, stateful=True),
            keras.layers.Dense(2, name="forecast"),
        ]
    )


@pytest.fixture(scope="module")
def compiled(
    files: Path, tmp_path_factory: pytest.TempPathFactory
) -> list["subprocess.CompletedProcess[str]"]:
    """What `kerve compile` said of each version: of a file twice, and of the same model in HDF5."""
    folder = str(tmp_path_factory.mktemp("served") / "models")
    done = [
        kerve("compile", str(files / file), "--repository", folder, "--name", name)
        for name, file in (("digits", "digits.keras"), ("digits", "digits.keras"), ("from-h5", "digits.h5"))
    ]
    assert [each.returncode for each in done] == [0, 0, 0], [each.stderr for each in done]
    return done


@pytest.fixture(scope="module")
def repository(compiled: list["subprocess.CompletedProcess[str]"], recurrent: keras.Model) -> Path:
    folder = Path(compiled[0].stdout.strip()).parents[1]
    compile_model(recurrent, repository=folder, name="recurrent")
    # A busy machine is no end of a sequence.
    (folder / "recurrent" / "config.toml").write_text(
        "[sequence_batching]\nmax_sequence_idle_microseconds = 600_000_000\n"
    )
    return folder


@pytest.fixture(scope="module")
def address(repository: Path) -> Iterator[str]:
    command = [KERVE, "serve", "--repository", str(repository), "--grpc-port", "0", "--http-port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        found = None
        while found is None:
            line = server.stdout.readline()
            assert line, "kerve serve ended before it was ready"
            found = re.search(r"127\.0\.0\.1:\d+", line)
        yield found[0]
        server.send_signal(signal.SIGTERM)
        assert server.wait(timeout=30) == 0


def test_compile_prints_the_artifacts_path_and_nothing_else_in_a_pipe(
    compiled: list["subprocess.CompletedProcess[str]"],
) -> None:
    paths = [Path(each.stdout.strip()) for each in compiled]
    assert [path.parts[-3:] for path in paths] == [
        ("models", "digits", "1"),
        ("models", "digits", "2"),
        ("models", "from-h5", "1"),
    ]
    assert all((path / "manifest.json").is_file() for path in paths)
    assert [each.stderr for each in compiled] == ["", "", ""]


def test_two_compiles_of_one_file_are_byte_identical(repository: Path) -> None:
    first, second = repository / "digits" / "1", repository / "digits" / "2"
    names = sorted(file.name for file in first.iterdir())
    assert names == sorted(file.name for file in second.iterdir())
    for name in names:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


def test_the_manifest_records_signature_source_and_proof(repository: Path) -> None:
    manifest = Artifact(repository / "digits" / "1").manifest
    assert [spec.name for spec in manifest.signature.inputs] == ["image"]
    assert [spec.name for spec in manifest.signature.outputs] == ["probabilities"]
    assert manifest.signature.batched
    assert manifest.source.file_name == "digits.keras"
    assert len({check.batch_size for check in manifest.verification.checks}) == 3
    assert json.loads((repository / "digits" / "1" / "manifest.json").read_text())["opset"] == 21


def test_our_client_gets_kerass_answers(model: keras.Model, address: str) -> None:
    with Client(address) as client:
        for name in ("digits", "from-h5"):
            answer = client.predict(name, {"image": IMAGES})["probabilities"]
            np.testing.assert_allclose(answer, model.predict(IMAGES, verbose=0), rtol=1e-4, atol=1e-5)


def test_tritons_client_gets_kerass_answers(model: keras.Model, address: str) -> None:
    with triton.InferenceServerClient(address) as client:
        assert client.is_server_ready()
        tensor = triton.InferInput("image", IMAGES.shape, "FP32")
        tensor.set_data_from_numpy(IMAGES)
        answer = client.infer("digits", [tensor]).as_numpy("probabilities")
    np.testing.assert_allclose(answer, model.predict(IMAGES, verbose=0), rtol=1e-4, atol=1e-5)


def test_a_stateful_model_answers_tritons_client_as_keras_does(recurrent: keras.Model, address: str) -> None:
    steps = np.random.default_rng(1).random((5, 2, 1, 3), np.float32)
    recurrent.layers[0].reset_states()
    expected = [np.array(recurrent(step)) for step in steps]
    with triton.InferenceServerClient(address) as client:
        for sequence in (1, "two"):
            for number, step in enumerate(steps):
                tensor = triton.InferInput("steps", step.shape, "FP32")
                tensor.set_data_from_numpy(step)
                answer = client.infer(
                    "recurrent",
                    [tensor],
                    sequence_id=sequence,
                    sequence_start=number == 0,
                    sequence_end=number == len(steps) - 1,
                )
                assert [output.name for output in answer.get_response().outputs] == ["forecast"]
                found = answer.as_numpy("forecast")
                np.testing.assert_allclose(found, expected[number], rtol=1e-4, atol=1e-5)


def test_a_stateful_model_answers_our_client_as_keras_does(recurrent: keras.Model, address: str) -> None:
    steps = np.random.default_rng(2).random((2, 2, 1, 3), np.float32)
    recurrent.layers[0].reset_states()
    expected = [np.array(recurrent(step)) for step in steps]
    with Client(address) as client:
        for step, forecast, start in zip(steps, expected, (True, False), strict=True):
            sequence: dict[str, str | bool] = {
                "sequence_id": "ours",
                "sequence_start": start,
                "sequence_end": not start,
            }
            answer = client.infer("recurrent", {"steps": step}, parameters=sequence)
            np.testing.assert_allclose(answer["forecast"], forecast, rtol=1e-4, atol=1e-5)


def test_predict_writes_the_outputs(model: keras.Model, address: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", x=IMAGES)
    done = kerve(
        "predict",
        "digits",
        "--data",
        str(tmp_path / "in.npz"),
        "--output",
        str(tmp_path / "out.npz"),
        "--address",
        address,
    )
    assert done.returncode == 0, done.stderr
    answer = np.load(tmp_path / "out.npz")["probabilities"]
    np.testing.assert_allclose(answer, model.predict(IMAGES, verbose=0), rtol=1e-4, atol=1e-5)


def test_inspect_shows_what_was_compiled(repository: Path) -> None:
    done = kerve("inspect", str(repository / "digits" / "1"))
    assert done.returncode == 0, done.stderr
    for word in ("image", "probabilities", "Conv", "MaxPool"):
        assert word in done.stdout


def test_what_cannot_be_converted_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    inputs = keras.Input((4, 4), name="matrix")
    singular = keras.layers.Lambda(lambda x: keras.ops.eigh(x)[0], name="spectrum")(inputs)
    with pytest.raises(
        ConversionError, match=r"layer 'spectrum' \(Lambda\): operation Eigh: .*; compute it outside"
    ):
        compile_model(keras.Model(inputs, singular), repository=tmp_path / "models", name="eigh")
    assert list(tmp_path.iterdir()) == []


def test_a_layer_without_onnx_form_ends_the_command_with_4(tmp_path: Path) -> None:
    inputs = keras.Input((4, 4), name="matrix")
    keras.Model(inputs, keras.ops.linalg.eigh(inputs)[0]).save(tmp_path / "eigh.keras")
    done = kerve(
        "compile", str(tmp_path / "eigh.keras"), "--repository", str(tmp_path / "models"), "--name", "m"
    )
    assert done.returncode == 4
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert "Eigh" in done.stderr
    assert not (tmp_path / "models").exists()


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(b"not a model at all", 3, id="no model"),
        pytest.param(b"PK\x03\x04 truncated", 3, id="truncated archive"),
        pytest.param(b"\x89HDF\r\n\x1a\n truncated", 3, id="truncated HDF5"),
        pytest.param(b"", 3, id="empty"),
    ],
)
def test_a_file_that_is_no_model_ends_the_command_with_3(
    content: bytes, expected: int, tmp_path: Path
) -> None:
    (tmp_path / "m.keras").write_bytes(content)
    done = kerve(
        "compile", str(tmp_path / "m.keras"), "--repository", str(tmp_path / "models"), "--name", "m"
    )
    assert done.returncode == expected, done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert not (tmp_path / "models").exists()


def test_a_missing_file_ends_the_command_with_3(tmp_path: Path) -> None:
    done = kerve("compile", str(tmp_path / "no.keras"), "--repository", str(tmp_path), "--name", "m")
    assert done.returncode == 3
    assert "no.keras" in done.stderr


def test_a_bad_name_ends_the_command_with_2(files: Path, tmp_path: Path) -> None:
    done = kerve("compile", str(files / "digits.keras"), "--repository", str(tmp_path), "--name", "a/b")
    assert done.returncode == 2
    assert "expected letters, digits" in done.stderr

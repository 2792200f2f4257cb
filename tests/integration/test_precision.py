"""Reduced precisions through the front door: commands, exit codes, and the check of a server."""

import shutil
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

from kerve.compiler import CompileOptions, compile_model
from kerve.compiler.opsets import DEFAULT_OPSET
from kerve.compiler.options import Precision, VerifyOptions
from kerve.compiler.pipeline import check
from kerve.compiler.precision import PRECISIONS
from kerve.runtime.artifact import read_artifact
from kerve.runtime.errors import ArtifactError
from kerve.runtime.model import Model, load
from kerve.runtime.session import Session

KERVE = str(Path(sys.executable).with_name("kerve"))


def kerve(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [KERVE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained classifier of digits, labelled data, calibration data, and data of another kind."""
    folder = tmp_path_factory.mktemp("precision")
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.layers.Input((8, 8, 1), name="image"),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax", name="probabilities"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(images[:1400], labels[:1400], epochs=8, verbose=0)
    model.save(folder / "digits.keras")
    np.savez(folder / "test.npz", x=images[1400:], y=labels[1400:])
    np.savez(folder / "calibration.npz", x=images[:200])
    np.savez(folder / "bright.npz", x=images[1400:] * 40.0 - 20.0)
    return folder


def options(folder: Path, precision: Precision, opset: int = DEFAULT_OPSET) -> CompileOptions:
    data, calibration = folder / "test.npz", folder / "calibration.npz"
    return CompileOptions(precision=precision, opset=opset, data=data, calibration=calibration)


@pytest.fixture(scope="module")
def model(folder: Path) -> keras.Model:
    return keras.models.load_model(folder / "digits.keras")


@pytest.fixture(scope="module", params=PRECISIONS)
def artifact(request: pytest.FixtureRequest, folder: Path, model: keras.Model) -> Path:
    """The classifier in each precision."""
    repository, chosen = folder / "models", options(folder, request.param)
    return compile_model(model, repository=repository, name=request.param, options=chosen).path


@pytest.fixture(scope="module")
def int8(folder: Path) -> subprocess.CompletedProcess[str]:
    """The same by the command."""
    return kerve(
        *("compile", folder / "digits.keras", "--repository", folder / "commanded", "--name", "int8"),
        *("--precision", "int8", "--calibration", folder / "calibration.npz"),
    )


def test_the_command_is_quiet_in_a_pipe(int8: subprocess.CompletedProcess[str]) -> None:
    assert (int8.returncode, int8.stderr) == (0, "")


def test_a_server_finds_it_to_be_what_was_compiled(artifact: Path) -> None:
    assert load(read_artifact(artifact), threads=1).check_golden()


def test_verification_agrees_and_tells_what_the_precision_costs(
    artifact: Path, folder: Path, model: keras.Model
) -> None:
    found = check(model, artifact, VerifyOptions(data=folder / "test.npz"), lambda _: None)
    assert all(each["passed"] for each in (*found["checks"], *found["losses"]))
    assert "is right in" in found["losses"][0]["text"]


def test_a_server_refuses_an_artifact_whose_weights_were_exchanged(
    folder: Path, model: keras.Model, tmp_path: Path
) -> None:
    chosen = CompileOptions(precision="float16")
    mixed = compile_model(model, repository=tmp_path, name="one", options=chosen).path
    other = keras.models.clone_model(model)
    other.set_weights(model.get_weights())
    other.layers[-1].kernel.assign(-other.layers[-1].kernel)
    exchanged = compile_model(other, repository=tmp_path, name="other", options=chosen).path
    shutil.copy(exchanged / "model.onnx", mixed)
    broken = read_artifact(mixed)
    served = Model(broken, Session(broken.model_file, threads=1))  # the hashes are not looked at
    with pytest.raises(ArtifactError, match="differs from the source model's output"):
        served.check_golden()


def test_over_budget_ends_the_command_with_6_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    done = kerve(
        *("compile", folder / "digits.keras", "--repository", tmp_path / "models", "--name", "m"),
        *("--precision", "int8", "--calibration", folder / "calibration.npz"),
        *("--data", folder / "bright.npz", "--max-drop", "0.001"),
    )
    assert done.returncode == 6, done.stderr
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (
        "int8 loses more than its budget on user data: output 'probabilities' chooses another class" in error
    )
    assert "(allowed: 0.001)" in error
    assert not (tmp_path / "models").exists()


def test_verify_ends_with_6_where_an_artifact_loses_more_on_other_data(
    folder: Path, int8: subprocess.CompletedProcess[str]
) -> None:
    artifact = int8.stdout.strip()
    done = kerve("verify", folder / "digits.keras", artifact, "--data", folder / "bright.npz")
    assert done.returncode == 6, done.stdout + done.stderr
    assert "loss due to the reduced precision" in done.stdout
    assert "loses more than its budget" in done.stderr


def test_four_bits_in_an_old_operator_set_are_a_wrong_use(folder: Path) -> None:
    target = ("--repository", folder / "models", "--name", "m")
    done = kerve("compile", folder / "digits.keras", *target, "--precision", "int4-weights", "--opset", "17")
    assert done.returncode == 2
    assert "int4-weights needs operator set 21" in done.stderr


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "int8", "int8-dynamic"])
def test_older_operator_sets_have_the_other_precisions(
    precision: Precision, folder: Path, model: keras.Model, tmp_path: Path
) -> None:
    compile_model(model, repository=tmp_path, name="m", options=options(folder, precision, opset=17))

"""Custom operators: native code, which a server takes from its command line and from nowhere else."""

import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from kerve.runtime import Client
from kerve.runtime.errors import ArtifactError, UnavailableError
from kerve.runtime.operators import load_libraries

Serve = Callable[..., AbstractContextManager[Any]]

HERE = Path(__file__).parent
EXPLICIT = ("--model-control-mode", "explicit", "--load-model", "*")
NAMED = 'model_operations { op_library_filename: "/somewhere/libdoubling.so" }'


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of one operator, written in C."""
    file = tmp_path_factory.mktemp("library") / "libdoubling.so"
    command = ["cc", "-shared", "-fPIC", "-o", str(file), str(HERE / "doubling.c")]
    subprocess.run(command, check=True)
    return file


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model with the operator, and one whose configuration, as Triton's, names the library."""
    for name in ("plain", "named"):
        (tmp_path / name / "1").mkdir(parents=True)
        shutil.copy(HERE / "doubling.onnx", tmp_path / name / "1" / "model.onnx")
    (tmp_path / "named" / "config.pbtxt").write_text(NAMED)
    return tmp_path


def test_a_library_of_the_command_line_serves_its_operators(
    repository: Path, serve: Serve, library: Path
) -> None:
    with (
        serve(repository, "--custom-op-library", str(library)) as running,
        Client(running.address) as client,
    ):
        for name in ("plain", "named"):
            answer = client.infer(name, np.array([[1, -3]], np.float32))
            assert_array_equal(answer["y"], [[2, -6]])


def test_a_model_brings_no_library(repository: Path, serve: Serve, library: Path) -> None:
    for each in (repository / "plain" / "1", repository / "named", repository / "named" / "1"):
        shutil.copy(library, each)
    (repository / "named" / "config.pbtxt").write_text(NAMED.replace("/somewhere", str(library.parent)))
    with serve(repository, *EXPLICIT) as running, Client(running.address) as client:
        for name in ("plain", "named"):
            with pytest.raises(UnavailableError):
                client.infer(name, np.ones((1, 2), np.float32))
        log = running.log.read_text()
    assert "com.example" in log
    assert "come from the command line only: kerve serve --custom-op-library PATH/libdoubling.so" in log


def test_what_is_no_such_library_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "libempty.so"
    file.write_bytes(b"nope")
    with pytest.raises(ArtifactError, match=r"libempty\.so is not a library of custom operators"):
        load_libraries([file])

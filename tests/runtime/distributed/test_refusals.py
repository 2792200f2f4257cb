"""What `--engine ray` does not do is said in one sentence, before a cluster is looked for."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

KERVE = str(Path(sys.executable).with_name("kerve"))
MODELS = Path(__file__).parent.parent / "evaluation" / "models"


def refused(*arguments: str | Path) -> tuple[int, str]:
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, timeout=120, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "rows.npz", x=np.zeros((3, 4), np.float32), y=np.zeros(3))
    return tmp_path / "rows.npz"


def test_a_folder_with_something_in_it_is_not_written_to(data: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "theirs").touch()
    code, errors = refused(
        *(KERVE, "predict", "classifier", "--engine", "ray", "--repository", MODELS),
        *("--input", data, "--output", tmp_path / "out"),
    )
    assert code == 2
    assert errors == (f"error: {tmp_path}/out is not empty; expected an empty or new folder\n")


def test_a_report_is_the_servers(data: Path, tmp_path: Path) -> None:
    code, errors = refused(
        *(KERVE, "evaluate", "classifier", "--engine", "ray", "--repository", MODELS),
        *("--data", data, "--report", tmp_path / "report.html"),
    )
    assert code == 2
    assert "--report cannot be used with --engine ray" in errors


@pytest.mark.parametrize(
    ("options", "text"),
    [
        pytest.param([], "--engine ray needs --repository", id="no repository"),
        pytest.param(
            ["--repository", MODELS, "--version", "7"], "has no version 7; available: 1, 2", id="version"
        ),
    ],
)
def test_a_model_has_to_be_there(data: Path, options: list[str | Path], text: str) -> None:
    _, errors = refused(KERVE, "evaluate", "classifier", "--engine", "ray", "--data", data, *options)
    assert text in errors


def test_a_cluster_that_is_not_there_is_told_in_one_line(data: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed: pip install 'kerve[ray]'")
    code, errors = refused(
        *(KERVE, "evaluate", "classifier", "--engine", "ray", "--repository", MODELS),
        *("--data", data, "--ray-address", "127.0.0.1:1"),
    )
    assert code == 1
    assert errors.startswith("error: no Ray cluster answers at 127.0.0.1:1: ")


def test_without_ray_it_is_said_how_to_get_it(data: Path) -> None:
    script = "import sys; sys.modules['ray'] = None; from kerve.cli.main import main; main(sys.argv[1:])"
    code, errors = refused(
        *(sys.executable, "-c", script, "evaluate", "classifier", "--engine", "ray"),
        *("--repository", MODELS, "--data", data),
    )
    assert code == 1
    assert errors == "error: --engine ray needs Ray, which is not installed: pip install 'kerve[ray]'\n"

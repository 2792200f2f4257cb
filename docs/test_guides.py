"""The guides: each code block runs as it stands, in order, beside the files that it names."""

import contextlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest

ROOT = Path(__file__).parents[1]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
FIXTURES = ROOT / "tests" / "compiler" / "fixtures"

#: What a reader of a guide has already: a file of the guide by the file of TensorFlow 2.4 that stands for it.
OLD = {
    "old.h5": "mlp.h5",
    "old_weights.h5": "mlp_weights.h5",
    "old_checkpoint": "mlp_checkpoint",
    "old.json": "mlp.json",
    "custom.h5": "custom.h5",
    "lambda.h5": "lambda.h5",
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    shutil.unpack_archive(FIXTURES / "tf2.4.zip", tmp_path / "written")
    for name, written in OLD.items():
        (tmp_path / "written" / written).rename(tmp_path / name)
    shutil.copy(FIXTURES / "own_layers.py", tmp_path)
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "model.keras")
    with contextlib.chdir(tmp_path):
        yield tmp_path


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_the_code_of_a_guide_runs(guide: Path, folder: Path) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```", guide.read_text("utf-8"), re.M | re.S)
    assert blocks
    for language, code in blocks:
        if language == "python":
            exec(compile(code, str(guide), "exec"), {})
        else:
            done = subprocess.run(
                ["bash", "-ec", code],
                env={**os.environ, "PATH": path},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{code}{done.stdout}{done.stderr}"

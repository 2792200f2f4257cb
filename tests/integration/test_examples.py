"""The examples: all in the index, and none that passes when answers differ. `make examples` runs them."""

import importlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
ANSWERS = np.array([[0.25, 0.75], [1e-7, 1.0]], np.float32)


@pytest.fixture
def workflow(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module("workflow")


def test_the_index_lists_every_example() -> None:
    scripts = {
        path.name
        for path in EXAMPLES.glob("*.py")
        if path.read_text("utf-8").rstrip().endswith(" start(main)")
    }
    rows = re.findall(r"^\|.*?\| \[(\S+)\]\((\S+)\) \|", (EXAMPLES / "README.md").read_text("utf-8"), re.M)
    assert {name for name, _ in rows} == {link for _, link in rows} == scripts


def test_equal_answers_are_shown(workflow: Any, capsys: pytest.CaptureFixture[str]) -> None:
    workflow.compare("m", keras={"y": ANSWERS}, served={"y": ANSWERS * np.float32(1 + 1e-6)})
    assert re.search(r"m y: .*\(2, 2\), largest difference .*, equal", capsys.readouterr().out)


@pytest.mark.parametrize(
    "served",
    [
        pytest.param(ANSWERS + np.float32(1e-3), id="too far"),
        pytest.param(np.full_like(ANSWERS, np.nan), id="not a number"),
        pytest.param(ANSWERS[:1], id="rows missing"),
        pytest.param({"z": ANSWERS}, id="another name"),
    ],
)
def test_an_example_ends_with_an_error_when_answers_differ(workflow: Any, served: Any) -> None:
    served = served if isinstance(served, dict) else {"y": served}
    with pytest.raises(SystemExit, match=r"^m"):
        workflow.compare("m", keras={"y": ANSWERS}, served=served)


def test_no_answers_are_not_equal_answers(workflow: Any) -> None:
    with pytest.raises(SystemExit):
        workflow.compare("m", keras={"y": ANSWERS[:0]}, served={"y": ANSWERS[:0]})


def test_a_command_that_fails_ends_the_example(workflow: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="exit code 2, expected 0"):
        workflow.kerve("serve", "--repository", tmp_path / "nothing")


def test_a_folder_with_files_is_left_alone(
    workflow: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").touch()
    monkeypatch.setattr("sys.argv", ["example.py", str(tmp_path)])
    with pytest.raises(SystemExit, match="not empty"):
        workflow.start(lambda _: None)

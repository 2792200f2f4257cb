"""What `--explain` says of a pass, and what `--dump` keeps."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest

from kerve.compiler.errors import CompileError
from kerve.compiler.options import CompileOptions
from kerve.compiler.pass_reports import explain, observer
from kerve.compiler.passes import Step, optimize


def step(**said: Any) -> Step:
    told: dict[str, Any] = {
        "nodes_before": 9,
        "nodes_after": 9,
        "removed": Counter[str](),
        "added": Counter[str](),
        "modified": False,
        "notes": (),
    }
    model = ir.Model(ir.Graph([], [], nodes=[]), ir_version=10)
    return Step(name="Layout", model=model, seconds=0.0, **(told | said))


@pytest.mark.parametrize(
    ("said", "lines"),
    [
        pytest.param({}, ["9 nodes, unchanged"], id="nothing"),
        pytest.param({"modified": True}, ["9 nodes, values or attributes changed"], id="within nodes"),
        pytest.param(
            {
                "nodes_before": 12,
                "removed": Counter({"a/Mul": 1, "b/Mul": 1, "b/Add": 1, "Cast": 1}),
                "added": Counter({"a/b/Conv": 1}),
            },
            ["12 -> 9 nodes: removed 2 Mul, 1 Add, 1 Cast (a, b); added 1 Conv (a/b)"],
            id="nodes of layers",
        ),
        pytest.param(
            {"notes": tuple(f"conv_{i}/Conv: has no weights: it takes them" for i in range(5))},
            [
                "9 nodes, unchanged",
                "conv_0/Conv, conv_1/Conv, conv_2/Conv and 2 more: has no weights: it takes them",
            ],
            id="one reason for many",
        ),
    ],
)
def test_it_says_what_changed_and_why_no_more(said: dict[str, Any], lines: list[str]) -> None:
    assert list(explain(step(**said))) == lines


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    model = ir.Model(ir.Graph([], [], nodes=[], opset_imports={"": 21}, name="model"), ir_version=10)
    with pytest.raises(CompileError, match=r"file/graphs, the folder of --dump: Not a directory"):
        optimize(model, observer(CompileOptions(dump=file / "graphs"), lambda _: None))

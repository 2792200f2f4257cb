"""The report page of an artifact, `report.html`: `save_report(model, manifest, folder)`.

sizes.py                    operators and weights per layer
outline.py, ordering.py     ONNX nodes -> a graph of Keras layers
repetition.py, blocks.py    -> few boxes and frames
placement.py                -> coordinates
page.py, page.html.j2       -> one self-contained file
"""

from __future__ import annotations

from pathlib import Path

import onnx_ir as ir

from kerve.artifact.v1.manifest_pb2 import Manifest
from kerve.compiler.report.page import render

__all__ = ["save_report"]

_FILE = "report.html"


def save_report(model: ir.Model, manifest: Manifest, folder: Path) -> None:
    """Write `report.html` next to the model's files; the same model and manifest give the same bytes."""
    size = sum(file.stat().st_size for file in folder.glob("model.onnx*"))
    (folder / _FILE).write_text(render(model, manifest, size), encoding="utf-8")

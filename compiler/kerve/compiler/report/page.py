"""Rendering of the page from the manifest, the graph and the template."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import jinja2
import markupsafe
import onnx_ir as ir

from kerve.artifact.v1.manifest_pb2 import Manifest, Reduction, TensorSpec
from kerve.compiler.report.blocks import Box, Element, diagram
from kerve.compiler.report.placement import Point, place
from kerve.compiler.report.sizes import count_operators, layer_sizes, show_bytes

__all__ = ["render"]

#: The rows of a long table that are shown before it is collapsed.
_SHOWN = 20

#: The most letters of a box's name and of the line below it.
_NAME_LETTERS, _DETAIL_LETTERS = 25, 31

#: The fewest bytes of weights that a box shows.
_WORTH_SAYING = 1000

#: Operators that are not characteristic of a layer's computation; they are listed last.
_SURROUNDINGS = {
    "Cast",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "QuantizeLinear",
    "Reshape",
    "Transpose",
}

_MEASURES = {
    "accuracy": "loss of accuracy",
    "choices": "rows whose predicted class changes",
    "elements": "elements that differ",
    "error": "relative root mean square error",
    "rmse": "growth of the RMS error, in standard deviations of the labels",
}

#: Characters that HTML does not allow.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def render(model: ir.Model, manifest: Manifest, model_bytes: int) -> str:
    """Return the page as HTML that is also valid XML; `model_bytes` is the size of the model's files."""
    sizes = layer_sizes(model.graph)
    layer_count = sum(bool(each.layer) for each in sizes)
    operators = count_operators(model.graph)
    picture = place(diagram(model.graph))
    reduction = manifest.reduction if manifest.HasField("reduction") else None
    source = manifest.source
    figures = {
        "model": show_bytes(model_bytes),
        "weights": f"{sum(each.elements for each in sizes):,}",
        "Keras layers": layer_count,
        "operators": f"{operators.total():,}",
        "precision": manifest.precision,
        "opset": manifest.opset,
    }
    facts = {
        "source": ", ".join(filter(None, (source.kind, source.file_name))),
        "SHA-256": source.sha256,
        "written by": f"Keras {source.keras_version}" if source.keras_version else "",
        "compiled with": ", ".join(
            f"{tool} {version}" for tool, version in sorted(manifest.toolchain.items())
        ),
        "metrics": ", ".join(metric.name for metric in manifest.evaluation.metrics),
    }
    return _template().render(
        manifest=manifest,
        reduction=reduction,
        figures=figures.items(),
        facts=[(name, value) for name, value in facts.items() if value],
        signature=[
            *(("input", spec) for spec in manifest.signature.inputs),
            *(("output", spec) for spec in manifest.signature.outputs),
        ],
        worst=max((check.max_abs_error for check in manifest.verification.checks), default=0.0),
        most_added=max((each.given - each.taken for each in reduction.layers), default=0.0)
        if reduction
        else 0.0,
        layer_count=layer_count,
        layers_by_size=sorted(sizes, key=lambda each: -each.bytes),
        operators=operators.most_common(),
        picture=picture,
        boxes=[(each, _Text(each.element)) for each in picture.boxes],
        shown=_SHOWN,
    )


class _Text:
    """The texts of a box and of its tooltip."""

    def __init__(self, box: Element) -> None:
        assert isinstance(box, Box)
        part = box.part
        self.kind = "sum" if box.summed else part.role
        self.count = (
            f"+ {len(part.names) - 1} layers" if box.summed else f"× {box.times}" if box.times > 1 else ""
        )
        self.name = _shorten(part.name, _NAME_LETTERS - len(self.count))
        if part.role == "layer":
            counts = part.operators.most_common() if box.summed else list(part.operators.items())
            counts.sort(key=lambda item: item[0] in _SURROUNDINGS)
            operators = [name if count == 1 else f"{count} {name}" for name, count in counts]
            weights = show_bytes(part.weights) if part.weights >= _WORTH_SAYING else ""
            shown = operators if operators != [part.name] else [part.result]  # an operator outside of layers
            self.detail = " · ".join(filter(None, (_few(shown, weights), weights)))
            layers = f"{len(part.names)} layers: " if len(part.names) > 1 else ""
            self.title = f"{layers}{', '.join(part.names)} | {', '.join(operators)} | output {part.result}"
        else:
            self.detail = _shorten(part.result, _DETAIL_LETTERS)
            self.title = f"{part.role} {part.name}: {part.result}"


def _few(listed: Sequence[str], beside: str) -> str:
    """Return as many operators as fit into a box."""
    room = _DETAIL_LETTERS - len(beside) - 3 * bool(beside)
    for count in range(len(listed), 0, -1):
        rest = len(listed) - count
        text = ", ".join(listed[:count]) + (f" + {rest}" if rest else "")
        if len(text) <= room:
            return text
    return _shorten(listed[0], room)


def _shorten(text: str, letters: int) -> str:
    """Replace the middle of a long text by an ellipsis."""
    if len(text) <= letters:
        return text
    half = (letters - 1) // 2
    return f"{text[: letters - 1 - half]}…{text[-half:]}"


def _number(value: float) -> str:
    """Format an error."""
    return "0" if value == 0 else f"{value:.2e}" if value < 0.001 else f"{value:.3g}"


def _measure(loss: Reduction.Loss) -> str:
    return _MEASURES.get(loss.measure, loss.measure)


def _path(points: Sequence[Point]) -> str:
    """Return an edge as an SVG path: curves between rows, straight lines through lanes."""
    (x, y), *_ = points
    steps = [f"M{x:g} {y:g}"]
    for (x1, y1), (x2, y2) in pairwise(points):
        middle = (y1 + y2) / 2
        steps.append(f"V{y2:g}" if x1 == x2 else f"C{x1:g} {middle:g} {x2:g} {middle:g} {x2:g} {y2:g}")
    return "".join(steps)


def _shape(spec: TensorSpec) -> str:
    sizes: Iterable[str] = (
        str(dim.size) if dim.HasField("size") else dim.symbol or "any" for dim in spec.shape
    )
    return " × ".join(sizes) or "scalar"


def _clean(value: Any) -> Any:
    """Replace characters that HTML does not allow, in text that is not escaped yet."""
    plain = isinstance(value, str) and not isinstance(value, markupsafe.Markup)
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", value) if plain else value


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("kerve.compiler.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_clean,
    )
    environment.filters |= {
        "bytes": show_bytes,
        "measure": _measure,
        "number": _number,
        "path": _path,
        "shape": _shape,
        "shorten": _shorten,
    }
    return environment.get_template("page.html.j2")

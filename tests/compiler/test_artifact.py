"""An artifact, and a comparison with its source, as a notebook shows them."""

from html.parser import HTMLParser
from pathlib import Path

from kerve.compiler import Artifact, Comparison

MODELS = Path(__file__).parents[1] / "runtime" / "evaluation" / "models"


def test_a_notebook_shows_what_it_takes_and_gives_and_how_it_was_proven() -> None:
    shown = Artifact(MODELS / "classifier" / "2")._repr_html_()
    HTMLParser().feed(shown)
    for text in ("classifier, version 2", "[batch, 4]", "[batch, 3]", "FP32", "verified output", "float32"):
        assert text in shown


def test_a_notebook_shows_what_a_comparison_found() -> None:
    check = {"output": "y", "data": "user", "batch_size": 7, "dimensions": {"time": 3}, "passed": False}
    errors = {"max_abs_error": 0.25, "max_rel_error": 2.0, "unequal": 4}
    loss = {"text": "output 'y' is off", "drop": 0.125, "allowed": 0.1, "passed": False}
    shown = Comparison([check | errors], [loss], divergence="the first layer is <b>")._repr_html_()
    HTMLParser().feed(shown)
    for text in ("1 of 1 comparisons", "user", "0.25", "0.125", "{&#x27;time&#x27;: 3}", "&lt;b&gt;"):
        assert text in shown
    assert "equal to its source" in Comparison([])._repr_html_()
    assert "within its accuracy budget" in Comparison([], [loss | {"passed": True}])._repr_html_()


def test_a_notebook_does_not_call_an_altered_or_lossy_artifact_equal() -> None:
    loss = {"text": "output 'y' is off", "drop": 0.125, "allowed": 0.1, "passed": False}
    altered = Comparison([], altered=["model.onnx"])._repr_html_()
    assert "model.onnx: missing or changed" in altered
    lossy = Comparison([], [loss])._repr_html_()
    assert "loses more than its budget" in lossy
    assert "equal to" not in altered + lossy

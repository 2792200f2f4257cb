"""An artifact as a notebook shows it."""

from html.parser import HTMLParser
from pathlib import Path

from kerve.compiler.artifact import Artifact

MODELS = Path(__file__).parents[1] / "runtime" / "evaluation" / "models"


def test_a_notebook_shows_what_it_takes_and_gives_and_how_it_was_proven() -> None:
    shown = Artifact(MODELS / "classifier" / "2")._repr_html_()
    HTMLParser().feed(shown)
    for text in ("classifier, version 2", "[batch, 4]", "[batch, 3]", "FP32", "verified output", "float32"):
        assert text in shown

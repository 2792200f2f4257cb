"""Regenerate the reference pages."""

from pathlib import Path

from writers.pages import PAGES

if __name__ == "__main__":
    for name, page in PAGES.items():
        (Path(__file__).parents[1] / name).write_text(page(), encoding="utf-8")

"""The reference pages match the code, and no link is broken."""

import importlib
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest

from kerve.runtime.config.effects import HONOURED, REFUSED

DOCS = Path(__file__).parent
ROOT = DOCS.parent
PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "examples" / "README.md"]
CODE = re.compile(r"^```.*?^```|`[^`\n]*`", re.M | re.S)


@pytest.mark.parametrize(
    "name", ["reference/commands.md", "reference/configuration.md", "reference/errors.md"]
)
def test_a_page_is_what_make_reference_writes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)
    written = importlib.import_module("writers.pages").PAGES
    assert (DOCS / name).read_text("utf-8") == written[name](), "run `make reference`"


def test_what_is_told_of_a_configuration_is_told_of_fields_that_exist(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(DOCS)
    configuration = importlib.import_module("writers.configuration")
    rows = re.findall(r"^\| `([^`]+)` \|", configuration.page(), re.M)
    assert HONOURED.keys() | REFUSED.keys() <= set(rows)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in links(page):
        assert target.exists(), f"{target.relative_to(ROOT)} is not there"
        assert not anchor or anchor in anchors(target), f"{target.relative_to(ROOT)} has no heading #{anchor}"


def links(page: Path) -> Iterator[tuple[Path, str]]:
    """Yield the file and the anchor of each link to something of the repository."""
    for link in re.findall(r"\]\(([^)\s]+)\)", CODE.sub("", page.read_text("utf-8"))):
        if "://" not in link:
            path, _, anchor = unquote(link).partition("#")
            yield ((page.parent / path).resolve() if path else page), anchor


def anchors(page: Path) -> set[str]:
    """Return the anchors that a code host gives the headings of a page."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S), re.M
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_every_rpc_of_the_peers_has_a_test_that_exists() -> None:
    page = (DOCS / "reference" / "conformance.md").read_text("utf-8")
    told = set(re.findall(r"^\| `([\w.]+)` \|", page, re.M))
    services = {
        "inference/grpc_service.proto": {"GRPCInferenceService": ""},
        "tensorflow_serving/apis/prediction_service.proto": {"PredictionService": "PredictionService."},
        "tensorflow_serving/apis/model_service.proto": {"ModelService": "ModelService."},
    }
    for proto, prefixes in services.items():
        text = (ROOT / "proto" / proto).read_text("utf-8")
        for service, prefix in prefixes.items():
            body = re.search(rf"^service {service} {{(.*?)^}}", text, re.M | re.S)
            assert body is not None
            methods = {prefix + name for name in re.findall(r"^\s*rpc (\w+)", body[1], re.M)}
            assert methods
            assert methods <= told
    for file, test in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page):
        assert f"def {test}(" in (ROOT / file).read_text("utf-8")

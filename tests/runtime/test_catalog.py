"""Who answers for a name and a version."""

import pytest

from kerve.runtime.catalog import Catalog
from kerve.runtime.errors import NotFoundError, UnavailableError


@pytest.fixture
def catalog() -> Catalog[str]:
    catalog: Catalog[str] = Catalog()
    catalog.publish(
        "digits", {"": "second", "1": "first", "2": "second", "stable": "first"}, {"3": "it is loading"}
    )
    catalog.publish("broken", {})
    return catalog


def test_a_version_a_label_and_the_default_are_found(catalog: Catalog[str]) -> None:
    assert [catalog.find("digits", version) for version in ("", "1", "2", "stable")] == [
        "second",
        "first",
        "second",
        "first",
    ]
    assert catalog.versions("digits") == [1, 2]
    assert catalog.names() == ["digits"]


def test_what_is_not_there_is_told_what_is(catalog: Catalog[str]) -> None:
    with pytest.raises(NotFoundError) as caught:
        catalog.find("foo", "")
    assert str(caught.value) == "Request for unknown model: 'foo' is not found; available: digits"
    for route, text in (("7", "version 7"), ("canary", "label 'canary'")):
        with pytest.raises(NotFoundError) as caught:
            catalog.find("digits", route)
        assert str(caught.value).endswith(f"'digits' {text} is not found; available: 1, 2, stable")


def test_what_is_replaced_before_it_answers_is_asked_no_more(catalog: Catalog[str]) -> None:
    asked = []

    def compute(found: str) -> str:
        asked.append(found)
        if found == "second":
            catalog.publish("digits", {"": "third", "3": "third"}, {"2": "it is being unloaded"})
            raise UnavailableError("it is being unloaded")
        if found == "first":
            raise UnavailableError("the server is shutting down")
        return f"the answer of {found}"

    with pytest.raises(UnavailableError, match="shutting down"):
        catalog.ask("digits", "1", compute)
    assert catalog.ask("digits", "", compute) == "the answer of third"
    assert asked == ["first", "second", "third"]
    with pytest.raises(UnavailableError, match="'digits' version 2 is not at ready state"):
        catalog.ask("digits", "2", compute)


def test_a_model_without_routes_is_not_ready(catalog: Catalog[str]) -> None:
    with pytest.raises(UnavailableError, match="'broken' has no available versions"):
        catalog.find("broken", "")


def test_a_version_that_is_not_ready_is_not_unknown(catalog: Catalog[str]) -> None:
    with pytest.raises(UnavailableError) as caught:
        catalog.find("digits", "3")
    assert str(caught.value).endswith("'digits' version 3 is not at ready state: it is loading")
    assert catalog.versions("digits") == [1, 2]


def test_a_withdrawn_model_is_gone(catalog: Catalog[str]) -> None:
    catalog.unpublish("digits")
    with pytest.raises(NotFoundError) as caught:
        catalog.find("digits", "")
    assert str(caught.value) == "Request for unknown model: 'digits' is not found; available: no model"

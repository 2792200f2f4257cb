"""A label moves only to a version whose numbers allow it."""

import sqlite3
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest

from kerve.evaluation.v1 import evaluation_pb2 as pb
from kerve.runtime.errors import InvalidArgumentError, NotFoundError
from kerve.runtime.evaluation.history import Finished, History
from kerve.runtime.evaluation.promotion import promote
from kerve.runtime.evaluation.requirements import parse


class Shelf:
    def __init__(self) -> None:
        self.stable = 1

    def labels(self, _: str) -> dict[str, int]:
        return {"stable": self.stable}

    def promote(self, _: str, label: str, version: int) -> None:
        assert label == "stable"
        self.stable = version


@pytest.fixture
def history(tmp_path: Path) -> History:
    history = History(tmp_path / "history.sqlite")
    for version, accuracy, loss in (("1", 0.9, 0.5), ("2", 0.5, 9.0), ("2", 0.95, 0.502)):
        metrics = [pb.Metric(name="accuracy", values=[accuracy]), pb.Metric(name="loss", values=[loss])]
        results = pb.Results(model="m", version=version, metrics=metrics, rows=9)
        history.add(Finished("me", "00", "a CPU", results, f"artifact {version}"))
    return history


def decide(request: pb.PromoteRequest, shelf: Shelf, history: History, of: str = "artifact") -> Any:
    return promote(request, shelf, history, "me", lambda version: f"{of} {version}")


@pytest.mark.parametrize(
    ("requirements", "promoted"),
    [
        (["accuracy >= 0.95", "loss <= stable.loss * 1.01"], True),
        (["accuracy > 0.95"], False),
        (["loss < stable.loss", "accuracy > stable.accuracy"], False),
        (["accuracy >= stable.accuracy + 0.04"], True),
        (["f1 >= 0.5"], False),
        (["loss <= canary.loss"], False),
        ([], True),
    ],
)
def test_all_requirements_have_to_hold(history: History, requirements: list[str], promoted: bool) -> None:
    shelf = Shelf()
    request = pb.PromoteRequest(model="m", version="2", label="stable", requirements=requirements)
    response = decide(request, shelf, history)
    assert response.promoted == promoted
    assert shelf.stable == (2 if promoted else 1)
    assert [each.text for each in response.requirements] == requirements
    assert all(each.reason for each in response.requirements)


def test_what_was_found_of_another_model_with_that_number_counts_for_nothing(history: History) -> None:
    request = pb.PromoteRequest(model="m", version="2", label="stable", requirements=["accuracy >= 0.9"])
    answer = decide(request, Shelf(), history, of="recompiled")
    assert not answer.promoted
    assert "version 2 was never evaluated" in answer.requirements[0].reason


def test_a_database_of_before_is_taken_on(history: History, tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "history.sqlite")) as database, database:
        database.execute("ALTER TABLE evaluations DROP COLUMN artifact")
    history.add(Finished("me", "00", "a CPU", pb.Results(model="m", version="2"), "artifact 2"))
    assert [record.id for record in history.list("m", "2", artifact="artifact 2")] == [4]
    assert [record.id for record in history.list("m", "2")] == [4, 3, 2]


def test_a_refusal_says_what_was_found(history: History) -> None:
    request = pb.PromoteRequest(
        model="m", version="2", label="stable", requirements=["accuracy >= 0.97", "f1 > 0"]
    )
    first, second = decide(request, Shelf(), history).requirements
    assert first.reason == "accuracy is 0.95; expected >= 0.97"
    assert second.reason == "version 2 was never evaluated for 'f1'; run kerve evaluate first"


@pytest.mark.parametrize(
    "text", ["accuracy", "__import__('os')", "loss <= f(1)", "a >= 1 * 2 * 3", "1 <= loss"]
)
def test_requirements_are_parsed_and_never_run(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="expected METRIC"):
        parse(text)


def test_the_newest_evaluation_comes_first(history: History) -> None:
    assert [record.id for record in history.list("m", "2")] == [3, 2]
    assert [record.id for record in history.list("m", limit=1)] == [3]
    assert history.list("other") == []


def test_a_label_is_a_name(history: History) -> None:
    for label in ("", "2"):
        with pytest.raises(InvalidArgumentError, match="expected a name, not a number"):
            decide(pb.PromoteRequest(model="m", version="2", label=label), Shelf(), history)


def test_a_decision_that_cannot_be_kept_moves_nothing(tmp_path: Path) -> None:
    (tmp_path / "history.sqlite").write_text("no database")
    shelf = Shelf()
    with pytest.raises(OSError, match="not a database"):
        decide(
            pb.PromoteRequest(model="m", version="2", label="stable"),
            shelf,
            History(tmp_path / "history.sqlite"),
        )
    assert shelf.stable == 1


def test_a_version_that_serves_no_more_is_not_recorded_as_promoted(tmp_path: Path) -> None:
    """Else the label would stand for it as soon as the server starts again."""

    class Empty(Shelf):
        def promote(self, name: str, label: str, version: int) -> None:
            raise NotFoundError(f"model {name!r} has no ready version {version}")

    history = History(tmp_path / "history.sqlite")
    for version, shelf in (("1", Shelf()), ("2", Empty())):
        request = pb.PromoteRequest(model="m", version=version, label="stable")
        with nullcontext() if version == "1" else pytest.raises(NotFoundError, match="no ready version 2"):
            decide(request, shelf, history)
    assert history.promoted() == {"m": {"stable": 1}}

"""The table of open sequences."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import pytest

from kerve.runtime.sequences import table
from kerve.runtime.sequences.request import SequencePosition
from kerve.runtime.sequences.table import Sequences


class Counted(OrderedDict[Any, Any]):
    """Counts the entries that are looked at one after another."""

    looked = 0

    def items(self) -> Iterator[tuple[Any, Any]]:  # type: ignore[override]  # all that the table needs of it
        for item in super().items():
            Counted.looked += 1
            yield item


def test_a_turn_does_not_look_at_every_open_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "OrderedDict", Counted)
    sequences = Sequences("model", most=10_000, idle=1000.0)
    many = 1000
    for identity in range(1, many + 1):
        with sequences.turn(SequencePosition(identity, start=True), dict, None):
            pass
    assert len(sequences) == many
    assert many < Counted.looked < 10 * many

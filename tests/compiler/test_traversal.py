"""Walks visit each place once, however many paths lead there, and end in cycles."""

from __future__ import annotations

from kerve.compiler.traversal import reachable


def test_two_ways_at_each_of_many_steps_are_one_visit_each() -> None:
    visited = list(reachable([0], lambda step: [step + 1, step + 1, step + 2] if step < 200 else []))
    assert sorted(visited) == list(range(202))


def test_a_cycle_ends() -> None:
    assert list(reachable("a", {"a": "b", "b": "ca", "c": "c"}.__getitem__)) == ["a", "b", "c"]


def test_a_long_chain_needs_no_recursion() -> None:
    assert sum(1 for _ in reachable([0], lambda step: [step + 1] if step < 100_000 else [])) == 100_001


def test_what_follows_is_not_asked_before_its_item_is_taken() -> None:
    asked: list[int] = []

    def following(step: int) -> list[int]:
        asked.append(step)
        return [step + 1]

    assert any(step == 3 for step in reachable([0, 0], following))
    assert asked == [0, 1, 2]

"""The cut is the cheapest of all answers, found by trying every one."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from kerve.compiler.passes.layout.mincut import Choice

_THINGS = 5

_COSTS = st.lists(
    st.tuples(st.integers(0, 1 << 40), st.integers(0, _THINGS + 1), st.integers(0, _THINGS + 1)), max_size=20
)


@settings(deadline=None)
@given(costs=_COSTS)
def test_no_answer_is_cheaper_and_none_as_cheap_says_yes_less_often(
    costs: list[tuple[int, int, int]],
) -> None:
    choice = Choice()
    ends = [Choice.YES, Choice.NO, *(choice.thing() for _ in range(_THINGS))]
    for cost, one, other in costs:
        choice.pay(cost, if_yes=ends[one], and_no=ends[other])

    def price(yes: frozenset[int]) -> int:
        return sum(cost for cost, one, other in costs if ends[one] in yes and ends[other] not in yes)

    answers = [
        frozenset({Choice.YES, *chosen})
        for size in range(_THINGS + 1)
        for chosen in itertools.combinations(ends[2:], size)
    ]
    found = frozenset(choice.yes())
    assert Choice.NO not in found
    assert price(found) == min(map(price, answers))
    assert all(found <= answer for answer in answers if price(answer) == price(found))


def test_with_nothing_to_pay_everything_is_no() -> None:
    choice = Choice()
    choice.thing()
    assert choice.yes() == {Choice.YES}

"""What libraries say of a model that they cannot read, in one line."""

import re
from pathlib import Path

import pytest

from kerve.compiler.errors import LoadError
from kerve.compiler.sources.load_errors import reporting_load_errors


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Exception encountered: bad thing: y", "bad thing: y"),
        (
            "Exception encountered when calling Mine.call().\n\n\x1b[1mno attribute 'z'\x1b[0m\n\nAll: 1",
            "no attribute 'z'",
        ),
        (
            "Exception encountered when calling layer 'x' (type Mine).\n\nno attribute 'z'\n\nAll: 1",
            "no attribute 'z'",
        ),
        (
            "cannot: \n  (0) no kernel\n  No OpKernel was registered to support Op 'Trees' used by x",
            "No OpKernel was registered to support Op 'Trees' used by x",
        ),
        ("it is odd. So what?\n\nA second paragraph", "it is odd. So what?"),
    ],
)
def test_what_went_wrong_first_is_told(said: str, told: str) -> None:
    with (
        pytest.raises(LoadError, match=re.escape(f"cannot load m.keras: {told};")),
        reporting_load_errors(Path("m.keras")),
    ):
        raise ValueError(said)


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        (
            "Unknown value for `standardize` argument of TextVectorization. Allowed",
            "save the model as .keras",
        ),
        ("maximum recursion depth exceeded in comparison", "load the model in Python with a higher limit"),
        ("Cannot assign to 's/depthwise_kernel:0': Shape mismatch. (3, 1) and (3, 2)", "depth_multiplier"),
        (
            "You cannot add new elements of state to a layer that is already built",
            "check the layer's .built first",
        ),
    ],
)
def test_what_to_do_is_told_by_what_went_wrong(said: str, remedy: str) -> None:
    with pytest.raises(LoadError, match=re.escape(remedy)), reporting_load_errors(Path("m.keras")):
        raise ValueError(said)

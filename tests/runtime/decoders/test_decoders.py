"""Every decoder survives what was found before, and seeds cut and mixed; `make fuzz-python` goes on."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"


def load_targets() -> Any:
    spec = importlib.util.spec_from_file_location("targets", HERE / "targets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


targets = load_targets()

# What a grammar trips over: ends, nesting, numbers at their limits, other types, no Unicode.
PIECES = (
    *(
        b"",
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b"'",
        b":",
        b",",
        b"=",
        b"\n",
        b"\0",
        b"\xff",
        b"-1",
        b"0",
        b"1e999",
    ),
    *(
        b"NaN",
        b"null",
        b"true",
        b"18446744073709551616",
        b"[" * 2000,
        b'{"a":' * 2000,
        b"\\ud800",
        b"../../x",
    ),
)


def seeds(name: str) -> list[bytes]:
    return [file.read_bytes() for file in sorted((CORPUS / name).iterdir())]


@st.composite
def mutated(draw: st.DrawFn, name: str) -> bytes:
    """A seed with pieces of it replaced, at random places, by others."""
    found = seeds(name)
    data = draw(st.sampled_from(found))
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(data)))
        end = min(len(data), begin + draw(st.integers(0, 8)))
        other = draw(st.sampled_from(found))
        cut = draw(st.integers(0, len(other)))
        piece = draw(
            st.one_of(st.sampled_from(PIECES), st.binary(max_size=8), st.just(other[cut : cut + 20]))
        )
        data = data[:begin] + piece + data[end:]
    return data


@pytest.mark.parametrize("name", targets.TARGETS)
def test_what_was_found_before_is_refused_or_taken(name: str) -> None:
    for data in seeds(name):
        targets.run(name, data)


@pytest.mark.parametrize("name", targets.TARGETS)
def test_what_is_cut_and_mixed_is_refused_or_taken(name: str) -> None:
    @settings(max_examples=40)
    @given(data=mutated(name))
    def check(data: bytes) -> None:
        targets.run(name, data)

    check()

"""Which transport serves."""

import pytest

from kerve.runtime import transport
from kerve.runtime.errors import UnavailableError


def test_without_the_wire_grpcio_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "find_spec", lambda _: None)
    assert transport.create_transport("auto").name == "grpcio"
    assert transport.create_transport("grpcio").name == "grpcio"


def test_the_wire_must_be_installed_to_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "find_spec", lambda _: None)
    with pytest.raises(UnavailableError, match="the wire needs the package kerve-wire"):
        transport.create_transport("wire")


def test_with_the_wire_auto_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "find_spec", lambda _: object())
    monkeypatch.setitem(transport.TRANSPORTS, "wire", "builtins:str")
    assert str(transport.create_transport("auto")) == "None"  # str(options)

"""Which transport serves."""

import logging

import pytest

from kerve.runtime import transport
from kerve.runtime.errors import UnavailableError


def test_without_the_wire_grpcio_serves_and_tells_of_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transport, "find_spec", lambda _: None)
    with caplog.at_level(logging.INFO):
        assert transport.create_transport("auto").name == "grpcio"
    assert "pip install ./runtime/wire" in caplog.text
    assert transport.create_transport("grpcio").name == "grpcio"


def test_the_wire_must_be_installed_to_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "find_spec", lambda _: None)
    with pytest.raises(UnavailableError, match="the wire needs the package kerve-wire"):
        transport.create_transport("wire")


def test_with_the_wire_auto_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "find_spec", lambda _: object())
    monkeypatch.setattr(transport, "version", lambda _: "0.1.0")
    monkeypatch.setitem(transport.TRANSPORTS, "wire", "builtins:str")
    assert str(transport.create_transport("auto")) == "None"  # str(options)

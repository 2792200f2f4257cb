"""Transports: the interface (`base`), the portable transport on grpcio, the native one on kerve-wire."""

import logging
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec

from kerve.runtime.errors import UnavailableError
from kerve.runtime.transport.base import Transport, TransportOptions

__all__ = ["automatic", "create_transport"]

log = logging.getLogger(__name__)

TRANSPORTS = {
    "wire": "kerve.runtime.transport.wire:WireTransport",
    "grpcio": "kerve.runtime.transport.grpcio:GrpcioTransport",
}
INSTALL = (
    "with cargo, `pip install ./runtime/wire` in a checkout installs it, and `make wheel` builds its wheel"
)


def automatic() -> tuple[str, str]:
    """Return the transport that `auto` selects (wire if kerve-wire is installed), and the reason."""
    if find_spec("kerve_wire") is None:
        return "grpcio", f"kerve-wire, which is many times faster, is not installed; {INSTALL}"
    return "wire", f"kerve-wire {version('kerve-wire')} is installed"


def create_transport(name: str, options: TransportOptions | None = None) -> Transport:
    """Return the transport of that name, or the `automatic` one for `auto`."""
    if name == "auto":
        name, why = automatic()
        log.info("transport %s: %s", name, why)
    elif name == "wire" and find_spec("kerve_wire") is None:
        raise UnavailableError(f"the wire needs the package kerve-wire: {INSTALL}; or use --transport grpcio")
    module, _, attribute = TRANSPORTS[name].partition(":")
    transport: Transport = getattr(import_module(module), attribute)(options)
    return transport

"""What carries requests: the seam (`base`), the portable transport on grpcio, the fast one on kerve-wire."""

from importlib import import_module
from importlib.util import find_spec

from kerve.runtime.errors import UnavailableError
from kerve.runtime.transport.base import Transport, TransportOptions

__all__ = ["create_transport"]

TRANSPORTS = {
    "wire": "kerve.runtime.transport.wire:WireTransport",
    "grpcio": "kerve.runtime.transport.grpcio:GrpcioTransport",
}


def create_transport(name: str, options: TransportOptions | None = None) -> Transport:
    """Return the transport of that name; `auto` is the wire where kerve-wire is installed, else grpcio."""
    installed = find_spec("kerve_wire") is not None
    if name == "auto":
        name = "wire" if installed else "grpcio"
    if name == "wire" and not installed:
        raise UnavailableError("the wire needs the package kerve-wire; install it, or use --transport grpcio")
    module, _, attribute = TRANSPORTS[name].partition(":")
    transport: Transport = getattr(import_module(module), attribute)(options)
    return transport

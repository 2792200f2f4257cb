"""TLS certificates, in files that are reloaded when they change, for either transport."""

import logging
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc

from kerve.runtime.errors import ArtifactError

__all__ = ["Certificates", "grpcio_credentials"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Certificates:
    """PEM files of a TLS port."""

    key: Path
    chain: Path
    # Roots of client certificates, which are then required; None: not required.
    client_roots: Path | None = None

    def read(self) -> tuple[bytes, bytes, bytes | None]:
        """Return the contents of key, chain and client roots; raises ArtifactError if they cannot be read."""
        with reading():
            roots = self.client_roots.read_bytes() if self.client_roots else None
            return self.key.read_bytes(), self.chain.read_bytes(), roots

    def check(self) -> None:
        """Raise ArtifactError unless they can be used: the transports' own errors are less specific."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            with reading():
                context.load_cert_chain(self.chain, self.key, password="")
        except ssl.SSLError as error:
            raise ArtifactError(
                f"{self.chain} and {self.key} cannot be used for TLS: expected a chain of certificates and "
                f"its private key, as PEM and without a passphrase; OpenSSL says {error.reason}"
            ) from error
        try:
            if self.client_roots is not None:
                with reading():
                    context.load_verify_locations(self.client_roots)
        except ssl.SSLError as error:
            raise ArtifactError(
                f"{self.client_roots} cannot be used to verify clients: expected certificates as PEM; "
                f"OpenSSL says {error.reason}"
            ) from error


@contextmanager
def reading() -> Iterator[None]:
    """Raise ArtifactError for a file that cannot be read."""
    try:
        yield
    except ssl.SSLError:  # an error in the contents, but a subclass of OSError
        raise
    except OSError as error:
        raise ArtifactError(f"a certificate cannot be read: {error}") from error


def grpcio_credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """Return grpcio credentials that follow the files, which are checked before each handshake."""
    certificates.check()
    seen = certificates.read()
    warned = ""

    def configuration() -> grpc.ServerCertificateConfiguration:
        key, chain, roots = seen
        return grpc.ssl_server_certificate_configuration([(key, chain)], roots)

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal seen, warned
        try:
            now = certificates.read()
            if now != seen:
                certificates.check()
        except ArtifactError as error:  # perhaps only partially replaced: the previous ones stay in use
            if str(error) != warned:  # warn once, not at each handshake
                warned = str(error)
                log.warning(
                    "the changed certificates cannot be used, the previous ones stay valid: %s", warned
                )
            return None
        warned = ""
        if now == seen:
            return None
        seen = now
        return configuration()

    required = certificates.client_roots is not None
    return grpc.dynamic_ssl_server_credentials(
        configuration(),
        changed,  # type: ignore[arg-type]  # None means no change; the stubs forget it
        require_client_authentication=required,
    )

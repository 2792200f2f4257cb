"""Connection options of the commands that call a server."""

from dataclasses import dataclass
from pathlib import Path

import click
import grpc

from kerve.cli import options as cli
from kerve.runtime.client import Client

__all__ = ["Connection"]


@dataclass(frozen=True, kw_only=True)
class Connection:
    """The options of a command that calls a server."""

    address: str = cli.option("127.0.0.1:8001", help="Host and port of the server.")
    token: str | None = cli.option(None, help="Bearer token, if the server requires one.")
    root_cert: Path | None = cli.option(
        None, help="PEM root certificates to verify the server's; enables TLS.", type=cli.EXISTING_FILE
    )
    client_cert: Path | None = cli.option(None, help="PEM certificate of the client.", type=cli.EXISTING_FILE)
    client_key: Path | None = cli.option(
        None, help="PEM private key of the client certificate.", type=cli.EXISTING_FILE
    )

    def connect(self) -> Client:
        """Return a client for the server."""
        if not self.address:
            raise click.UsageError("--address: expected the host and port of a server, got nothing")
        if self.address.startswith(("http://", "https://")):
            raise click.UsageError(
                f"--address: expected HOST:PORT of the server's gRPC port, got the URL {self.address!r}"
            )
        if (self.client_cert is None) != (self.client_key is None):
            raise click.UsageError("--client-cert and --client-key must be given together")
        if self.client_cert is not None and self.root_cert is None:
            raise click.UsageError("--client-cert needs --root-cert, which enables TLS")
        if self.root_cert is None:
            return Client(self.address, token=self.token)
        credentials = grpc.ssl_channel_credentials(
            self.root_cert.read_bytes(),
            self.client_key.read_bytes() if self.client_key else None,
            self.client_cert.read_bytes() if self.client_cert else None,
        )
        return Client(self.address, credentials=credentials, token=self.token)

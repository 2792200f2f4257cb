"""Engine options of the commands that take data: a server, or the nodes of a Ray cluster."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kerve.cli import options as cli
from kerve.runtime.commands.connection import Connection

__all__ = ["Engine"]


@dataclass(frozen=True, kw_only=True)
class Engine(Connection):
    """The options of a command that computes on a server or a cluster."""

    engine: Literal["server", "ray"] = cli.option(
        "server",
        help="server: send the rows to a server; ray: compute on the workers of a Ray cluster, which read "
        "the rows and --repository from folders shared by all nodes.",
    )
    # Ignored with a server: container images set KERVE_REPOSITORY for every command.
    repository: Path | None = cli.option(None, help="With --engine ray: the repository that holds the model.")
    ray_address: str | None = cli.option(
        None,
        help="With --engine ray: address of the cluster, as ray.init() takes it; defaults to "
        "RAY_ADDRESS, or else to a temporary local cluster.",
    )

    def check_engine(self, **only_server: object) -> None:
        """Raise ValueError for options that the engine does not support."""
        if self.engine == "server":
            return
        if self.repository is None:
            raise ValueError("--engine ray needs --repository, the folder that holds the model")
        for name, value in only_server.items():
            if value not in (None, ""):
                raise ValueError(f"--{name.replace('_', '-')} cannot be used with --engine ray")

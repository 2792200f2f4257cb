"""States of model versions, with their reasons."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["UNASKED", "State", "Status"]

# Reasons of versions that nobody requested to be loaded.
UNASKED = ("not loaded", "unloaded")


class State(StrEnum):
    """Triton's states of a model version."""

    UNKNOWN = "UNKNOWN"
    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


# Message to clients for a version in such a state.
UNREADY = {State.LOADING: "it is loading", State.UNLOADING: "it is being unloaded"}


@dataclass(frozen=True)
class Status:
    """One entry of the index; version 0 stands for a model that has no known version."""

    name: str
    version: int
    state: State
    reason: str = ""
    # Additional information on a version that is ready.
    remark: str = ""

    @property
    def unready(self) -> str:
        """Why a version is not ready, for clients: without details of the server's files."""
        own = UNREADY.get(self.state)
        return own or (
            f"it is {self.reason}"
            if self.reason in UNASKED
            else "it failed to load; see RepositoryIndex for the reason"
        )

    @property
    def failed(self) -> bool:
        """Whether a problem keeps the version from serving as requested."""
        return self.reason not in ("", *UNASKED)

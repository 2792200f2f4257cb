"""In what state the versions of a model are, and why."""

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["UNASKED", "State", "Status"]

# Reasons of what nobody asks to serve.
UNASKED = ("not loaded", "unloaded")


class State(StrEnum):
    """Triton's states of a model version."""

    UNKNOWN = "UNKNOWN"
    LOADING = "LOADING"
    READY = "READY"
    UNLOADING = "UNLOADING"
    UNAVAILABLE = "UNAVAILABLE"


# What clients hear of a version in such a state.
UNREADY = {State.LOADING: "it is loading", State.UNLOADING: "it is being unloaded"}


@dataclass(frozen=True)
class Status:
    """One line of the index; version 0 stands for a model none of whose versions can be named."""

    name: str
    version: int
    state: State
    reason: str = ""
    # What is worth knowing of a version that serves as it should.
    remark: str = ""

    @property
    def unready(self) -> str:
        """Why a version that is not ready is not, for clients, who need not see what the index says of the
        server's files.
        """
        own = UNREADY.get(self.state)
        return own or (
            f"it is {self.reason}"
            if self.reason in UNASKED
            else "it failed to load; RepositoryIndex says why"
        )

    @property
    def failed(self) -> bool:
        """Whether something keeps the version from serving as it is asked to."""
        return self.reason not in ("", *UNASKED)

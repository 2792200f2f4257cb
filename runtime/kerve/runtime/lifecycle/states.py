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
    def failed(self) -> bool:
        """Whether something keeps the version from serving as it is asked to."""
        return self.reason not in ("", *UNASKED)

"""What is served now: models, their versions, and which version answers when none is named."""

import threading
from collections.abc import Mapping
from typing import Generic, TypeVar

from kerve.runtime.errors import NotFoundError, UnavailableError

__all__ = ["UNKNOWN", "Catalog"]

T = TypeVar("T")

# Triton's words: clients look for them.
UNKNOWN = "Request for unknown model"


class Catalog(Generic[T]):
    """A table from a model's name and a version ("" for the default one) to what answers for it.

    Written by one thread at a time and read by any, without a lock: a write puts a new table in place of
    the old.
    """

    def __init__(self) -> None:
        self._table: Mapping[str, Mapping[str, T]] = {}
        self._writing = threading.Lock()

    def publish(self, name: str, routes: Mapping[str, T]) -> None:
        """Route a model, all its versions at once; without routes it is known but not ready."""
        with self._writing:
            self._table = {**self._table, name: dict(routes)}

    def withdraw(self, name: str) -> None:
        """Forget a model."""
        with self._writing:
            self._table = {known: routes for known, routes in self._table.items() if known != name}

    def names(self) -> list[str]:
        """Return the names of the models that are ready, sorted."""
        return sorted(name for name, routes in self._table.items() if routes)

    def versions(self, name: str) -> list[int]:
        """Return the versions of a model that are ready, ascending."""
        return sorted(int(version) for version in self._table.get(name, {}) if version.isdecimal())

    def find(self, name: str, version: str) -> T:
        """Return what answers; NotFoundError when nothing does, UnavailableError while it is not ready."""
        if name not in self._table:
            available = ", ".join(self.names()) or "no model"
            raise NotFoundError(f"{UNKNOWN}: {name!r} is not found; available: {available}")
        routes = self._table[name]
        if not routes:
            raise UnavailableError(
                f"{UNKNOWN}: {name!r} has no available versions; it is loading, or the server's log says why "
                "not"
            )
        if version not in routes:
            available = ", ".join(str(each) for each in self.versions(name))
            raise NotFoundError(f"{UNKNOWN}: {name!r} version {version} is not found; available: {available}")
        return routes[version]

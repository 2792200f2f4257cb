"""The routing table of served models: versions, labels, and the default version."""

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from kerve.runtime.errors import NotFoundError, UnavailableError

__all__ = ["UNKNOWN", "Catalog", "show_route"]

T = TypeVar("T")
R = TypeVar("R")

# Triton's wording, which clients match.
UNKNOWN = "Request for unknown model"


@dataclass(frozen=True)
class Routes(Generic[T]):
    """The routes of one model's requests."""

    # Route targets by version, label, or "" for the default version.
    ready: Mapping[str, T]
    # Reasons why other known versions and labels are not ready.
    unready: Mapping[str, str]


class Catalog(Generic[T]):
    """A table from a model's name and a version ("" for the default one) to the route target.

    Written by one thread at a time and read by any without a lock: a write replaces the table.
    """

    def __init__(self) -> None:
        self._table: Mapping[str, Routes[T]] = {}
        self._writing = threading.Lock()

    def publish(self, name: str, routes: Mapping[str, T], unready: Mapping[str, str] | None = None) -> None:
        """Set the routes of all versions of a model at once; without routes it is known but not ready.

        `unready`: reasons why further versions are not ready.
        """
        with self._writing:
            self._table = {**self._table, name: Routes(dict(routes), dict(unready or {}))}

    def unpublish(self, name: str) -> None:
        """Remove a model."""
        with self._writing:
            self._table = {known: routes for known, routes in self._table.items() if known != name}

    def names(self) -> list[str]:
        """Return the names of the models that are ready, sorted."""
        return sorted(name for name, routes in self._table.items() if routes.ready)

    def versions(self, name: str) -> list[int]:
        """Return the versions of a model that are ready, ascending."""
        routes = self._table.get(name)
        return sorted(int(version) for version in (routes.ready if routes else ()) if is_version(version))

    def find(self, name: str, version: str) -> T:
        """Return the route target; raises NotFoundError if it is unknown, UnavailableError if not ready."""
        if name not in self._table:
            available = ", ".join(self.names()) or "no model"
            raise NotFoundError(f"{UNKNOWN}: {name!r} is not found; available: {available}")
        routes = self._table[name]
        if version in routes.ready:
            return routes.ready[version]
        if version in routes.unready:
            why = routes.unready[version]
            raise UnavailableError(f"{UNKNOWN}: {name!r} {show_route(version)} is not at ready state: {why}")
        if not routes.ready:
            raise UnavailableError(
                f"{UNKNOWN}: {name!r} has no available versions; it is loading, or failed to load (see the "
                "server's log)"
            )
        labels = sorted(route for route in routes.ready if route and not is_version(route))
        available = ", ".join([*map(str, self.versions(name)), *labels])
        raise NotFoundError(f"{UNKNOWN}: {name!r} {show_route(version)} is not found; available: {available}")

    def ask(self, name: str, version: str, compute: Callable[[T], R]) -> R:
        """Return the result of `compute` for the entry of a version; retry if that is replaced meanwhile."""
        found = self.find(name, version)
        while True:
            try:
                return compute(found)
            except UnavailableError:
                replaced, found = found, self.find(name, version)
                if found is replaced:
                    raise


def show_route(route: str) -> str:
    """Return a version number or a label as shown in messages."""
    return f"version {route}" if is_version(route) else f"label {route!r}"


def is_version(route: str) -> bool:
    """Return whether a route is a version number, not a label."""
    return route.isascii() and route.isdecimal()

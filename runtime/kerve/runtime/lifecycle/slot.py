"""One model: the versions that serve, and the status of the others.

    folder -> policy -> candidates, newest first -> load, verify, warm up -> publish -> retire versions that
    are no longer selected

A version that fails to load is remembered with the fingerprint of its files: it is retried when they change
or when a client requests it. A version serves until its replacement does.
"""

import logging
import threading
from collections.abc import Mapping
from dataclasses import replace

from kerve.runtime.catalog import Catalog
from kerve.runtime.config import Settings
from kerve.runtime.config.effects import without_effect
from kerve.runtime.config.policy import Choice, choose
from kerve.runtime.errors import ArtifactError, ServingError
from kerve.runtime.lifecycle.ensembles import members_fingerprint, start_ensemble
from kerve.runtime.lifecycle.served import Limits, ServedVersion
from kerve.runtime.lifecycle.states import State, Status
from kerve.runtime.repository import Source, fingerprint
from kerve.runtime.transport.base import DEFAULT, Transport

__all__ = ["Slot"]

log = logging.getLogger(__name__)


class Slot:
    """The versions of one model. Thread-safe; `update` and `unload` exclude each other."""

    def __init__(
        self,
        name: str,
        transport: Transport,
        catalog: Catalog[ServedVersion],
        limits: Limits,
        promoted: Mapping[str, int] | None = None,
    ) -> None:
        """`promoted`: the versions to which labels were moved while the model was served earlier."""
        self.name = name
        self._transport = transport
        self._catalog = catalog
        self._limits = limits
        self._updating = threading.Lock()
        # Guards the attributes below.
        self._lock = threading.Lock()
        self._ready: dict[int, ServedVersion] = {}
        self._statuses: dict[int, Status] = {}
        self._failed: dict[int, str] = {}
        self._labels: dict[str, int] = {}
        # The labels set by `promote`, and those of the configuration.
        self._promoted = dict(promoted or {})
        self._configured: Mapping[str, int] = {}
        # Configuration fields without effect that were already logged.
        self._warned: list[str] = []
        # Labels of versions that are not ready, already logged.
        self._dangling: dict[str, str] = {}
        self._retiring: list[threading.Thread] = []
        # Replaced loads that only serve the sequences that began there.
        self._leaving: list[ServedVersion] = []
        # The published routes.
        self._routes: dict[str, ServedVersion] = {}
        # Why other known versions and labels are not ready.
        self._unready: dict[str, str] = {}
        catalog.publish(name, {})
        transport.publish(name, {})

    @property
    def ready(self) -> tuple[ServedVersion, ...]:
        """The versions that are ready, ascending."""
        with self._lock:
            return tuple(served for _, served in sorted(self._ready.items()))

    @property
    def updating(self) -> bool:
        """Whether a version may be loading at the moment."""
        return self._updating.locked()

    @property
    def loads(self) -> tuple[ServedVersion, ...]:
        """All active loads: those that serve, and replaced ones that still have open sequences."""
        with self._lock:
            return (*self._ready.values(), *self._leaving)

    @property
    def labels(self) -> dict[str, int]:
        """The labels of versions that are ready."""
        with self._lock:
            return {label: version for label, version in self._labels.items() if version in self._ready}

    def statuses(self) -> list[Status]:
        """Return the status of every known version, ascending."""
        with self._lock:
            return [
                replace(status, remark=self._ready[version].remark) if version in self._ready else status
                for version, status in sorted(self._statuses.items())
            ]

    def update(self, source: Source, settings: Settings | ServingError, *, retry: bool = False) -> str:
        """Serve what the folder and the settings specify; return the problems as one text, or "".

        `retry`: retry versions that failed earlier.
        """
        with self._updating:
            if source.problem or isinstance(settings, ServingError):
                return self._refuse(source.problem or str(settings))
            self._relabel(settings.labels)
            self._warn(settings)
            choice = choose(settings.config.version_policy, source.versions)
            chosen, problems = self._load_chosen(source, settings, choice, retry=retry)
            missing = [self._missing(version) for version in choice.missing]
            if not chosen:  # otherwise the existing versions serve, as in Triton
                problems += missing
            if not choice.candidates and not choice.missing:
                problems.append(
                    self._refuse(f"{source.folder} contains no version; expected {source.folder}/1")
                )
            if chosen or not source.versions:
                self._keep(chosen)
            self._forget(source, choice)
            self._warn_of_labels(source)
            return "; ".join(problems)

    def _relabel(self, configured: Mapping[str, int]) -> None:
        """Apply the configuration's labels; a promoted label is kept until the configuration changes it."""
        self._promoted = {
            label: version
            for label, version in self._promoted.items()
            if configured.get(label) == self._configured.get(label)
        }
        self._configured = configured
        self._labels = {**configured, **self._promoted}

    def _warn(self, settings: Settings) -> None:
        """Log once which fields of the configuration have no effect."""
        vain = without_effect(settings.config)
        if settings.config.name not in ("", self.name):
            vain.insert(0, f"name ({settings.config.name!r}; the folder's name is used)")
        if vain and vain != self._warned:
            log.warning(
                "model %r: these fields of its configuration have no effect here: %s",
                self.name,
                ", ".join(vain),
            )
        self._warned = vain

    def _warn_of_labels(self, source: Source) -> None:
        """Log once which labels belong to versions that are not ready."""
        if not self._ready:
            return  # the model has other problems, which are reported
        dangling = {
            label: f"{version}, which {'does not serve' if version in source.versions else 'has no folder'}"
            for label, version in self._labels.items()
            if version not in self._ready
        }
        for label, what in sorted(dangling.items() - self._dangling.items()):
            log.warning(
                "model %r: label %r: expected a version that serves (%s), got %s; its requests are refused "
                "until that version serves, or `labels` names another",
                *(self.name, label, ", ".join(map(str, sorted(self._ready))), what),
            )
        self._dangling = dangling

    def unload(self) -> bool:
        """Unload every version; return whether any was ready."""
        with self._updating:
            had = bool(self.ready)
            self._failed.clear()
            self._keep({})
            return had

    def promote(self, label: str, version: int) -> None:
        """Assign a label to a version; raises KeyError if the version is not ready."""
        with self._updating:
            if version not in self._ready:
                raise KeyError(version)
            self._labels[label] = self._promoted[label] = version
            self._publish()

    def wait_until_retired(self, timeout: float | None = None) -> None:
        """Wait for the versions that are being retired."""
        for thread in self._retiring:
            thread.join(timeout)

    def _load_chosen(
        self, source: Source, settings: Settings, choice: Choice, *, retry: bool
    ) -> tuple[dict[int, ServedVersion], list[str]]:
        """Load candidates until enough of them are ready; return these, and the problems."""
        chosen: dict[int, ServedVersion] = {}
        problems: list[str] = []
        for version in choice.candidates:
            if len(chosen) == choice.enough:
                break
            found = "\n".join(
                (
                    settings.fingerprint,
                    fingerprint(source.versions[version]),
                    members_fingerprint(settings.config, self._catalog),
                )
            )
            current = self._ready.get(version)
            if current is not None and current.fingerprint == found:
                chosen[version] = current
            elif self._failed.get(version) == found and not retry:
                problems.append(self._statuses[version].reason)
            elif (problem := self._load(source, settings, version, found)) is not None:
                problems.append(problem)
            if version in self._ready:  # the new load, or the old one, which continues to serve
                chosen[version] = self._ready[version]
        return chosen, problems

    def _load(self, source: Source, settings: Settings, version: int, found: str) -> str | None:
        """Load and publish a version; return the reason if that fails."""
        current = self._ready.get(version)
        if current is None:
            self._set(version, State.LOADING)
        try:
            served = self._start(source, settings, version)
        except Exception as error:  # one version that fails to load must not affect others
            log.error(
                "model %r version %d is not served: %s",
                *(self.name, version, error),
                exc_info=None if isinstance(error, ServingError) else error,
            )
            reason = str(error) or type(error).__name__
            self._failed[version] = found
            if current is None:
                self._set(version, State.UNAVAILABLE, reason)
            elif current.outdated:
                self._drop(current, reason)
            else:
                self._set(
                    version,
                    State.READY,
                    f"the previous load of this version still serves, because reloading failed: {reason}",
                )
            return reason
        served.fingerprint, served.siblings = found, lambda: self.loads
        with self._lock:
            self._leave([current] if current is not None else [])
            self._failed.pop(version, None)
            self._ready[version] = served
            self._statuses[version] = Status(self.name, version, State.READY)
        self._publish()
        if current is not None:
            self._retire(current)
        return None

    def _start(self, source: Source, settings: Settings, version: int) -> ServedVersion:
        if settings.config.HasField("ensemble_scheduling"):
            return start_ensemble(
                self.name, version, source.folder, settings, self._transport, self._limits, self._catalog
            )
        try:
            return ServedVersion.start(
                *(self.name, version, source.versions[version], settings, self._transport, self._limits),
                low_priority=bool(self._catalog.names()),
            )
        except OSError as error:  # files may be removed while they are read, or be unreadable
            raise ArtifactError(f"{source.versions[version]} cannot be loaded: {error}") from error

    def _drop(self, served: ServedVersion, reason: str) -> None:
        """Retire a version that can no longer serve."""
        with self._lock:
            del self._ready[served.version]
        self._set(served.version, State.UNAVAILABLE, reason)
        self._retire(served)

    def _keep(self, chosen: dict[int, ServedVersion]) -> None:
        """Serve these versions and no others."""
        with self._lock:
            dropped = [served for version, served in self._ready.items() if version not in chosen]
            self._ready = dict(chosen)
            self._leave(dropped)
            for served in dropped:
                self._statuses[served.version] = Status(self.name, served.version, State.UNLOADING)
        self._publish()
        for served in dropped:
            self._retire(served)

    def _publish(self) -> None:
        """Route requests: to each version, to each label, and by default to the newest version."""
        with self._lock:
            versions = {str(version): served for version, served in self._ready.items()}
            labels = {name: str(version) for name, version in self._labels.items()}
            routes = {label: versions[version] for label, version in labels.items() if version in versions}
            routes |= versions
            if self._ready:
                routes[DEFAULT] = self._ready[max(self._ready)]
            unready = {
                str(each.version): each.unready
                for each in self._statuses.values()
                if each.version and each.version not in self._ready
            }
            unready |= {
                label: unready.get(each, f"it is a label of version {each}, which does not serve")
                for label, each in labels.items()
                if each not in versions
            }
            loads = (*self._ready.values(), *self._leaving)
        every = routes | {served.route: served for served in loads if served.sequences is not None}
        if every == self._routes and unready == self._unready:
            return  # publishing replaces the tables of all models, too expensive for every poll
        self._routes, self._unready = every, unready
        self._catalog.publish(self.name, routes, unready)
        queues = {route: served.queue for route, served in every.items()}
        self._transport.publish(self.name, queues, unready)

    def _leave(self, gone: list[ServedVersion]) -> None:
        """Let sequences of replaced loads finish there; if no other load replaces them, end them now."""
        self._leaving += [served for served in gone if served.sequences is not None]
        if not self._ready:
            for served in self._leaving:
                assert served.sequences is not None
                served.sequences.close()
            self._leaving.clear()

    def _retire(self, served: ServedVersion) -> None:
        def gone() -> None:
            with self._updating:
                if served in self._leaving:
                    self._leaving.remove(served)
                if self._statuses.get(served.version) == Status(self.name, served.version, State.UNLOADING):
                    self._set(served.version, State.UNAVAILABLE, "unloaded")
                else:
                    self._publish()

        self._retiring = [thread for thread in self._retiring if thread.is_alive()]
        self._retiring.append(served.retire(self._limits.retire_timeout, gone))

    def _refuse(self, reason: str) -> str:
        """Record a problem of the model as a whole; ready versions continue to serve if they can."""
        for served in self.ready:
            if served.outdated:
                self._drop(served, reason)
        with self._lock:
            for version, served in self._ready.items():
                self._statuses[version] = Status(
                    self.name,
                    served.version,
                    State.READY,
                    f"the previous load still serves, because reloading failed: {reason}",
                )
            if not self._ready:
                self._statuses = {0: Status(self.name, 0, State.UNAVAILABLE, reason)}
        self._publish()
        log.error("model %r: %s", self.name, reason)
        return reason

    def _missing(self, version: int) -> str:
        reason = f"version {version} is requested by the version policy, but has no folder"
        if version not in self._ready:
            self._set(version, State.UNAVAILABLE, reason)
        return reason

    def _set(self, version: int, state: State, reason: str = "") -> None:
        with self._lock:
            self._statuses.pop(0, None)
            self._statuses[version] = Status(self.name, version, state, reason)
        self._publish()

    def _forget(self, source: Source, choice: Choice) -> None:
        """Drop the status of versions that neither exist nor are selected nor are in use."""
        with self._lock:
            kept = {0, *source.versions, *choice.missing, *self._ready}
            for version in [version for version in self._statuses if version not in kept]:
                if self._statuses[version].state is State.UNAVAILABLE:
                    del self._statuses[version]
                    self._failed.pop(version, None)
        self._publish()

"""Manager of all models: loads at startup, on request, and when folders change."""

import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from kerve.cli.scratch import Scratch
from kerve.inference import model_config_pb2 as pb
from kerve.runtime.catalog import UNKNOWN, Catalog
from kerve.runtime.config import Settings, SettingsReader
from kerve.runtime.ensemble.scheme import members_of
from kerve.runtime.errors import (
    ArtifactError,
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
    ResourceExhaustedError,
    ServingError,
)
from kerve.runtime.lifecycle.composition import Composition, in_order
from kerve.runtime.lifecycle.load_limit import LoadLimit
from kerve.runtime.lifecycle.served import Limits, ServedVersion
from kerve.runtime.lifecycle.slot import Slot
from kerve.runtime.lifecycle.states import State, Status
from kerve.runtime.lifecycle.upload import write_files
from kerve.runtime.repository import Repository, Source, fingerprint, scan
from kerve.runtime.transport.base import Transport

__all__ = ["ControlMode", "DesiredModel", "ModelManager", "Override"]

log = logging.getLogger(__name__)

T = TypeVar("T")

ControlMode = Literal["none", "poll", "explicit"]


@dataclass(frozen=True)
class DesiredModel:
    """An entry of a client's list of models to serve, with the versions to serve."""

    name: str
    # The folder in which the client expects the model; None: any.
    folder: Path | None
    policy: pb.ModelVersionPolicy
    labels: Mapping[str, int]


@dataclass
class Override:
    """What a client sent to replace a model's configuration or its whole folder."""

    config: str | None = None
    # Fingerprint of the model's folder at the time; None if the override does not depend on the folder.
    found: str | None = None
    folder: Scratch | None = None
    desired: DesiredModel | None = None

    def settings(self, folder: Path, reader: SettingsReader) -> Settings:
        """Return the settings in a model's folder, with the overrides applied."""
        settings = reader.read(folder, self.config)
        if self.desired is None:
            return settings
        config = pb.ModelConfig.FromString(settings.config.SerializeToString())
        config.version_policy.CopyFrom(self.desired.policy)
        return replace(settings, config=config, labels=self.desired.labels)


class ModelManager:
    """Loads and unloads the models of the repositories. Methods are thread-safe."""

    def __init__(
        self,
        repositories: Sequence[Repository],
        transport: Transport,
        catalog: Catalog[ServedVersion],
        *,
        mode: ControlMode = "none",
        limits: Limits | None = None,
        load_threads: int = 4,
        max_models: int = 0,
        promoted: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        """`max_models`: how many may be loaded at a time; 0: unlimited. `promoted`: the versions to which
        labels were moved earlier, by model and label.
        """
        self.mode = mode
        self._repositories = repositories
        self._transport = transport
        self._catalog = catalog
        self._limits = limits or Limits()
        self._pool = ThreadPoolExecutor(load_threads, "load")
        # These mappings are replaced, never mutated: readers need no lock and see a consistent snapshot.
        # Writers hold the lock.
        self._lock = threading.Lock()
        self._slots: Mapping[str, Slot] = {}
        self._overrides: Mapping[str, Override] = {}
        self._composition = Composition()
        self._load_limit = LoadLimit(max_models, lambda: {served.name for served in self.served()})
        self._promoted = promoted or {}
        self._reader = SettingsReader()
        self._closed = False

    def announce(self) -> list[str]:
        """Register the names of all models, so that requests for them fail as not ready, not as unknown."""
        names = list(scan(self._repositories))
        for name in names:
            self._slot(name)
        return names

    def load_all(self, names: Iterable[str]) -> None:
        """Load models, several at a time; errors are reported in the index and the log."""
        sources = scan(self._repositories)
        for name in set(names) - sources.keys():
            log.error("model %r is not in a repository", name)
        self._update_all(sources, [name for name in names if name in sources])

    def refresh(self) -> None:
        """Rescan the folders: load new and changed models, unload removed ones.

        With explicit control, only models that are loaded are checked.
        """
        sources = scan(self._repositories)
        self._reader.forget_others({source.folder for source in sources.values()})
        known = self._slots
        sent = {name for name, override in self._overrides.items() if override.folder is not None}
        for name in known.keys() - sources.keys() - sent:
            self._remove(name)
        wanted = set(sources)
        if self.mode == "explicit":
            wanted &= {name for name, slot in known.items() if slot.ready}
        self._update_all(sources, wanted)

    def load(self, name: str, *, config: str | None = None, files: Mapping[str, bytes] | None = None) -> None:
        """Load or reload a model for a client; raises a ServingError if it cannot be served as requested.

        `config`: JSON to use instead of the model's configuration; `files`: contents by `<version>/<path>`,
        to use instead of the model's folder. As in Triton, a configuration sent earlier remains in effect
        until the folder changes or the model is unloaded.
        """
        self._check_explicit()
        override = Override(config)
        if files:
            if config is None:
                raise InvalidArgumentError("parameters 'file:...' also need parameter 'config'")
            source, override.folder = write_files(name, files)
        elif (found := scan(self._repositories).get(name)) is not None:
            source = found
            override.found = fingerprint(source.folder)
            sent = self._overrides.get(name)
            if config is None and sent is not None and sent.found == override.found:
                override = sent
        else:
            raise NotFoundError(
                f"failed to load {name!r}, failed to poll from model repository: it is in no repository"
            )
        self._bring(source, scan(self._repositories), override)
        self._composition.brought.discard(name)
        try:
            with self._load_limit.reserve(name):
                problem = self._update(source, override, retry=True)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(f"failed to load {name!r}: {error}") from error
        self._follow_members()
        if problem:
            raise ArtifactError(f"load failed for model {name!r}: {problem}")

    def unload(self, name: str, *, dependents: bool = False) -> None:
        """Unload a model for a client, if it is served; requests already accepted are completed.

        Ensembles that contain it become not ready. `dependents`: also unload the members of an ensemble,
        unless they were loaded explicitly or another ensemble needs them.
        """
        self._check_explicit()
        slot = self._slots.get(name)
        served = slot is not None and (slot.unload() or slot.statuses())
        if not served and name not in scan(self._repositories):
            raise NotFoundError(f"model {name!r} is not loaded here, and is in no repository")
        self._forget_override(name)
        for member in self._composition.forget(name):
            if dependents:
                self.unload(member, dependents=True)
        self._follow_members()

    def replace(self, models: Sequence[DesiredModel]) -> None:
        """Serve exactly the models of a client's list; raises a ServingError if any cannot be served."""
        self._check_explicit()
        sources = scan(self._repositories)
        for model in models:
            if model.name not in sources:
                raise NotFoundError(f"model {model.name!r} is not in a repository of this server")
            found = sources[model.name].folder
            if model.folder is not None and model.folder.resolve() != found.resolve():
                raise InvalidArgumentError(
                    f"model {model.name!r}: base_path: expected {found}, got {model.folder}; "
                    "models are served from the repositories that the server was started with"
                )
        names = {model.name for model in models}
        for name, slot in self._slots.items():
            if name not in names:
                slot.unload()
                self._forget_override(name)
                self._composition.forget(name)
        self._composition.brought.clear()
        overrides = {model.name: Override(desired=model) for model in models}
        members = {name: self._members(sources[name], override) for name, override in overrides.items()}
        problems = {
            name: self._update(sources[name], overrides[name], retry=True) for name in in_order(members)
        }
        self._follow_members()
        if any(problems.values()):
            raise ArtifactError(
                "; ".join(f"model {name!r}: {each}" for name, each in problems.items() if each)
            )

    def promote(self, name: str, label: str, version: int) -> None:
        """Assign a label to a version that is ready, until the model's settings assign it to another."""
        slot = self._slots.get(name)
        try:
            if slot is None:
                raise KeyError(name)
            slot.promote(label, version)
        except KeyError as error:
            raise NotFoundError(f"model {name!r} has no ready version {version}") from error

    def index(self) -> list[Status]:
        """Return the state of every version of every model, by name and version."""
        lines: list[Status] = []
        names = scan(self._repositories).keys() | self._slots.keys()
        for name in sorted(names):
            slot = self._slots.get(name)
            statuses = slot.statuses() if slot else []
            lines += statuses or [Status(name, 0, State.UNAVAILABLE, "not loaded")]
        return lines

    def served(self, name: str = "", version: str = "") -> list[ServedVersion]:
        """Return the ready versions: of all models, of one model, or a single one.

        Raises NotFoundError if the named model or version is not ready.
        """
        if version:
            return [self._catalog.find(name, version)]
        if name:
            self._catalog.find(name, "")
            slot = self._slots.get(name)
            return list(slot.ready) if slot else []
        return [served for _, slot in sorted(self._slots.items()) for served in slot.ready]

    def labels(self, name: str) -> dict[str, int]:
        """Return the labels of a model's versions."""
        slot = self._slots.get(name)
        return slot.labels if slot else {}

    def statuses(self, name: str) -> list[Status]:
        """Return the state of every version of a model; raises NotFoundError if the model is unknown."""
        slot = self._slots.get(name)
        if slot is None:
            raise NotFoundError(f"{UNKNOWN}: {name!r} is not found")
        return slot.statuses()

    def close(self) -> None:
        """Stop loading models and accepting requests; accepted requests are still processed."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)
        for each in self.served():
            each.drain()

    @property
    def loading(self) -> bool:
        """Whether a version may be loading at the moment; its computations cannot be interrupted."""
        return any(slot.updating for slot in self._slots.values())

    def stop(self, end: float) -> bool:
        """Close and finish accepted requests until `end` (`time.monotonic()`); return whether all are."""
        self.close()
        # Ensembles first: their accepted requests still need their members.
        deepest_first = sorted(self.served(), key=lambda each: each.depth, reverse=True)
        unfinished = [each for each in deepest_first if not each.stop(end)]
        return not unfinished

    def _slot(self, name: str) -> Slot:
        with self._lock:
            if (slot := self._slots.get(name)) is None:
                slot = Slot(name, self._transport, self._catalog, self._limits, self._promoted.get(name))
                self._slots = {**self._slots, name: slot}
            return slot

    def _forget_override(self, name: str) -> None:
        with self._lock:
            self._overrides = without(self._overrides, name)

    def _each(self, work: Callable[[str], object], names: Iterable[str]) -> None:
        """Run `work` for several models in parallel; an exception is logged and does not affect others."""

        def guarded(name: str) -> None:
            try:
                if not self._closed:
                    work(name)
            except Exception:  # one model must not keep others from being served, nor end the poller
                log.exception("model %r could not be updated", name)

        for future in [self._pool.submit(guarded, name) for name in names]:
            future.result()

    def _update(self, source: Source, override: Override | None = None, *, retry: bool = False) -> str:
        """Update one model to match its folder; return the problems as text."""
        own = override or self._overrides.get(source.name, Override())
        if own.folder is not None and override is None:
            return ""  # a client's files replace the folder
        settings: Settings | ServingError
        try:
            settings = own.settings(source.folder, self._reader)
            self._composition.add(source, settings.config)
        except InvalidArgumentError:
            raise
        except ServingError as error:
            settings = error
        slot = self._slot(source.name)
        try:
            with self._load_limit.reserve(source.name):
                problem = slot.update(source, settings, retry=retry)
        except ResourceExhaustedError as error:
            problem = slot.update(source, error)
        if override is not None and not problem:
            with self._lock:
                self._overrides = {**self._overrides, source.name: override}
        return problem

    def _follow_members(self) -> None:
        """Bind every ensemble to the current versions of its members."""
        for source in self._composition.sources():
            self._update(source, self._overrides.get(source.name))

    def _update_all(self, sources: Mapping[str, Source], names: Iterable[str]) -> None:
        """Update models to match their folders: several at a time, then the ensembles that contain them."""
        members = {name: self._members(sources[name]) for name in names}
        self._composition.brought -= members.keys()
        for name in [name for name in members if members[name] and self.mode == "explicit"]:
            self._bring(sources[name], sources)
        self._each(lambda name: self._update(sources[name]), [name for name in members if not members[name]])
        for name in in_order({name: each for name, each in members.items() if each}):
            self._each(lambda name: self._update(sources[name]), [name])
        self._follow_members()

    def _bring(self, source: Source, sources: Mapping[str, Source], override: Override | None = None) -> None:
        """Load the members of an ensemble that are not ready, recursively, as Triton does."""
        below: dict[str, tuple[str, ...]] = {}
        left = list(self._members(source, override))
        while left:
            if (name := left.pop()) in sources and name not in below and name != source.name:
                below[name] = self._members(sources[name])
                left += below[name]
        for name in in_order(below):
            slot = self._slots.get(name)
            if name in below and not (slot and slot.ready):
                self._composition.brought.add(name)
                self._each(lambda name: self._update(sources[name], retry=True), [name])

    def _members(self, source: Source, override: Override | None = None) -> tuple[str, ...]:
        """Return the members of an ensemble; empty for other models and unreadable configurations."""
        own = override or self._overrides.get(source.name, Override())
        try:
            return tuple(members_of(own.settings(source.folder, self._reader).config))
        except ServingError:  # reported when the model is loaded
            return ()

    def _remove(self, name: str) -> None:
        """Unload and forget a model whose folder was removed."""
        log.info("model %r was removed from the repository", name)
        self._composition.forget(name)
        self._slots[name].unload()
        self._catalog.unpublish(name)
        self._transport.unpublish(name)
        with self._lock:
            self._slots = without(self._slots, name)

    def _check_explicit(self) -> None:
        if self.mode != "explicit":
            raise FailedPreconditionError(
                f"models are not loaded on request with --model-control-mode {self.mode}; "
                "start the server with --model-control-mode explicit"
            )


def without(known: Mapping[str, T], name: str) -> dict[str, T]:
    """Return a copy of a mapping without one name."""
    return {each: value for each, value in known.items() if each != name}

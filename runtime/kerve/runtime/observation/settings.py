"""Triton's trace settings, global and per model: given at startup, changed at run time.

Settings that a model does not have are taken from the global ones, and those that these do not have, from
startup (Triton's protocol extension "trace").
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from kerve.runtime.errors import InvalidArgumentError, UnimplementedError

__all__ = ["TraceSettings", "initial_settings"]

Values = tuple[str, ...]
Settings = Mapping[str, Values]

DEFAULTS: Settings = {
    "trace_level": ("OFF",),
    "trace_rate": ("1000",),
    "trace_count": ("-1",),
    "log_frequency": ("0",),
    "trace_file": ("",),
    "trace_mode": ("triton",),
}
# MIN and MAX are former names of TIMESTAMPS.
LEVELS = ("OFF", "TIMESTAMPS", "MIN", "MAX")

# The keys of Triton's --trace-config, and their settings.
CONFIG_KEYS = {
    "level": "trace_level",
    "rate": "trace_rate",
    "count": "trace_count",
    "triton,file": "trace_file",
    "triton,log-frequency": "log_frequency",
}


def check_level(values: Values) -> None:
    """Raise an error for unsupported levels."""
    if "TENSORS" in values:
        raise UnimplementedError("trace_level: TENSORS is not supported: tensors are not written to traces")
    if wrong := [each for each in values if each not in LEVELS]:
        raise InvalidArgumentError(f"trace_level: expected OFF or TIMESTAMPS, got {wrong[0]!r}")


def at_least(name: str, least: int) -> Callable[[Values], None]:
    """Return a check that a setting is one number, not below a limit."""

    def check(values: Values) -> None:
        try:
            (value,) = values
            good = int(value) >= least
        except ValueError:
            good = False
        if not good:
            raise InvalidArgumentError(
                f"{name}: expected a number, {least} at least, got {', '.join(values)!r}"
            )

    return check


def refuse(name: str, reason: str) -> Callable[[Values], None]:
    """Return a check that refuses every change of a setting."""

    def check(_: Values) -> None:
        raise UnimplementedError(f"{name}: {reason}")

    return check


# The checks of settings that clients send.
CHECKS: Mapping[str, Callable[[Values], None]] = {
    "trace_level": check_level,
    "trace_rate": at_least("trace_rate", 1),
    "trace_count": at_least("trace_count", -1),
    "log_frequency": at_least("log_frequency", 0),
    # As in Triton: clients that may change settings must not choose where this process writes.
    "trace_file": refuse(
        "trace_file",
        "trace file location can not be updated through network protocol: "
        "it is set at the start, by --trace-config triton,file=PATH",
    ),
    "trace_mode": refuse(
        "trace_mode",
        "it cannot be changed; OpenTelemetry has its own options (--trace-ratio, --trace-endpoint)",
    ),
}


def initial_settings(options: Sequence[str]) -> Settings:
    """Return the settings in values of Triton's `--trace-config`; raises ValueError for an invalid one."""
    settings = dict(DEFAULTS)
    for option in options:
        key, _, value = option.partition("=")
        if key == "mode" and value == "opentelemetry":
            raise ValueError("--trace-config mode=opentelemetry: use --trace-ratio and --trace-endpoint")
        if key == "mode" and value == "triton":
            continue
        if key not in CONFIG_KEYS:
            raise ValueError(
                f"--trace-config {option}: expected KEY=VALUE with one of the keys {', '.join(CONFIG_KEYS)}"
            )
        name = CONFIG_KEYS[key]
        if name != "trace_file":
            try:
                CHECKS[name]((value,))
            except (InvalidArgumentError, UnimplementedError) as error:
                raise ValueError(f"--trace-config {option}: {error}") from error
        settings[name] = (value,)
    if settings["trace_level"] != ("OFF",) and not settings["trace_file"][0]:
        raise ValueError("--trace-config level: traces need a file too: --trace-config triton,file=PATH")
    return settings


@dataclass
class Scope:
    """Settings of one model, or the global ones, with the counts of requests seen and traced under them."""

    own: dict[str, Values]
    seen: int = 0
    traced: int = 0


class TraceSettings:
    """All trace settings; thread-safe."""

    def __init__(self, initial: Settings = DEFAULTS) -> None:
        self._initial = initial
        self._global = Scope({})
        self._models: dict[str, Scope] = {}
        self._lock = threading.Lock()

    def read(self, model: str = "") -> dict[str, Values]:
        """Return the settings in effect for a model, or the global ones; `trace_count` is what remains."""
        with self._lock:
            return self._read(self._scope(model))

    def change(self, model: str, changes: Mapping[str, Sequence[str]]) -> dict[str, Values]:
        """Change settings of a model, or the global ones: all or, on error, none; no value clears a setting.

        Returns the new settings.
        """
        for name, values in changes.items():
            if name not in CHECKS:
                raise InvalidArgumentError(
                    f"unknown trace setting {name!r}; expected one of {', '.join(CHECKS)}"
                )
            if values:
                CHECKS[name](tuple(values))
        with self._lock:
            before = self._models.get(model) if model else self._global
            own = dict(before.own) if before else {}
            for name, values in changes.items():
                own.pop(name, None)
                if values:
                    own[name] = tuple(values)
            changed = Scope(own)
            found = self._read(changed)
            if found["trace_level"] != ("OFF",) and not found["trace_file"][0]:
                raise InvalidArgumentError(
                    "trace_level: there is no file to write traces to; "
                    "start the server with --trace-config triton,file=PATH"
                )
            if not model:
                self._global = changed
            elif own:
                self._models[model] = changed
            else:
                self._models.pop(model, None)
            return self._read(self._scope(model))

    @property
    def active(self) -> bool:
        """Whether any request may have to be traced."""
        with self._lock:
            return any(self._traces(scope) for scope in (self._global, *self._models.values()))

    def take(self, model: str) -> dict[str, Values] | None:
        """Count a request of a model; return the settings under which it is traced, or None."""
        with self._lock:
            scope = self._scope(model)
            if not self._traces(scope):
                return None
            found = self._read(scope)
            scope.seen += 1
            if scope.seen % int(found["trace_rate"][0]):
                return None
            scope.traced += 1
            return found

    def _traces(self, scope: Scope) -> bool:
        found = self._read(scope)
        return found["trace_level"] != ("OFF",) and found["trace_count"] != ("0",)

    def _scope(self, model: str) -> Scope:
        return self._models.get(model, self._global)

    def _read(self, scope: Scope) -> dict[str, Values]:
        found = {**self._initial, **self._global.own, **scope.own}
        if (count := int(found["trace_count"][0])) > 0:
            found["trace_count"] = (str(max(0, count - scope.traced)),)
        return found

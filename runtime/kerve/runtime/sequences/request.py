"""The sequence parameters of a request, as in Triton: `sequence_id`, `sequence_start`, `sequence_end`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kerve.runtime.errors import InvalidArgumentError

__all__ = ["Identity", "SequencePosition", "position_of"]

# Numbers and strings are different ids, even if they look the same.
Identity = int | str

# Maximum bytes of a string id, as in Triton.
LONGEST = 128


@dataclass(frozen=True)
class SequencePosition:
    """A request's position in its sequence."""

    identity: Identity
    start: bool = False
    end: bool = False


def position_of(parameters: Mapping[str, Any]) -> SequencePosition | None:
    """Return a request's position in its sequence; None if it belongs to none, as with the id 0 or ""."""
    identity = parameters.get("sequence_id")
    if identity is not None and (isinstance(identity, bool) or not isinstance(identity, (int, str))):
        raise InvalidArgumentError(
            f"invalid value type for 'sequence_id' parameter, expected int64_param or string_param, "
            f"got {identity!r}"
        )
    flags = {name: parameters.get(name, False) for name in ("sequence_start", "sequence_end")}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise InvalidArgumentError(
                f"invalid value type for {name!r} parameter, expected bool_param, got {value!r}"
            )
    if not identity:
        return None
    if isinstance(identity, str) and len(identity.encode()) > LONGEST:
        raise InvalidArgumentError(f"sequence_id: expected at most {LONGEST} bytes, got {identity[:20]!r}...")
    return SequencePosition(identity, flags["sequence_start"], flags["sequence_end"])

"""Progress display of an evaluation in a notebook."""

from collections.abc import Mapping
from typing import Any

from kerve.cli.notebook import bar, cell
from kerve.runtime.evaluation.client import Evaluated, Progress, shown

__all__ = ["watched"]

# Seconds between intermediate results.
INTERVAL = 0.5


def watched(x: Any, interval: float, progress: Progress | None) -> tuple[float, Progress | None]:
    """Return the interval and callback for intermediate results: by default a display in a notebook."""
    if progress is not None or (show := cell()) is None:
        return interval, progress
    first = next(iter(x.values()), ()) if isinstance(x, Mapping) else x
    total = len(first) if hasattr(first, "__array__") else None
    versions: dict[str, Evaluated] = {}

    def told(so_far: Evaluated) -> None:
        versions[so_far.version] = so_far
        lines = (
            bar(
                f"{each.model}, version {each.version}",
                each.rows,
                each.rows if each.final else total,
                f"{each.rows:,} rows, "
                + ", ".join(f"{name} {shown(value)}" for name, value in each.results.items()),
            )
            for each in versions.values()
        )
        show("".join(lines))

    return interval or INTERVAL, told

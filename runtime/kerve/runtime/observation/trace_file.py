"""Traces of requests, in files of Triton's JSON format, which its `trace_summary.py` reads.

A file is a valid JSON array at any time, so it can be read while the server runs.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from kerve.runtime.observation.observer import Observation
from kerve.runtime.observation.settings import TraceSettings

__all__ = ["TraceFiles"]

log = logging.getLogger(__name__)

INFERENCE = ("ModelInfer", "ModelStreamInfer", "Predict")


class TraceFiles:
    """Writes the traces that the settings select."""

    traced = None

    def __init__(self, settings: TraceSettings) -> None:
        self._settings = settings
        self._count = 0
        # Files that this process has created; and, by the file name in the settings, the traces since its
        # last numbered file, and the number of the next one.
        self._begun: set[Path] = set()
        self._held: dict[str, list[object]] = {}
        self._numbers: dict[str, int] = {}

    @property
    def everything(self) -> bool:
        """Whether every request must be observed, so that the settings can select some."""
        return self._settings.active

    def notify(self, observations: Sequence[Observation]) -> None:
        """Write the traces that the settings select."""
        found: dict[str, list[object]] = {}
        for each in observations:
            if each.method.rpartition("/")[2] in INFERENCE and (settings := self._settings.take(each.model)):
                self._count += 1
                name, frequency = settings["trace_file"][0], int(settings["log_frequency"][0])
                if frequency:
                    self._hold(name, trace(self._count, each), frequency)
                else:
                    found.setdefault(name, []).extend(trace(self._count, each))
        for name, entries in found.items():
            self._write(Path(name), entries)

    def close(self) -> None:
        """Write the traces that are held back."""
        for name, entries in self._held.items():
            self._write(Path(name), entries)

    def _hold(self, name: str, entries: Iterator[object], frequency: int) -> None:
        held = self._held.setdefault(name, [])
        held.extend(entries)
        if len(held) >= 2 * frequency:
            number = self._numbers.get(name, 0)
            self._numbers[name] = number + 1
            self._write(Path(f"{name}.{number}"), self._held.pop(name))

    def _write(self, file: Path, entries: Sequence[object]) -> None:
        text = ",\n".join(json.dumps(entry) for entry in entries)
        if not text:
            return
        new = file.with_name(f".{file.name}.new")  # renamed when complete, for concurrent readers
        try:
            if file in self._begun and file.exists():
                with file.open("r+b") as stream:
                    stream.seek(-2, 2)  # overwrite the end of the array
                    stream.write(f",\n{text}]\n".encode())
            else:
                new.write_text(f"[{text}]\n")
                new.replace(file)
                self._begun.add(file)
        except OSError as error:
            log.error("the traces cannot be written to %s: %s", file, error)
            new.unlink(missing_ok=True)


def trace(number: int, each: Observation) -> Iterator[Mapping[str, object]]:
    """Yield the entries of one request.

    Batches are assembled and split in parallel to the computation; their time is not measured.
    """
    yield {
        "id": number,
        "model_name": each.model,
        "model_version": int(each.version) if each.version.isdecimal() else -1,
        "request_id": each.request_id,
    }
    moments = {"REQUEST_START": 0, "QUEUE_START": 0}
    if each.queued is not None and each.computed is not None:
        done = each.queued + each.computed
        moments |= {
            "COMPUTE_START": each.queued,
            "COMPUTE_INPUT_END": each.queued,
            "COMPUTE_OUTPUT_START": done,
            "COMPUTE_END": done,
        }
    moments["REQUEST_END"] = each.total
    yield {
        "id": number,
        "timestamps": [{"name": name, "ns": each.arrived + after} for name, after in moments.items()],
    }

"""Finished evaluations, recorded in an SQLite database in the repository."""

import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import json_format

from kerve.evaluation.v1 import evaluation_pb2 as pb

if TYPE_CHECKING:
    import sqlite3

__all__ = ["FILE", "Finished", "History"]

#: Name of the database within a repository.
FILE = ".evaluations.sqlite"

USUAL_LIMIT = 100

SCHEMA = """
CREATE TABLE IF NOT EXISTS evaluations (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time TEXT NOT NULL,
    peer TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    hardware TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    results TEXT NOT NULL,
    artifact TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS by_model ON evaluations (model, version, id);
CREATE TABLE IF NOT EXISTS decisions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    time TEXT NOT NULL,
    peer TEXT NOT NULL,
    model TEXT NOT NULL,
    version TEXT NOT NULL,
    label TEXT NOT NULL,
    promoted INTEGER NOT NULL,
    requirements TEXT NOT NULL
);
"""


#: Columns that older databases lack.
LATER = {"artifact": "TEXT NOT NULL DEFAULT ''"}


@dataclass(frozen=True)
class Finished:
    """A completed evaluation."""

    peer: str
    #: Fingerprint of the data.
    fingerprint: str
    #: The hardware that computed it.
    hardware: str
    results: pb.Results
    #: Identity of the version's artifact: another artifact may have the same number later.
    artifact: str = ""


class History:
    """The database of evaluations and promotions; thread-safe, created on the first write."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._writing = threading.Lock()

    def add(self, *finished: Finished) -> None:
        """Record evaluations, all of them or none; raises OSError on failure."""
        rows = [
            (
                now(),
                each.peer,
                each.fingerprint,
                each.hardware,
                each.results.model,
                each.results.version,
                json.dumps(json_format.MessageToDict(each.results, preserving_proto_field_name=True)),
                each.artifact,
            )
            for each in finished
        ]
        with self._writing, self._open() as database:
            database.executemany(
                "INSERT INTO evaluations "
                "(time, peer, fingerprint, hardware, model, version, results, artifact) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    def decided(self, peer: str, request: pb.PromoteRequest, response: pb.PromoteResponse) -> int:
        """Record the decision on a promotion with its reasons; return its id."""
        reasons = json_format.MessageToDict(response, preserving_proto_field_name=True)
        row = (
            now(),
            peer,
            request.model,
            request.version,
            request.label,
            int(response.promoted),
            json.dumps(reasons.get("requirements", [])),
        )
        with self._writing, self._open() as database:
            added = database.execute(
                "INSERT INTO decisions (time, peer, model, version, label, promoted, requirements) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                row,
            )
            return int(added.lastrowid or 0)

    def not_moved(self, decision: int) -> None:
        """Record that a label was not moved despite the decision: a restarted server would move it."""
        with self._writing, self._open() as database:
            database.execute("UPDATE decisions SET promoted = 0 WHERE id = ?", (decision,))

    def list(self, model: str = "", version: str = "", limit: int = 0, artifact: str = "") -> list[pb.Record]:
        """Return the newest evaluations, filtered by model, version and artifact if given."""
        if not self._file.exists():
            return []
        with self._open() as database:
            rows = database.execute(
                "SELECT id, time, peer, fingerprint, hardware, results FROM evaluations "
                "WHERE ? IN ('', model) AND ? IN ('', version) AND ? IN ('', artifact) "
                "ORDER BY id DESC LIMIT ?",
                (model, version, artifact, limit or USUAL_LIMIT),
            ).fetchall()
        return [
            pb.Record(
                id=number,
                time=time,
                peer=peer,
                data_fingerprint=fingerprint,
                hardware=machine,
                results=json_format.ParseDict(json.loads(results), pb.Results(), ignore_unknown_fields=True),
            )
            for number, time, peer, fingerprint, machine, results in rows
        ]

    def promoted(self) -> dict[str, dict[str, int]]:
        """Return the versions to which labels were last moved, by model and label."""
        found: dict[str, dict[str, int]] = {}
        if self._file.exists():
            with self._open() as database:
                rows = database.execute(
                    "SELECT model, label, version FROM decisions WHERE promoted ORDER BY id"
                )
                for model, label, version in rows:
                    found.setdefault(model, {})[label] = int(version)
        return found

    @contextmanager
    def _open(self) -> Iterator["sqlite3.Connection"]:
        import sqlite3  # imported only if used

        try:
            with closing(sqlite3.connect(self._file, timeout=10.0)) as database, database:
                database.executescript(SCHEMA)
                known = {column for _, column, *_ in database.execute("PRAGMA table_info(evaluations)")}
                for column in LATER.keys() - known:
                    database.execute(f"ALTER TABLE evaluations ADD COLUMN {column} {LATER[column]}")
                yield database
        except sqlite3.Error as error:
            raise OSError(f"{self._file}: {error}") from error


def now() -> str:
    """Return the current time in RFC 3339 format."""
    return datetime.now(UTC).isoformat(timespec="seconds")

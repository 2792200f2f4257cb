"""Finished evaluations, kept in a small database beside the models."""

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


#: What databases lack that were made before there was such a column.
LATER = {"artifact": "TEXT NOT NULL DEFAULT ''"}


@dataclass(frozen=True)
class Finished:
    """An evaluation that ran to its end."""

    peer: str
    #: Of the data.
    fingerprint: str
    #: What computed.
    hardware: str
    results: pb.Results
    #: What the version was: its number may be another model's by now.
    artifact: str = ""


class History:
    """A database; threads may share it, and it is made when the first evaluation ends."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._writing = threading.Lock()

    def add(self, *finished: Finished) -> None:
        """Keep evaluations, all of them or none; raises OSError when that cannot be."""
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
        """Keep a decision about a promotion, and its reasons; return its number."""
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
        """Keep that a label was not moved, though that was decided: a server that starts would move it."""
        with self._writing, self._open() as database:
            database.execute("UPDATE decisions SET promoted = 0 WHERE id = ?", (decision,))

    def list(self, model: str = "", version: str = "", limit: int = 0, artifact: str = "") -> list[pb.Record]:
        """Return the newest evaluations, of one model, version and artifact where they are given."""
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
        """Return the versions that labels were last moved to, by model and label."""
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
        import sqlite3  # a server that evaluates nothing starts without it

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
    """Return the time as RFC 3339 has it."""
    return datetime.now(UTC).isoformat(timespec="seconds")

"""Bearer tokens, stored as hashes in a file that is reloaded when it changes.

One token per line: its SHA-256 in hexadecimal, its permissions, and a comment, such as its owner:

    9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08  infer,read  the web shop
"""

import hashlib
import logging
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from kerve.runtime.errors import ArtifactError, PermissionDeniedError, ServingError, UnauthenticatedError
from kerve.runtime.security.permissions import Permission

__all__ = ["Authority", "Tokens", "read_tokens"]

log = logging.getLogger(__name__)

Tokens = Mapping[bytes, frozenset[Permission]]

LINE = re.compile(r"(?P<hash>[0-9a-fA-F]{64})\s+(?P<permissions>[a-z,]+)(\s.*)?")
# Seconds between two checks of the file.
INTERVAL = 1.0


def read_tokens(file: Path) -> Tokens:
    """Return the permissions of each token by hash; raises ArtifactError if the file is invalid."""
    tokens: dict[bytes, frozenset[Permission]] = {}
    try:
        lines = file.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ArtifactError(f"the tokens in {file} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.fullmatch(line.strip())
        try:
            if match is None:
                raise ValueError
            permissions = frozenset(Permission(each) for each in match["permissions"].split(","))
        except ValueError as error:
            raise ArtifactError(
                f"{file}, line {number}: expected the SHA-256 of a token and its permissions "
                f"({', '.join(Permission)}, separated by commas), as in `9f86...0a08 infer,read`"
            ) from error
        tokens[bytes.fromhex(match["hash"])] = permissions
    return tokens


class Authority:
    """Checks the permissions of calls. Without a file, everything is permitted."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        # Taken before reading, so that a concurrent change is noticed.
        self._seen = stamp(file) if file else None
        self._tokens: Tokens | None = read_tokens(file) if file else None
        self._changed: list[Callable[[Tokens], None]] = []

    def follow(self, changed: Callable[[Tokens], None]) -> None:
        """Call `changed` with the tokens now, if tokens are required, and whenever the file changes."""
        self._changed.append(changed)
        if self._tokens is not None:
            changed(self._tokens)

    def watch(self, stop: threading.Event) -> None:
        """Watch the file in a separate thread until `stop` is set."""
        if self._file is not None:
            threading.Thread(target=self._watch, args=(self._file, stop), name="tokens", daemon=True).start()

    def check(self, needed: Permission | None, authorization: str | bytes | None) -> None:
        """Check that the value of an `authorization` header has the required permission.

        Raises UnauthenticatedError or PermissionDeniedError if not.
        """
        if needed is None or self._tokens is None:
            return
        text = authorization.decode("latin-1") if isinstance(authorization, bytes) else authorization or ""
        scheme, _, token = text.partition(" ")
        # Hashes are compared, so that the time of the comparison reveals nothing about the tokens.
        permissions = self._tokens.get(hashlib.sha256(token.encode("utf-8", "replace")).digest())
        if scheme.lower() != "bearer" or permissions is None:
            raise UnauthenticatedError(
                "expected the metadata authorization: Bearer TOKEN, once, with a token that this server "
                "accepts"
            )
        if needed not in permissions:
            raise PermissionDeniedError(
                f"the token does not permit this call; it needs the permission {needed}"
            )

    def _watch(self, file: Path, stop: threading.Event) -> None:
        while not stop.wait(INTERVAL):
            now = stamp(file)
            if now == self._seen:
                continue
            self._seen = now
            try:
                self._tokens = tokens = read_tokens(file)
            except ServingError as error:  # the previous tokens stay valid
                log.error("%s; the previous tokens stay valid", error)
                continue
            log.info("read %d tokens from %s", len(tokens), file)
            for changed in self._changed:
                changed(tokens)


def stamp(file: Path) -> tuple[int, int, int] | None:
    """Return the state of a file: mtime, size and inode; None if there is none."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino

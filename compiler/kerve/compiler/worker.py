"""The child process in which a file is opened and compiled.

The parent writes one request, as JSON, to the child's standard input and reads events from a pipe of its
own, one JSON object per line; whatever libraries print goes to the child's standard error and is kept for
the case that the child dies.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

from kerve.compiler import errors
from kerve.compiler.options import CompileOptions
from kerve.compiler.progress import Event, Listener

__all__ = ["Request", "main", "run"]

_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}


@dataclasses.dataclass(frozen=True)
class Request:
    """What the child is to compile, and into which empty folder."""

    source: str
    folder: str
    name: str
    options: CompileOptions


def run(request: Request, listener: Listener) -> None:
    """Compile in a child process; raises the child's error as if it had been raised here."""
    read_end, write_end = os.pipe()
    with tempfile.TemporaryFile() as noise, os.fdopen(read_end, encoding="utf-8") as events:
        child = subprocess.Popen(
            [sys.executable, "-m", "kerve.compiler.worker", str(write_end)],
            stdin=subprocess.PIPE,
            stdout=noise,
            stderr=noise,
            pass_fds=(write_end,),
            env=os.environ | _QUIET,
        )
        os.close(write_end)
        try:
            assert child.stdin is not None
            child.stdin.write(json.dumps(dataclasses.asdict(request)).encode())
            child.stdin.close()
            failure = _listen(events, listener)
        except BaseException:
            child.kill()
            raise
        finally:
            child.wait()
        if failure is not None:
            raise failure
        if child.returncode:
            raise errors.LoadError(_death(child.returncode, noise))


def _listen(events: IO[str], listener: Listener) -> errors.CompileError | None:
    for line in events:
        message = json.loads(line)
        if "error" in message:
            error: errors.CompileError = getattr(errors, message["error"])(message["text"])
            return error
        listener(Event(**message))
    return None


def _death(code: int, noise: IO[bytes]) -> str:
    noise.seek(0)
    last = noise.read().decode(errors="replace").strip().splitlines()[-1:] or ["it printed nothing"]
    how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
    return f"the process that opened the file {how}; its last words: {last[0]}"


def main() -> None:
    """Serve one request, as the child."""
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8", buffering=1) as pipe:

        def say(message: dict[str, Any]) -> None:
            pipe.write(json.dumps(message) + "\n")

        fields = json.load(sys.stdin)
        options = CompileOptions(**fields.pop("options"))
        request = Request(**fields, options=options)
        try:
            from kerve.compiler.pipeline import build

            build(
                request.source,
                Path(request.folder),
                request.name,
                request.options,
                lambda event: say(dataclasses.asdict(event)),
            )
        except errors.CompileError as error:
            say({"error": type(error).__name__, "text": str(error)})


if __name__ == "__main__":
    main()

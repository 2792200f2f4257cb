"""The child process in which a file is opened.

The parent writes one request to the child's standard input and reads messages from a separate pipe, one JSON
object per line: events, then the result or an error. (The child may have opened a hostile file, so its
messages are parsed, never unpickled.) The output of libraries is captured and used if the child dies;
TensorFlow's errors in it are reported as notes. The standard input stays open: at its end of file the parent
is gone, and the child removes its files and exits. Temporary files, including those of libraries, are in the
child's folder, which is removed however it ends, or by the next parent if both processes are killed.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from kerve.cli.scratch import Scratch
from kerve.compiler import errors
from kerve.compiler import repository as repositories
from kerve.compiler.lazy_imports import import_libraries
from kerve.compiler.progress import Event, Listener
from kerve.compiler.sources import architecture, load_errors, resource_limits
from kerve.compiler.sources.detect import detect_source

__all__ = ["main", "run"]

#: The tasks of a child: "module:function", called with the request's arguments and a listener.
_TASKS = {
    "compile": "kerve.compiler.pipeline:build",
    "verify": "kerve.compiler.pipeline:check",
}

#: Log TensorFlow's errors, but not its information and warnings.
_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2", "KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}

_TENSORFLOW_ERROR = re.compile(r"^[EF]\d{4} [^\]]*\] (.*)$", re.MULTILINE)

#: TensorFlow logs these as errors if it finds no GPU or CPU feature to use, and continues without.
_OF_THE_MACHINE = (
    "cuInit",
    "Unable to register cu",
    "computation_placer",
    "computation placer",
    "oneDNN supports",
)


def run(task: str, listener: Listener, **arguments: Any) -> Any:
    """Run a task in a child process; returns its result or raises its error."""
    read_end, write_end = os.pipe()
    with (
        closing(Scratch()) as scratch,
        tempfile.TemporaryFile() as noise,
        os.fdopen(read_end, encoding="utf-8") as messages,
    ):
        child = subprocess.Popen(
            [sys.executable, "-m", "kerve.compiler.worker", str(write_end)],
            stdin=subprocess.PIPE,
            stdout=noise,
            stderr=noise,
            pass_fds=(write_end,),
            env=os.environ | _QUIET | {"TMPDIR": str(scratch.path)},
        )
        os.close(write_end)
        assert child.stdin is not None
        try:
            with suppress(BrokenPipeError):  # the child died already; handled below
                child.stdin.write(pickle.dumps((task, arguments, str(scratch.path))))
                child.stdin.flush()
            outcome = _listen(messages, listener)
        except BaseException:
            child.kill()
            raise
        finally:
            child.wait()
            with suppress(BrokenPipeError):
                child.stdin.close()
        if outcome is None:
            raise _death(child.returncode, noise)
        noise.seek(0)
        for text in dict.fromkeys(_TENSORFLOW_ERROR.findall(noise.read().decode(errors="replace"))):
            if not any(each in text for each in _OF_THE_MACHINE):
                listener(Event("TensorFlow", "note", detail=text))
    if "error" in outcome:
        raise getattr(errors, outcome["error"])(outcome["text"])
    return outcome["result"]


def _listen(messages: IO[str], listener: Listener) -> dict[str, Any] | None:
    for line in messages:
        message: dict[str, Any] = json.loads(line)
        if "stage" not in message:
            return message
        listener(Event(**message))
    return None


def _death(code: int, noise: IO[bytes]) -> errors.CompileError:
    """Return the error for a child that ended without a result: by an uncaught exception, or by a signal."""
    noise.seek(0)
    output = noise.read().decode(errors="replace").strip()
    if code > 0:
        sys.stderr.write(output + "\n")
        return errors.CompileError("this is a defect of kerve; please report it with the traceback above")
    last = (output.splitlines() or ["nothing"])[-1]
    return errors.LoadError(
        f"the process that read the source was killed by signal {-code}; its last output: {last}"
    )


def _end_with_parent(*written: Path | str | None) -> None:
    """Exit when the parent ends, which cannot end its child if it is killed itself."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    for folder in written:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


@contextmanager
def _imported_for_good() -> Iterator[None]:
    """Exclude imported objects from garbage collection, where traversing them takes a tenth of a compile."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def main() -> None:
    """Handle one request in the child."""
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8", buffering=1) as pipe:

        def say(message: dict[str, Any]) -> None:
            pipe.write(json.dumps(message) + "\n")

        task, arguments, scratch = pickle.load(sys.stdin.buffer)  # noqa: S301  # the parent wrote it
        written = [arguments.get("folder"), scratch]
        threading.Thread(target=_end_with_parent, args=written, daemon=True).start()
        module, _, function = _TASKS[task].partition(":")
        resource_limits.enforce()
        try:
            # Files that are not models are rejected before TensorFlow is imported.
            with load_errors.reporting_read_errors(arguments["source"]):
                detect_source(arguments["source"])
                if (plan := arguments["options"].architecture) is not None:
                    architecture.read(Path(plan))
            with _imported_for_good():
                import_libraries()
                work = getattr(import_module(module), function)
            with repositories.reporting_write_errors(arguments.get("folder", Path()).parent.parent):
                result = work(**arguments, listener=lambda event: say(dataclasses.asdict(event)))
        except errors.CompileError as error:
            say({"error": type(error).__name__, "text": str(error)})
        except MemoryError:
            gigabytes = resource_limits.machine_memory() / 1e9
            say(
                {
                    "error": "LoadError",
                    "text": f"the model needs more than the {gigabytes:.0f} GB of memory of this machine",
                }
            )
        else:
            say({"result": result})


if __name__ == "__main__":
    main()
    os._exit(0)  # everything is written; an orderly shutdown of TensorFlow takes seconds

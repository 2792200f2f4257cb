"""Load damaged artifacts, each in a process of its own, and tell which are not refused as they should be.

    python tests/compiler/sources/damage.py CASES [SEED]

The damage depends on the seed alone. There is a line for each case that ends in anything else than a model
or an error of kerve in one line; the exit code is 1 when there was one.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

FIXTURES = Path(__file__).parent.parent / "fixtures"

#: What is loaded, its architecture, and the file in it that is damaged.
CASES = (
    ("tf2.15/cnn.keras", None, ""),
    ("tf2.4/cnn.h5", None, ""),
    ("tf2.12/mlp.keras", None, ""),
    ("tf2.4/mlp_weights.h5", "tf2.4/mlp.json", ""),
    ("tf1.15/mlp_weights.h5", "tf1.15/mlp.yaml", "../mlp.yaml"),
    ("tf2.4/mlp_checkpoint", "tf2.4/mlp.json", "my_model.index"),
    ("tf2.4/mlp_checkpoint", "tf2.4/mlp.json", "my_model.data-00000-of-00001"),
    ("tf2.12/keras_cnn", None, "keras_metadata.pb"),
    ("tf2.15/module", None, "saved_model.pb"),
    ("tf2.15/module", None, "variables/variables.index"),
    ("tf1.15/simple_save", None, "saved_model.pb"),
    ("keras3/model.keras", None, ""),
    ("keras3/model.h5", None, ""),
)

_SECONDS = 60
_MEMORY = 8 << 30
_INSERTED = (b"9999", b"null", b"-1,-", b"\xff\xff\xff\xff", b"[[[[")


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return the content with bits flipped, its end cut off, or a piece zeroed, repeated or overwritten."""
    data = bytearray(content)
    where, size = rng.randrange(len(data)), rng.choice((1, 8, 64))
    match rng.choice(("flip", "flip", "cut", "zero", "repeat", "overwrite")):
        case "flip":
            for _ in range(rng.choice((1, 1, 3, 10))):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case "cut":
            del data[where:]
        case "zero":
            data[where : where + size] = bytes(size)
        case "repeat":
            data[where:where] = data[where : where + size]
        case "overwrite":
            data[where : where + 4] = rng.choice(_INSERTED)
    return bytes(data)


def main(count: int, seed: int) -> int:
    """Try `count` cases; returns how many were not refused as they should be."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    from kerve.compiler.sources import keras2, saved_model, weights  # noqa: F401  # before the forks

    rng, bad = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number, (source, architecture, victim) in enumerate(_cases(root, count)):
            content = victim.read_bytes()
            victim.write_bytes(damaged(content, rng))
            outcome = _in_a_child(source, architecture)
            victim.write_bytes(content)
            if outcome:
                bad += 1
                sys.stdout.write(f"case {number}, {victim.relative_to(root)}: {outcome}\n")
    sys.stdout.write(f"{count} cases, {bad} bad\n")
    return bad


def _cases(root: Path, count: int) -> Iterator[tuple[Path, Path | None, Path]]:
    for writer in {name.partition("/")[0] for name, _, _ in CASES} - {"keras3"}:
        shutil.unpack_archive(FIXTURES / f"{writer}.zip", root / writer)
    keras_3 = multiprocessing.get_context("spawn").Process(target=_write_keras_3, args=(root / "keras3",))
    keras_3.start()  # elsewhere: a process in which TensorFlow has computed cannot be forked
    keras_3.join()
    for number in range(count):
        source, architecture, victim = CASES[number % len(CASES)]
        path = root / source
        plan = None if architecture is None else root / architecture
        damaged_file = path.parent / victim[3:] if victim.startswith("../") else path / victim
        yield path, plan, damaged_file if victim else path


def _write_keras_3(folder: Path) -> None:
    import keras

    folder.mkdir()
    layers = [keras.Input((5,), name="x"), keras.layers.Dense(4, "relu"), keras.layers.Dense(2, name="y")]
    model = keras.Sequential(layers)
    model.compile("adam", "mse", metrics=["mae"])
    for name in ("model.keras", "model.h5"):
        model.save(folder / name)


def _in_a_child(source: Path, architecture: Path | None) -> str:
    """Load in a child; returns what is wrong with how that ended, or ""."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        signal.alarm(_SECONDS)
        os.write(writing, _outcome(source, architecture).encode()[:4000])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        outcome = pipe.read().decode(errors="replace")
    _, status = os.waitpid(child, 0)
    return f"ended by signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else outcome


def _outcome(source: Path, architecture: Path | None) -> str:
    from kerve.compiler import sources
    from kerve.compiler.errors import CompileError
    from kerve.compiler.sources import LoadOptions, resource_limits

    resource_limits.enforce(memory=_MEMORY)
    try:
        sources.load(source, LoadOptions(architecture=None if architecture is None else str(architecture)))
    except CompileError as error:
        return f"several lines: {error}" if "\n" in str(error) else ""
    except MemoryError:
        return ""
    except BaseException as error:  # noqa: BLE001  # which it is, is what we want to know
        frames = traceback.extract_tb(error.__traceback__)
        where = ", ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-8:])
        return f"{type(error).__name__}: {str(error)[:200]} ({where})"
    return ""


if __name__ == "__main__":
    sys.exit(min(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1), 1))

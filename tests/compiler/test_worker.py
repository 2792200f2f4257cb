"""The child in which a file is opened: what it imports, and what of the libraries' words is heard outside."""

from __future__ import annotations

import os
from pathlib import Path

import keras
import pytest

from kerve.compiler import CompileOptions, compile_model
from kerve.compiler.errors import LoadError
from kerve.compiler.progress import Event

_NOISE = """
import os, sys
os.write(2, b'''I0000 00:00:1795806781.42  259 port.cc:153] oneDNN custom operations are on.
W0000 00:00:1795806781.42  259 cpu_allocator_impl.cc:84] Allocation of 99 exceeds 10%% of free system memory.
E0000 00:00:1795806781.42  259 util.cc:131] oneDNN supports DT_BOOL only on platforms with AVX-512.
E0000 00:00:1795806781.42  259 conv_ops.cc:7] the filter is larger than the image
E0000 00:00:1795806781.42  259 conv_ops.cc:7] the filter is larger than the image
''')
with open(%r, "w") as file:
    not_needed = ("sklearn", "scipy.stats", "pandas", "sympy.core")
    file.write(" ".join(name for name in not_needed if name in sys.modules))
"""


def test_errors_of_tensorflow_are_notes_and_what_is_not_needed_is_not_imported(tmp_path: Path) -> None:
    imported, own = tmp_path / "imported", tmp_path / "own.py"
    own.write_text(_NOISE % str(imported))
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "m.keras")
    heard: list[Event] = []
    compile_model(
        tmp_path / "m.keras",
        repository=tmp_path / "models",
        name="m",
        options=CompileOptions(import_=(str(own),)),
        listener=heard.append,
    )
    notes = [(event.stage, event.detail) for event in heard if event.state == "note"]
    assert notes == [("TensorFlow", "the filter is larger than the image")]
    assert imported.read_text() == ""


def test_temporary_files_go_with_the_child(tmp_path: Path) -> None:
    """It ends without taking TensorFlow down, and so without what that removes at the end."""
    written, own = tmp_path / "written", tmp_path / "own.py"
    own.write_text(
        "import pathlib, tempfile\n"
        f"pathlib.Path({str(written)!r}).write_text(tempfile.mkstemp()[1])\n"
        "raise ImportError\n"
    )
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "m.keras")
    with pytest.raises(LoadError, match="cannot import"):
        compile_model(
            tmp_path / "m.keras",
            repository=tmp_path / "models",
            name="m",
            options=CompileOptions(import_=(str(own),)),
        )
    assert not Path(written.read_text()).exists()


def test_an_architecture_with_code_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    (tmp_path / "m.yaml").write_text(f"class_name: !!python/object/apply:os.mkdir [{marker}]\nconfig: {{}}\n")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.save_weights(tmp_path / "m.weights.h5")
    heard: list[Event] = []
    with pytest.raises(LoadError, match="a YAML tag that stands for code"):
        compile_model(
            tmp_path / "m.weights.h5",
            repository=tmp_path / "models",
            name="m",
            options=CompileOptions(architecture=str(tmp_path / "m.yaml")),
            listener=heard.append,
        )
    assert heard == []
    assert not marker.exists()


def test_an_architecture_without_an_end_is_refused(tmp_path: Path) -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.save_weights(tmp_path / "m.weights.h5")
    os.mkfifo(tmp_path / "m.json")
    for architecture in ("/dev/zero", str(tmp_path / "m.json")):
        with pytest.raises(LoadError, match="is not a regular file"):
            compile_model(
                tmp_path / "m.weights.h5",
                repository=tmp_path / "models",
                name="m",
                options=CompileOptions(architecture=architecture),
            )

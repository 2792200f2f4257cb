"""Files made to harm are refused before any library reads what is in them."""

from __future__ import annotations

import json
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from kerve.compiler import sources
from kerve.compiler.errors import LoadError
from kerve.compiler.sources.detect import detect_source

_METADATA = json.dumps({"keras_version": "3.15.1"})


def _archive(path: Path, add: Callable[[zipfile.ZipFile], None]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", _METADATA)
        add(archive)
    return path


def _link(archive: zipfile.ZipFile) -> None:
    link = zipfile.ZipInfo("assets/link")
    link.external_attr = 0o120777 << 16
    archive.writestr(link, "/etc/passwd")


def _bomb(archive: zipfile.ZipFile) -> None:
    with archive.open("model.weights.h5", "w") as member:
        for _ in range(300):
            member.write(bytes(1 << 20))


def _long_text(archive: zipfile.ZipFile) -> None:
    archive.filelist.clear()
    archive.NameToInfo.clear()
    archive.writestr("config.json", b"[" + b"[]," * (20 << 20))
    archive.writestr("metadata.json", _METADATA)


def _twice(archive: zipfile.ZipFile) -> None:
    archive.writestr("config.json", "{}")


@pytest.mark.parametrize(
    ("add", "says"),
    [
        pytest.param(
            lambda a: a.writestr("../../evil", "x"), "a path outside the archive", id="a path upwards"
        ),
        pytest.param(
            lambda a: a.writestr("/tmp/evil", "x"), "a path outside the archive", id="an absolute path"
        ),
        pytest.param(
            lambda a: a.writestr("assets\\..\\..\\evil", "x"), "a path outside", id="a path with backslashes"
        ),
        pytest.param(_link, "holds the link", id="a link"),
        pytest.param(_bomb, "decompression bomb", id="a bomb"),
        pytest.param(_long_text, "decompression bomb", id="a bomb of JSON"),
        pytest.param(_twice, "two members of the same name", id="two members of one name"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_made_to_harm_is_refused(
    tmp_path: Path, add: Callable[[zipfile.ZipFile], None], says: str
) -> None:
    with pytest.raises(LoadError, match=says):
        detect_source(_archive(tmp_path / "model.keras", add))


def test_an_encrypted_archive_is_refused(tmp_path: Path) -> None:
    path = _archive(tmp_path / "model.keras", lambda archive: None)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"PK\x01\x02")
    content[entry + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(LoadError, match="is encrypted"):
        detect_source(path)


def test_no_more_of_a_text_is_unfolded_than_it_claims_to_hold(tmp_path: Path) -> None:
    path, size = tmp_path / "model.keras", 64 << 20
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", bytes(size))
        archive.writestr("metadata.json", _METADATA)
    path.write_bytes(path.read_bytes().replace(struct.pack("<I", size), struct.pack("<I", 100)))
    tracemalloc.start()
    with pytest.raises(LoadError, match="Bad CRC"):
        detect_source(path)
    assert tracemalloc.get_traced_memory()[1] < size // 8
    tracemalloc.stop()


def test_a_zip_file_of_something_else_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "<xml/>")
    with pytest.raises(LoadError, match=r"without config\.json and metadata\.json"):
        detect_source(path)


def _outside(file: h5py.File) -> None:
    file["model_weights"] = h5py.ExternalLink("/etc/passwd", "/")


def _soft(file: h5py.File) -> None:
    file["model_weights"] = h5py.SoftLink("/elsewhere")


def _stored_outside(file: h5py.File) -> None:
    file.create_dataset("w", (4,), "u1", external=[("/etc/passwd", 0, 4)])


def _virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4,), "u1")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4,), "u1")
    file.create_virtual_dataset("w", layout)


def _declared(file: h5py.File) -> None:
    file.create_dataset("w", (1 << 20, 1 << 20), "f4", chunks=(1, 1 << 10), compression="gzip")


def _deep(file: h5py.File) -> None:
    group = file
    for _ in range(100):
        group = group.create_group("g")


@pytest.mark.parametrize(
    ("add", "says"),
    [
        pytest.param(_outside, "a link to another place", id="an external link"),
        pytest.param(_soft, "a link to another place", id="a soft link"),
        pytest.param(_stored_outside, "stores its data in another file", id="data in another file"),
        pytest.param(_virtual, "stores its data in another file", id="a virtual dataset"),
        pytest.param(_declared, "decompression bomb", id="four terabytes declared"),
        pytest.param(_deep, "nested or split further", id="a hundred groups deep"),
    ],
)
def test_an_hdf5_file_made_to_harm_is_refused(
    tmp_path: Path, add: Callable[[h5py.File], None], says: str
) -> None:
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = "{}"
        add(file)
    with pytest.raises(LoadError, match=says):
        detect_source(path)


@pytest.mark.parametrize("version", ["3.15.1", "2.15.0"])
@pytest.mark.parametrize(
    ("add", "says"),
    [
        pytest.param(_outside, "a link to another place", id="an external link"),
        pytest.param(_virtual, "stores its data in another file", id="a virtual dataset"),
        pytest.param(_declared, "decompression bomb", id="four terabytes declared"),
    ],
)
def test_weights_made_to_harm_are_refused_inside_an_archive(
    tmp_path: Path, add: Callable[[h5py.File], None], says: str, version: str
) -> None:
    weights, path = tmp_path / "weights.h5", tmp_path / "model.keras"
    with h5py.File(weights, "w") as file:
        add(file)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Sequential", "config": {"layers": []}}))
        archive.writestr("metadata.json", json.dumps({"keras_version": version}))
        archive.write(weights, "model.weights.h5")
    with pytest.raises(LoadError, match=rf"^{path}.*{says}"):
        sources.load(path)


def test_groups_that_contain_one_another_are_looked_at_once(tmp_path: Path) -> None:
    path = tmp_path / "model.h5"
    with h5py.File(path, "w") as file:
        group = file.create_group("a")
        group["itself"] = group
        group["w"] = np.zeros(3)
        file.attrs["layer_names"] = [b"a"]
    assert detect_source(path).path == path

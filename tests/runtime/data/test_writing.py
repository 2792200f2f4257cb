"""Outputs are written block by block, in formats that others read; whole or not at all."""

import csv
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from kerve.runtime.data import DataError, writing

RANDOM = np.random.default_rng(8)
SIZES = (3, 1, 4)


def blocks() -> list[dict[str, Any]]:
    """Return blocks of every kind of output: a number, a matrix, text whose width grows, a `file`."""
    return [
        {
            "score": RANDOM.standard_normal(rows).astype(np.float32),
            "map": RANDOM.standard_normal((rows, 2, 3)),
            "word": np.array([b"w" * (number + row) for row in range(rows)], object),
            "file": RANDOM.integers(-9, 9, (rows, 1), np.int64),
        }
        for number, rows in enumerate(SIZES)
    ]


def whole(name: str, parts: list[dict[str, Any]]) -> Any:
    return np.concatenate([part[name] for part in parts])


def write(path: Path, parts: list[dict[str, Any]]) -> None:
    with writing(path) as add:
        for part in parts:
            add(part)


def test_npz_holds_every_output(tmp_path: Path) -> None:
    parts = blocks()
    write(tmp_path / "out.npz", parts)
    with np.load(tmp_path / "out.npz") as found:
        assert found.files == ["score", "map", "word", "file"]
        for name in found.files:
            expected = whole(name, parts)
            np.testing.assert_array_equal(found[name], expected.astype(found[name].dtype))
            assert expected.dtype in (object, found[name].dtype)


def test_npy_holds_the_only_output(tmp_path: Path) -> None:
    parts = [{"map": each["map"]} for each in blocks()]
    write(tmp_path / "out.npy", parts)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), whole("map", parts))


def test_parquet_has_a_column_for_each_output(tmp_path: Path) -> None:
    parts = blocks()
    write(tmp_path / "out.parquet", parts)
    found = pq.read_table(tmp_path / "out.parquet").to_pydict()
    assert found == {name: whole(name, parts).tolist() for name in parts[0]}


def test_csv_has_a_column_for_each_number(tmp_path: Path) -> None:
    parts = blocks()
    write(tmp_path / "out.csv", parts)
    with (tmp_path / "out.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["score", *(f"map_{number}" for number in range(6)), "word", "file_0"]
    assert [row["word"] for row in rows] == [word.decode() for word in whole("word", parts)]
    found = np.array([[row[f"map_{number}"] for number in range(6)] for row in rows], float)
    np.testing.assert_array_equal(found, whole("map", parts).reshape(-1, 6))


@pytest.mark.parametrize("name", ["out.npz", "out.npy", "out.csv", "out.parquet"])
def test_what_fails_leaves_what_was_there(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("older")
    rows: list[Any] = [{"y": np.zeros((2, 3))}, None]
    with pytest.raises((AttributeError, TypeError)):
        write(tmp_path / name, rows)
    assert [file.name for file in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "older"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("out.txt", r"expected a name that ends in one of \.npz, \.npy, \.csv, \.parquet"),
        ("none/out.npz", "there is no folder"),
        ("out.npy", "holds one array, and the outputs are score, map, word, file; write .npz"),
    ],
)
def test_what_cannot_be_written_is_said(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=text):
        write(tmp_path / name, blocks())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.npz", "out.csv", "out.parquet"])
def test_a_folder_of_that_name_is_told_before_the_work(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match="is a folder; expected the name of a file"), writing(tmp_path / name):
        pytest.fail("the work has begun")


@pytest.mark.parametrize("name", ["out.csv", "out.parquet"])
def test_a_table_takes_outputs_of_the_same_rows(name: str, tmp_path: Path) -> None:
    uneven = {"a": np.zeros(3), "b": np.zeros((5, 2)), "c": np.zeros(())}
    with pytest.raises(DataError, match=r"a has 3, b has 5, c has 1; write \.npz"):
        write(tmp_path / name, [uneven])
    write(tmp_path / "out.npz", [uneven])


def test_bytes_that_numpy_would_cut_are_not_written(tmp_path: Path) -> None:
    parts = [{"a": np.array([b"ab", b"a\0"], object)}]
    with pytest.raises(DataError, match=r"zero bytes at the end of text; write \.parquet"):
        write(tmp_path / "out.npz", parts)
    write(tmp_path / "out.parquet", parts)
    assert pq.read_table(tmp_path / "out.parquet").to_pydict() == {"a": [b"ab", b"a\0"]}


@pytest.mark.parametrize("kind", ["npz", "csv", "parquet"])
def test_memory_holds_a_block_and_not_the_file(kind: str, tmp_path: Path) -> None:
    block = {"y": np.zeros((256, 500 if kind != "csv" else 20), np.float32)}
    tracemalloc.start()
    try:
        write(tmp_path / f"out.{kind}", [block] * 40)
        assert tracemalloc.get_traced_memory()[1] < 8 * block["y"].nbytes + 2**20
    finally:
        tracemalloc.stop()


def test_a_folder_that_takes_no_file_is_told_by_the_name_that_was_given() -> None:
    path = Path("/proc/out.npz")  # in which nobody can make a file, not even root
    with pytest.raises(OSError, match="out") as raised, writing(path):
        pytest.fail("the work has begun")
    assert raised.value.filename == str(path)

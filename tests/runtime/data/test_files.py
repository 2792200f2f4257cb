"""Files of rows become a model's inputs, labels and weights."""

import csv
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kerve.runtime.data import DataError, Rows, open_files
from kerve.runtime.data.columns import joined
from kerve.runtime.signature import Signature, TensorSpec

HERE = Path(__file__).parent
NUMBERS = Signature((TensorSpec("x", "FP32", ("batch", 4)),), (TensorSpec("y", "FP32", ("batch", 3)),), True)
IMAGES = Signature(
    (TensorSpec("image", "FP32", ("batch", 2, 3, 1)),),
    (TensorSpec("mask", "FP32", ("batch", 2, 3, 5)),),
    True,
)
TEXT = Signature(
    (TensorSpec("words", "BYTES", ("batch", 1)),), (TensorSpec("y", "FP32", ("batch", 1)),), True
)


def read(*paths: Path, signature: Signature = NUMBERS, labelled: bool = True) -> dict[str, Any]:
    return joined(list(Rows(open_files(paths), signature, labelled=labelled)))


def write_csv(path: Path, table: dict[str, Any]) -> None:
    with path.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))


def write_parquet(path: Path, table: dict[str, Any]) -> None:
    pq.write_table(pa.table({name: pa.array(list(values)) for name, values in table.items()}), path)


def write_npz(path: Path, table: dict[str, Any]) -> None:
    np.savez_compressed(path, **table)


def write_npy(path: Path, table: dict[str, Any]) -> None:
    fields = [(name, values.dtype, values.shape[1:]) for name, values in table.items()]
    array = np.zeros(len(next(iter(table.values()))), fields)
    for name, values in table.items():
        array[name] = values
    np.save(path, array)


@pytest.mark.parametrize(
    ("kind", "write"),
    [("npz", write_npz), ("npy", write_npy), ("csv", write_csv), ("parquet", write_parquet)],
)
@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.sampled_from([1, 255, 256, 600]),
    x=hnp.arrays(np.float32, 4, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
    y=st.integers(-(2**63), 2**63 - 1),
)
def test_numbers_come_as_they_were_written(
    kind: str, write: Callable[..., None], rows: int, x: Any, y: int, tmp_path: Path
) -> None:
    file = tmp_path / f"rows.{kind}"
    columns = {f"x_{position}": np.full(rows, value) for position, value in enumerate(x)}
    write(file, {**columns, "y": np.arange(rows) * 0 + y, "sample_weight": np.arange(rows) / 2})
    found = read(file)
    np.testing.assert_array_equal(found["x"].astype(np.float32), np.tile(x, (rows, 1)))
    np.testing.assert_array_equal(found["y"], np.full(rows, y))
    np.testing.assert_array_equal(found["sample_weight"], np.arange(rows) / 2)


@pytest.mark.parametrize("name", ["rows.tfrecord", "rows.gzip.tfrecord", "rows.zlib.tfrecord"])
def test_what_tensorflow_wrote_is_read(name: str, tmp_path: Path) -> None:
    file = tmp_path / "train-00000-of-00001"  # the content tells, as the name does not
    file.write_bytes((HERE / name).read_bytes())
    found = read(file, labelled=False)
    np.testing.assert_array_equal(found["x"], np.arange(4, dtype=np.float32) + np.arange(20)[:, None])
    words = Signature((TensorSpec("name", "BYTES", ("batch", 1)),), (), True)
    assert read(file, signature=words, labelled=False)["name"][7].tolist() == [b"row 7"]


def test_a_record_that_was_changed_or_cut_is_told_by_its_row(tmp_path: Path) -> None:
    whole = (HERE / "rows.tfrecord").read_bytes()
    size = len(whole) // 20
    for contents, text in (
        (
            whole[: 3 * size + 20] + b"!" + whole[3 * size + 21 :],
            "row 3: the checksum of the record is wrong",
        ),
        (whole[: 3 * size] + b"!" + whole[3 * size + 1 :], "row 3: the checksum of the record's length"),
        (whole[:-5], "row 19: the file is truncated, expected a record of .* bytes"),
    ):
        (tmp_path / "rows.tfrecord").write_bytes(contents)
        with pytest.raises(DataError, match=text):
            read(tmp_path / "rows.tfrecord", labelled=False)


def test_lists_are_rows_and_flat_rows_get_the_axes_of_the_model(tmp_path: Path) -> None:
    image, mask = np.arange(24.0).reshape(4, 6), np.arange(24).reshape(4, 6) % 5
    write_parquet(tmp_path / "a.parquet", {"image": image, "mask": mask})
    write_parquet(tmp_path / "b.parquet", {"x": image.reshape(4, 2, 3, 1).tolist(), "y": mask.tolist()})
    for name, labels in (("a", "mask"), ("b", "y")):
        found = read(tmp_path / f"{name}.parquet", signature=IMAGES)
        np.testing.assert_array_equal(found["image"], image.reshape(4, 2, 3, 1))
        np.testing.assert_array_equal(found[labels], mask.reshape(4, 2, 3))


def test_text_stays_text(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", {"words": ["12", "a,b", ""], "y": [1, 0, 1]})
    found = read(tmp_path / "a.csv", signature=TEXT)
    assert found["words"].tolist() == [["12"], ["a,b"], [""]]
    assert found["y"].tolist() == [1, 0, 1]


def test_a_value_may_be_a_book(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", {"words": ["word " * 200_000], "y": [1]})
    assert read(tmp_path / "a.csv", signature=TEXT)["words"].tolist() == [["word " * 200_000]]


def test_arrays_of_several_files_stand_side_by_side_and_tables_follow_one_another(tmp_path: Path) -> None:
    x, y = np.arange(12.0).reshape(3, 4), np.array([2, 0, 1])
    np.save(tmp_path / "x.npy", np.asfortranarray(x))
    np.save(tmp_path / "y.npy", y)
    found = read(tmp_path / "x.npy", tmp_path / "y.npy")
    np.testing.assert_array_equal(found["x"], x)
    np.testing.assert_array_equal(found["y"], y)
    np.save(tmp_path / "test.npy", x)
    np.testing.assert_array_equal(read(tmp_path / "test.npy", labelled=False)["x"], x)
    for name in ("a.npz", "b.npz"):
        np.savez(tmp_path / name, x=x, y=y)
    assert read(tmp_path / "a.npz", tmp_path / "b.npz")["y"].tolist() == [2, 0, 1, 2, 0, 1]
    np.savez(tmp_path / "c.npz", x=x)
    with pytest.raises(DataError, match=r"c.npz: expected the columns of .*a.npz, x, y, got x"):
        read(tmp_path / "a.npz", tmp_path / "c.npz")


def csv_text(text: str) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        (folder / "rows.csv").write_text(text)
        return folder / "rows.csv"

    return write


def parquet(**columns: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        pq.write_table(pa.table(columns), folder / "rows.parquet")
        return folder / "rows.parquet"

    return write


def twice(folder: Path) -> Path:
    pq.write_table(pa.Table.from_arrays([pa.array([0.0])] * 2, ["y", "y"]), folder / "rows.parquet")
    return folder / "rows.parquet"


def npz(**arrays: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        np.savez(folder / "rows.npz", **arrays)
        return folder / "rows.npz"

    return write


HEAD = "x_0,x_1,x_2,x_3,y\n"


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (
            csv_text(HEAD + "1,2,3,4,0\n1,2,three,4,0\n"),
            r"row 1, column 'x_2': expected a number, got 'three'",
        ),
        (csv_text(HEAD + "1,2,3,4,0\n1,2,3,,0\n"), r"row 1, column 'x_3': expected a number, got ''"),
        (csv_text(HEAD + "1,2,3,4,0\n1,2\n"), r"row 1: expected 5 values, as the header has, got 2"),
        (csv_text("x_0,x_2,y\n1,2,0\n"), r"expected a column x_1, since there is x_2"),
        (csv_text("x_0,y,y\n1,2,0\n"), r"duplicate columns in the header: y"),
        (csv_text("a,y\n1,2\n"), r"expected arrays named x or `x`; it has: a, y"),
        (csv_text(HEAD.replace("y", "y,label") + "1,2,3,4,0,1\n"), r"unexpected column 'label'; expected"),
        (csv_text(HEAD + '1,2,3,4,"0\n'), r"line 3: expected CSV in UTF-8"),
        (csv_text(""), r"rows.csv is empty"),
        (parquet(x=[[1.0] * 4, [1.0] * 3], y=[0, 1]), r"row 1, column 'x': expected 4 values, .* got 3"),
        (parquet(x=[[1.0] * 4, None], y=[0, 1]), r"row 1, column 'x': expected a value, got null"),
        (parquet(x=[[1.0] * 4, [1.0, None, 2.0, 3.0]], y=[0, 1]), r"row 1, column 'x': .* got null"),
        (parquet(x=[{"a": 1}], y=[0]), r"column 'x': expected numbers, text or lists of them, got struct"),
        (twice, r"duplicate columns in the schema: y"),
        (npz(x=np.zeros((3, 4)), y=np.zeros(2)), r"array 'y' has 2 rows where 'x' has 3"),
        (npz(x=np.array([{}], object), y=np.zeros(1)), r"'x' contains Python objects, which are not loaded"),
    ],
)
def test_what_is_wrong_is_told_by_row_and_column(
    write: Callable[[Path], Path], text: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=text):
        read(write(tmp_path))


@pytest.mark.parametrize("kind", ["npz", "npy", "parquet", "csv"])
def test_a_file_is_read_in_bounded_memory(kind: str, tmp_path: Path) -> None:
    rows, file = 8_000, tmp_path / f"rows.{kind}"
    if kind == "csv":
        line = ",".join(["0.5"] * 128)
        file.write_text(",".join(f"x_{position}" for position in range(128)) + f"\n{line}" * rows)
    elif kind == "parquet":
        pq.write_table(pa.table({"x": pa.FixedSizeListArray.from_arrays(np.zeros(rows * 128), 128)}), file)
    else:
        whole = np.zeros((rows, 128))
        np.savez_compressed(file, x=whole) if kind == "npz" else np.save(file, whole)
        del whole
    signature = Signature((TensorSpec("x", "FP32", ("batch", 128)),), (), True)
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    seen = 0
    for block in Rows(open_files([file]), signature, labelled=False):
        seen += len(block["x"])
        assert pa.total_allocated_bytes() - before < 4 * 2**20
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seen == rows
    assert peak < 6 * 2**20, "the file has 8 MB of numbers"


def test_without_pyarrow_it_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_parquet(tmp_path / "rows.parquet", {"x": np.zeros(3)})
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(
        DataError, match=r"needs pyarrow, which is not installed: pip install 'kerve\[data\]'"
    ):
        open_files([tmp_path / "rows.parquet"])

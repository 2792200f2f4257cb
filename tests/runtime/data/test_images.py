"""Columns of encoded images become what a model takes."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from kerve.runtime.data import DataError, Rows, open_files
from kerve.runtime.signature import Signature, TensorSpec

RANDOM = np.random.default_rng(6)
COLOURS = RANDOM.integers(0, 256, (5, 4, 6, 3), np.uint8)


def encoded(image: NDArray[np.uint8], kind: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **options)
    return stream.getvalue()


def signature(*shape: int | str | None, datatype: str = "FP32") -> Signature:
    output = TensorSpec("class", "FP32", ("batch", 3))
    return Signature((TensorSpec("image", datatype, ("batch", *shape)),), (output,), batched=True)


def read(folder: Path, images: Sequence[Any], taken: Signature) -> NDArray[Any]:
    pq.write_table(pa.table({"image": images}), folder / "rows.parquet")
    blocks = [block["image"] for block in Rows(open_files([folder]), taken, labelled=False)]
    return np.concatenate(blocks)


def test_pixels_are_those_of_the_image(tmp_path: Path) -> None:
    found = read(tmp_path, list(map(encoded, COLOURS)), signature(4, 6, 3))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, COLOURS)


def test_any_size_and_channels_first_are_taken(tmp_path: Path) -> None:
    images = list(map(encoded, COLOURS))
    np.testing.assert_array_equal(read(tmp_path, images, signature("height", "width", 3)), COLOURS)
    np.testing.assert_array_equal(read(tmp_path, images, signature(3, 4, 6)), COLOURS.transpose(0, 3, 1, 2))


def test_a_model_of_grey_images_gets_grey(tmp_path: Path) -> None:
    expected = np.stack([np.asarray(Image.fromarray(each).convert("L")) for each in COLOURS])
    images = list(map(encoded, COLOURS))
    np.testing.assert_array_equal(read(tmp_path, images, signature(4, 6, 1)), expected[..., None])
    np.testing.assert_array_equal(read(tmp_path, images, signature(4, 6)), expected)


def test_jpeg_is_decoded_as_keras_loads_it(tmp_path: Path) -> None:
    images = [encoded(each, "JPEG", quality=90) for each in COLOURS]
    expected = np.stack([np.asarray(Image.open(io.BytesIO(each))) for each in images])
    np.testing.assert_array_equal(read(tmp_path, images, signature(4, 6, 3)), expected)


def test_hugging_faces_images_are_taken(tmp_path: Path) -> None:
    images = [{"bytes": encoded(each), "path": "a.png"} for each in COLOURS]
    np.testing.assert_array_equal(read(tmp_path, images, signature(4, 6, 3)), COLOURS)


def test_a_model_of_text_gets_the_bytes(tmp_path: Path) -> None:
    images = list(map(encoded, COLOURS))
    assert read(tmp_path, images, signature(datatype="BYTES")).tolist() == images


@pytest.mark.parametrize(
    ("row", "text"),
    [
        pytest.param(
            encoded(np.zeros((6, 4, 3), np.uint8)),
            "expected an image of 6 × 4 pixels, which the model takes, got 4 × 6 pixels; resize it",
            id="size",
        ),
        pytest.param(encoded(COLOURS[0])[:60], "the image cannot be decoded", id="cut"),
        pytest.param(b"no image", "the image cannot be decoded", id="none"),
        pytest.param(
            encoded(np.zeros((4, 6), np.uint16)), "expected an image of 8 bits per channel", id="16 bits"
        ),
    ],
)
def test_an_image_that_does_not_fit_is_named(row: bytes, text: str, tmp_path: Path) -> None:
    images = [*map(encoded, COLOURS), row]
    with pytest.raises(DataError, match=rf"rows.parquet: row 5, column 'image': {text}"):
        read(tmp_path, images, signature(4, 6, 3))


def test_images_of_several_sizes_cannot_be_one_batch(tmp_path: Path) -> None:
    images = [encoded(COLOURS[0]), encoded(COLOURS[0][:3])]
    with pytest.raises(
        DataError, match=r"row 1, .* expected an image of 6 × 4 pixels, as the rows before it"
    ):
        read(tmp_path, images, signature("height", "width", 3))

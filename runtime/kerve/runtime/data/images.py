"""Decodes images (JPEG, PNG, GIF, BMP, WebP) in a column to the pixels that a model takes, with Pillow.

Pixels are integers from 0 to 255, as with keras.utils.load_img: a model that expects another range scales
them itself. Images are not resized, since the method influences a model's outputs.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerve.runtime.data.source import DataError, needs
from kerve.runtime.datatypes import Array

__all__ = ["Picture", "is_encoded", "picture_of", "pixels"]

STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"RIFF")
# Pillow's modes, by the number of channels.
MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Picture:
    """The format of the images in a tensor; None: any size."""

    height: int | None
    width: int | None
    channels: int
    #: The axis of the channels in a row; None: there is one channel and no axis for it.
    axis: int | None


def is_encoded(values: Array) -> bool:
    """Return whether the first value is an encoded image, in which case all must be."""
    first = values.reshape(-1)[0] if values.size else None
    return isinstance(first, bytes) and first.startswith(STARTS)


def picture_of(shape: Sequence[int | None]) -> Picture | None:
    """Return the image format of rows of a shape; None if they cannot be images."""
    match tuple(shape):
        case (height, width, (1 | 3 | 4) as channels):
            return Picture(height, width, channels, -1)
        case ((1 | 3 | 4) as channels, height, width):
            return Picture(height, width, channels, 0)
        case (height, width, None):
            return Picture(height, width, 3, -1)
        case (height, width):
            return Picture(height, width, 1, None)
        case _:
            return None


def pixels(path: Path, values: Array, picture: Picture, where: Callable[[int], str]) -> Array:
    """Return the pixels of encoded images as uint8; `where` returns the prefix of errors for a row."""
    pillow = needs("PIL.Image", path, "encoded images")
    images = [
        one_image(pillow, encoded, picture, where(row)) for row, encoded in enumerate(values.reshape(-1))
    ]
    for row, image in enumerate(images):
        if image.shape != images[0].shape:
            raise DataError(
                f"{where(row)}: expected an image of {size(images[0].shape[1::-1])}, as the rows before it, "
                f"got {size(image.shape[1::-1])}; resize all to one size"
            )
    stacked = np.stack(images)
    if picture.axis is None:
        return stacked[..., 0]
    return stacked if picture.axis == -1 else np.ascontiguousarray(stacked.transpose(0, 3, 1, 2))


def one_image(pillow: Any, encoded: object, picture: Picture, where: str) -> Array:
    """Return height × width × channels."""
    if not isinstance(encoded, bytes):
        raise DataError(f"{where}: expected an encoded image, got {encoded!r}")
    try:
        with pillow.open(io.BytesIO(encoded)) as image:
            wanted = (picture.width or image.width, picture.height or image.height)
            if image.size != wanted:
                raise DataError(
                    f"{where}: expected an image of {size(wanted)}, which the model takes, got "
                    f"{size(image.size)}; resize it as for training"
                )
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{where}: expected an image of 8 bits per channel, got mode {image.mode}")
            mode = MODES[picture.channels]
            plain = image if image.mode == mode else image.convert(mode)
            return np.asarray(plain, np.uint8).reshape(image.height, image.width, picture.channels)
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        raise DataError(f"{where}: the image cannot be decoded: {error}") from error


def size(sides: Sequence[int]) -> str:
    """Format width and height for messages."""
    return f"{sides[0]} × {sides[1]} pixels"

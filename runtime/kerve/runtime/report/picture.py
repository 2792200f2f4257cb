"""An image as a data: URL."""

import base64
import struct
import zlib

import numpy as np

from kerve.runtime.datatypes import Array

__all__ = ["picture"]

#: Maximum pixels of a side; larger images are subsampled.
MOST = 96
COLOUR_TYPES = {1: 0, 3: 2, 4: 6}


def picture(array: Array) -> str | None:
    """Return the data: URL of an array [height, width, channels]; None if it is not an image.

    Values are scaled from their minimum and maximum. The format is PNG (W3C, 3rd edition).
    """
    image = array[..., None] if array.ndim == 2 else array
    if image.ndim != 3 or image.shape[2] not in COLOUR_TYPES or min(image.shape[:2]) < 4:
        return None
    step = -(-max(image.shape[:2]) // MOST)
    values = image[::step, ::step].astype(np.float64)
    if not np.isfinite(values).all():
        return None
    low, high = values.min(), values.max()
    pixels = ((values - low) * (255 / (high - low) if high > low else 0)).astype(np.uint8)
    height, width, channels = pixels.shape
    # Each line begins with its filter type, 0: none.
    lines = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], axis=1)
    head = struct.pack(">IIBBBBB", width, height, 8, COLOUR_TYPES[channels], 0, 0, 0)
    chunks = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(lines.tobytes())), chunk(b"IEND", b""))
    file = b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    return "data:image/png;base64," + base64.b64encode(file).decode()


def chunk(kind: bytes, contents: bytes) -> bytes:
    """Return one chunk of a PNG file."""
    return struct.pack(">I", len(contents)) + kind + contents + struct.pack(">I", zlib.crc32(kind + contents))

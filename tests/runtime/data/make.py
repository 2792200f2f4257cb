"""Writes the TFRecord files beside it: `python tests/runtime/data/make.py`, where TensorFlow is."""

from pathlib import Path

import numpy as np
import tensorflow as tf

HERE = Path(__file__).parent
ROWS = 20


def example(row: int) -> bytes:
    features = {
        "x": tf.train.Feature(float_list=tf.train.FloatList(value=np.arange(4) + row)),
        "y": tf.train.Feature(int64_list=tf.train.Int64List(value=[row % 3])),
        "name": tf.train.Feature(bytes_list=tf.train.BytesList(value=[f"row {row}".encode()])),
    }
    return bytes(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())


def main() -> None:
    for compression in ("", "GZIP", "ZLIB"):
        file = HERE / f"rows{compression.lower() and '.'}{compression.lower()}.tfrecord"
        with tf.io.TFRecordWriter(str(file), compression) as writer:
            for row in range(ROWS):
                writer.write(example(row))


if __name__ == "__main__":
    main()

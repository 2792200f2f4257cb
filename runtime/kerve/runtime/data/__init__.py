"""Files of rows, read in bounded memory: what `kerve evaluate` and `kerve predict` take.

files.py      the table of formats; several files as one
columns.py    columns become a model's inputs, labels and weights, by their names
numpy_file.py csv_file.py parquet.py tfrecord.py    one format each
"""

from kerve.runtime.data.columns import Rows
from kerve.runtime.data.files import open_files
from kerve.runtime.data.source import DataError

__all__ = ["DataError", "Rows", "open_files"]

"""Files of rows, read in bounded memory: what `kerve evaluate` and `kerve predict` take.

files.py      the table of formats; several files, or a folder, as one
parts.py      the same divided among workers
columns.py    columns become a model's inputs, labels and weights, by their names
numpy_file.py csv_file.py parquet.py tfrecord.py    one format each
images.py     encoded images become pixels
writing.py    the same formats, written
"""

from kerve.runtime.data.columns import Rows
from kerve.runtime.data.files import open_files
from kerve.runtime.data.source import DataError
from kerve.runtime.data.writing import writing

__all__ = ["DataError", "Rows", "open_files", "writing"]

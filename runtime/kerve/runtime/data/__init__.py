"""Data files of `kerve evaluate` and `kerve predict`, read in bounded memory.

files.py      the table of formats; concatenation of several files, or a folder
parts.py      division of files among workers
columns.py    maps columns to a model's inputs, labels and weights, by name
numpy_file.py csv_file.py parquet.py tfrecord.py    one format each
images.py     decodes images to pixels
writing.py    writes the same formats, except TFRecord
"""

from kerve.runtime.data.columns import Rows
from kerve.runtime.data.files import open_files
from kerve.runtime.data.source import DataError
from kerve.runtime.data.writing import writing

__all__ = ["DataError", "Rows", "open_files", "writing"]

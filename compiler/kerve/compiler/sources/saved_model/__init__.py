"""SavedModels of every kind.

describe.py reads what is in the folder without loading it, and whether it may be loaded
  -> source.py      Keras's own go the way of a Keras 2 model; of others one signature is converted
       -> batches.py    how many rows a signature with state takes
       -> examples.py   a signature that takes serialized tf.Examples is cut after their parser
"""

from kerve.compiler.sources.saved_model.source import from_folder

__all__ = ["from_folder"]

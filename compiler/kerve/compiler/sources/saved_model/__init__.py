"""Loading SavedModels of every kind.

describe.py inspects the folder's contents without loading it, and what would need consent
  -> source.py      Keras's own are loaded like a Keras 2 model; of others one signature is converted
       -> batches.py    the batch size of a signature with state
       -> examples.py   a signature that takes serialized tf.Examples is cut after their parser
"""

from kerve.compiler.sources.saved_model.source import from_folder

__all__ = ["from_folder"]

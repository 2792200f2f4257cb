"""Models of Keras 1 and 2, and tf_keras models in memory: loaded with tf_keras and translated to Keras 3.

load (reading.py, after migrate.py has updated the configuration)
  -> translate.py      rebuilds the graph of layers in Keras 3, checked by comparison.py
       -> layers.py    one layer: the Keras 3 layer of the same class
       -> operations.py   a function of TensorFlow that was called on a tensor
       -> bridges.py   what Keras 3 does not have: a Keras 3 layer that calls the old one
"""

from kerve.compiler.sources.keras2.comparison import first_mismatched_output
from kerve.compiler.sources.keras2.layers import UntranslatableError
from kerve.compiler.sources.keras2.reading import from_config
from kerve.compiler.sources.keras2.source import from_file, from_model, from_object, translated

__all__ = [
    "UntranslatableError",
    "first_mismatched_output",
    "from_config",
    "from_file",
    "from_model",
    "from_object",
    "translated",
]

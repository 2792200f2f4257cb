"""Loading every kind of Keras artifact: `load(source)`.

detect the format (detect.py, after the checks of guards.py)
  -> keras3.py       files of Keras 3, and its models in memory
  -> keras2/         files of Keras 1 and 2, loaded with tf-keras and translated into a Keras 3 model
  -> saved_model/    SavedModels: Keras's own are translated, others are converted as a whole
  -> weights.py      an architecture and its weights, in any of these formats
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerve.compiler.sources.options import LoadOptions

if TYPE_CHECKING:
    from kerve.compiler.sources.base import Source

__all__ = ["LoadOptions", "load"]


def load(
    source: Any,
    options: LoadOptions | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    input_signature: Any = None,
    data: Path | None = None,
) -> Source:
    """Load a model.

    `source` is the path of a file or folder, the prefix of a TensorFlow checkpoint, or a model object.
    Code in a file is run only with `options.trust`; modules named in `options.import_` are always run.
    `input_signature` is the signature of a model object that was never called; `data` (a `.npz` file of
    inputs) supplies input shapes that a SavedModel does not specify.
    Raises `LoadError` if no model can be loaded; the message says what to do.
    """
    from kerve.compiler.sources import load_errors, reading  # imports Keras and TensorFlow

    chosen = options if options is not None else LoadOptions()
    if isinstance(source, str | Path):
        with load_errors.reporting_read_errors(Path(source)):
            return reading.from_path(Path(source), chosen, custom_objects, data)
    return reading.from_object(source, input_signature)

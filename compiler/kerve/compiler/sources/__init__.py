"""Reading every kind of Keras artifact: `load(source)`.

recognise (detect.py, after guards.py looked at the file)
  -> keras3.py       what Keras 3 wrote, and its models in memory
  -> keras2/         what Keras 1 and 2 wrote, read with tf-keras and translated into a Keras 3 model
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
    """Read a model.

    `source` is the path of a file or folder, the prefix of a TensorFlow checkpoint, or a model object.
    Code in a file is not run unless `options.trust`; modules named in `options.import_` are.
    `input_signature` says what a model object takes that was never called; `data` (a `.npz` file of inputs),
    what shape inputs have of which a SavedModel says nothing.
    Raises `LoadError` when there is no model to be had, and says what to do.
    """
    from kerve.compiler.sources import load_errors, reading  # Keras and TensorFlow come with it

    chosen = options if options is not None else LoadOptions()
    if isinstance(source, str | Path):
        with load_errors.reporting_read_errors(Path(source)):
            return reading.from_path(Path(source), chosen, custom_objects, data)
    return reading.from_object(source, input_signature)

"""`compile_model`: compile a source and publish the artifact."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerve.compiler import repository as repositories
from kerve.compiler import worker
from kerve.compiler.artifact import Artifact
from kerve.compiler.input_data import with_files
from kerve.compiler.notebook import progress_listener
from kerve.compiler.options import CompileOptions
from kerve.compiler.progress import Listener

__all__ = ["compile_model"]


def compile_model(
    source: Any,
    *,
    repository: str | Path,
    name: str,
    options: CompileOptions | None = None,
    custom_objects: Mapping[str, Any] | None = None,
    input_signature: Any = None,
    data: Any = None,
    calibration: Any = None,
    listener: Listener | None = None,
) -> Artifact:
    """Compile a Keras model, prove the result equal to it, and publish it as the next version of `name`.

    `source` is the path of a model file or folder, or a model object. A file is opened in a child process
    with resource limits, because it may be hostile; a model object, or a file given with `custom_objects`,
    is compiled in this process. `input_signature`, a structure of `keras.InputSpec` or `tf.TensorSpec`, is
    the signature of a subclassed model that was never called or that takes several arguments: the spec of
    the first argument, a tuple of specs, or a dictionary by argument name of `call`. Without it, the
    signature is inferred from `data`. `data` and `calibration` replace the files named in `options`: inputs
    as `model.fit` takes them (arrays, lists or dictionaries of arrays, a tuple of these and labels, or a
    `tf.data.Dataset` of batches), or the path of a `.npz` file. `listener` is called for each stage; by
    default, stages are shown in a notebook only.

    Returns the artifact; `artifact.path` is `<repository>/<name>/<version>/`. Raises `LoadError`,
    `ConversionError` or `VerificationError` (all `CompileError`, which is also raised for a repository that
    cannot be written); nothing is written then. Raises `ValueError` for a name that cannot be served.
    """
    repositories.check_name(name)
    plain = options if options is not None else CompileOptions()
    hear = progress_listener(listener)
    with (
        with_files(plain, data=data, calibration=calibration) as chosen,
        repositories.reporting_write_errors(Path(repository)),
        repositories.staging(Path(repository), name) as folder,
    ):
        if isinstance(source, str | Path) and custom_objects is None:
            worker.run("compile", hear, source=Path(source), folder=folder, name=name, options=chosen)
        else:
            from kerve.compiler.pipeline import build  # imports TensorFlow, as the caller's model already did

            build(source, folder, name, chosen, hear, custom_objects, input_signature)
        return Artifact(repositories.publish(folder, Path(repository) / name))

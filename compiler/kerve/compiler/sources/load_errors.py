"""Translation of errors raised while loading a model into messages that say what to do."""

from __future__ import annotations

import errno
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kerve.compiler.errors import CompileError, LoadError

__all__ = ["OWN_CODE", "one_line", "reporting_load_errors", "reporting_read_errors"]

_LONGEST = 300

#: Error numbers for a full disk. It is the temporary folder's: sources are unpacked, never written to.
_NO_ROOM = frozenset({errno.EDQUOT, errno.EFBIG, errno.ENOSPC})

OWN_CODE = (
    "name the module that defines it with --import MODULE (custom_objects= in Python), written for the "
    "Keras that is installed, or for Keras 2 with TF_USE_LEGACY_KERAS=1 in the environment"
)
_TRUST = (
    "if you know where the file comes from, allow the code in it to run with --trust (trust=True in Python)"
)

#: Patterns of libraries' error messages, and what to do.
_REMEDIES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"Could not locate function 'preprocess_input'"),
        "Keras does not save which of its applications it belongs to: give a module with --import that "
        "defines it, as def preprocess_input(x): return keras.applications.NAME.preprocess_input(x)",
    ),
    (
        re.compile(r"was never built"),
        "build it in the build() of the layer or cell around it and save the model again, or build the model "
        "in Python, call it, load its weights and compile the object",
    ),
    (
        re.compile(r"Could not locate (class|function)|Unknown (layer|object|\w+ function)|custom_object"),
        OWN_CODE,
    ),
    (re.compile(r"safe_mode|unsafe|[Ll]ambda.*(disallow|deserializ)|arbitrary code"), _TRUST),
    (
        re.compile(r"bad marshal data|marshal data too short|EOF read where object expected"),
        "its Lambda holds bytecode of another version of Python: load the model with that version and save "
        "it as a SavedModel, or give its Lambda a named function, save it again, and name the module that "
        "defines the function with --import MODULE (custom_objects= in Python)",
    ),
    (
        re.compile(r"deserializing class '\w+Cell'"),
        "Keras 2.0 does not save the configuration of its cells: build the model in Python, load its "
        "weights, and compile the object",
    ),
    (
        re.compile(r"vocabulary size cannot be changed|no attribute 'idf_weights'"),
        "Keras 3 does not save vocabularies in HDF5: save the model as .keras",
    ),
    (
        re.compile(r"Unknown value for `\w+` argument"),
        "Keras 3 does not find custom functions of HDF5 files: save the model as .keras",
    ),
    (
        re.compile(r"maximum recursion depth exceeded"),
        "it has more layers in a row than Keras can follow within sys.getrecursionlimit(): load the model in "
        "Python with a higher limit, and compile the object",
    ),
    (
        re.compile(r"\(type Lambda\).*name '\w+' is not defined", re.DOTALL),
        "its Lambda uses a name of the module it was written in: give a module that defines it with "
        "--import MODULE (custom_objects= in Python), or build the model there, load the weights, and "
        "compile the object",
    ),
    (
        re.compile(r"\(type TFOpLambda\)"),
        "Keras 2 does not save the inputs of some TensorFlow functions in such files: save it as a "
        "SavedModel, or build the model in Python, load its weights and compile the object",
    ),
    (
        re.compile(r"expected 0 layers, found"),
        "the file does not describe the inputs, as for a subclassed model, or for a Sequential that begins "
        "with an InputLayer in Keras up to 2.3 or TensorFlow up to 1.14: build the model in Python, load its "
        "weights from the file, and compile the object",
    ),
    (
        re.compile(
            r"received 1 variables during loading\. Expected: \['gamma', 'beta'\]"
            r"|named layer_norm.*expects 2 weight\(s\)\. Received 1 saved"
        ),
        "Keras 3.0 to 3.3 do not save the rms_scaling of a LayerNormalization: if the model uses it, "
        "build the model in Python, load its weights, and compile the object",
    ),
    (
        re.compile(r"depthwise_kernel.*shape mismatch", re.IGNORECASE),
        "TensorFlow up to 1.11 does not save the depth_multiplier of separable convolutions: build the "
        "model in Python, load its weights, and compile the object",
    ),
    (
        re.compile(
            r"expected \d+ variables|shape mismatch|(layer|weight) count|assigned value shape", re.IGNORECASE
        ),
        "the weights do not belong to it; or layers within others (MultiHeadAttention) are quantized or have "
        "LoRA, which Keras does not save for those: then compile the model object",
    ),
    (
        re.compile(r"cannot add new elements of state .* already built"),
        "a build() method builds a layer that from_config() has already built: check the layer's .built "
        "first, or compile the model object",
    ),
    (
        re.compile(r"No OpKernel was registered|Op type not registered"),
        "it belongs to an extension or an older version of TensorFlow (as boosted trees do) and has no ONNX "
        "form: save the model without it",
    ),
    (
        re.compile(r"Exception encountered when calling.*has no attribute", re.DOTALL),
        "a file only holds what a layer keeps in its weights and returns from get_config(): keep everything "
        "there, or compile the model object",
    ),
    (
        re.compile(r"(Exception|Error) encountered.*: .*__init__\(\)"),
        "its __init__ must take **kwargs, and get_config() return its arguments; or compile the model object",
    ),
)
#: Where the cause begins in a library's message: an error in custom code, or a missing operator.
_CAUSE = re.compile(
    r"encountered(?: when calling .+?| during \w+)?[:.]\s+"
    r"|(?=No OpKernel was registered|Op type not registered)"
)
_STYLE = re.compile(r"\x1b\[\d+m")
_OTHERWISE = "check that the file is complete and was written by Keras"


@contextmanager
def reporting_read_errors(path: Path) -> Iterator[None]:
    """Convert system errors raised while a source is read into `LoadError`."""
    try:
        yield
    except OSError as error:
        raise LoadError(f"cannot load {path}: {_refusal(path, error)}") from error
    except RecursionError as error:
        raise LoadError(f"cannot load {path}: its configuration is nested too deeply") from error


def _refusal(path: Path, error: OSError) -> str:
    if error.errno in _NO_ROOM:
        return (
            f"the temporary folder {tempfile.gettempdir()} cannot be written to ({error.strerror}); "
            "free space there, or set TMPDIR to another folder"
        )
    return f"{error.filename or path} cannot be read ({error.strerror or error})"


@contextmanager
def reporting_load_errors(path: Path) -> Iterator[None]:
    """Convert any exception raised inside into a `LoadError` of one sentence."""
    try:
        yield
    except CompileError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            raise LoadError(f"cannot load {path}: {_refusal(path, error)}") from error
        text = str(error)
        remedy = next((remedy for pattern, remedy in _REMEDIES if pattern.search(text)), _OTHERWISE)
        raise LoadError(f"cannot load {path}: {_inmost(error)}; {remedy}") from error


def _inmost(error: Exception) -> str:
    """Return the innermost cause within Keras's messages on a failed layer, or the message's first line."""
    _, *causes = _CAUSE.split(str(error))
    return one_line(ValueError(_STYLE.sub("", causes[-1]).partition("\n")[0])) if causes else one_line(error)


def one_line(error: BaseException) -> str:
    """Return the first paragraph of an error's message as one line of limited length."""
    paragraph = str(error).strip().partition("\n\n")[0]
    text = " ".join(paragraph.split()).rstrip(".;:") or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."

"""What goes wrong in a library that reads a model, in words that help."""

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

#: What the system says when a file does not fit: sources are never written to, only unpacked.
_NO_ROOM = frozenset({errno.EDQUOT, errno.EFBIG, errno.ENOSPC})

OWN_CODE = (
    "name the module that defines it with --import MODULE (custom_objects= in Python), written for the "
    "Keras that is installed, or for Keras 2 with TF_USE_LEGACY_KERAS=1 in the environment"
)
_TRUST = (
    "if you know where the file comes from, allow the code in it to run with --trust (trust=True in Python)"
)

#: What libraries say, and what to do about it.
_REMEDIES: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"Could not locate function 'preprocess_input'"),
        "Keras does not write down of which of its applications it is: give a module with --import that "
        "defines it, as def preprocess_input(x): return keras.applications.NAME.preprocess_input(x)",
    ),
    (
        re.compile(r"was never built"),
        "have the build() of the layer or cell around it build it and save the model again, or build the "
        "model in Python, call it, load its weights and compile the object",
    ),
    (
        re.compile(r"Could not locate (class|function)|Unknown (layer|object|\w+ function)|custom_object"),
        OWN_CODE,
    ),
    (re.compile(r"safe_mode|unsafe|[Ll]ambda.*(disallow|deserializ)|arbitrary code"), _TRUST),
    (
        re.compile(r"bad marshal data|marshal data too short|EOF read where object expected"),
        "its Lambda holds bytecode of another version of Python: load the model with that version and save "
        "it as a SavedModel, or give its Lambda a function with a name, save it, and name the module that "
        "defines the function with --import MODULE (custom_objects= in Python)",
    ),
    (
        re.compile(r"deserializing class '\w+Cell'"),
        "Keras 2.0 does not write down what its cells are made with: build the model in Python, load its "
        "weights, and compile the object",
    ),
    (
        re.compile(r"vocabulary size cannot be changed|no attribute 'idf_weights'"),
        "Keras 3 leaves vocabularies out of HDF5: save the model as .keras",
    ),
    (
        re.compile(r"Unknown value for `\w+` argument"),
        "Keras 3 does not find a function of one's own again in HDF5: save the model as .keras",
    ),
    (
        re.compile(r"maximum recursion depth exceeded"),
        "Keras follows no more layers in a row than sys.getrecursionlimit() says: load the model in Python "
        "under a higher limit, and compile the object",
    ),
    (
        re.compile(r"\(type Lambda\).*name '\w+' is not defined", re.DOTALL),
        "its Lambda uses a name of the module it was written in: give a module that defines it with "
        "--import MODULE (custom_objects= in Python), or build the model there, load the weights, and "
        "compile the object",
    ),
    (
        re.compile(r"\(type TFOpLambda\)"),
        "Keras 2 leaves out of such files what some functions of TensorFlow were called on: save it as a "
        "SavedModel, or build the model in Python, load its weights and compile the object",
    ),
    (
        re.compile(r"expected 0 layers, found"),
        "the file does not say what the inputs are, as of a subclassed model, or of a Sequential that began "
        "with an InputLayer in Keras up to 2.3 or TensorFlow up to 1.14: build the model in Python, load its "
        "weights from the file, and compile the object",
    ),
    (
        re.compile(
            r"received 1 variables during loading\. Expected: \['gamma', 'beta'\]"
            r"|named layer_norm.*expects 2 weight\(s\)\. Received 1 saved"
        ),
        "Keras 3.0 to 3.3 do not write down the rms_scaling of a LayerNormalization: if the model has it, "
        "build the model in Python, load its weights, and compile the object",
    ),
    (
        re.compile(r"depthwise_kernel.*shape mismatch", re.IGNORECASE),
        "TensorFlow up to 1.11 does not write down the depth_multiplier of separable convolutions: build the "
        "model in Python, load its weights, and compile the object",
    ),
    (
        re.compile(
            r"expected \d+ variables|shape mismatch|(layer|weight) count|assigned value shape", re.IGNORECASE
        ),
        "the weights do not belong to it; or layers within others (MultiHeadAttention) are quantized or have "
        "LoRA, which Keras does not write down of those: compile the model object then",
    ),
    (
        re.compile(r"cannot add new elements of state .* already built"),
        "a build() that builds a layer which from_config() read, built already, must ask its .built first; "
        "or compile the model object",
    ),
    (
        re.compile(r"No OpKernel was registered|Op type not registered"),
        "it belongs to an extension of TensorFlow, or to an older one (as boosted trees do), and has no ONNX "
        "form: save the model without it",
    ),
    (
        re.compile(r"Exception encountered when calling.*has no attribute", re.DOTALL),
        "what a layer learns must be among its weights, and what it is made with in its get_config(), or it "
        "is not in the file; or compile the model object",
    ),
    (
        re.compile(r"(Exception|Error) encountered.*: .*__init__\(\)"),
        "its __init__ must take **kwargs, and get_config() give its arguments; or compile the model object",
    ),
)
#: Where what went wrong begins in what libraries say: an author's own error, or an operator that is missing.
_CAUSE = re.compile(
    r"encountered(?: when calling .+?| during \w+)?[:.]\s+"
    r"|(?=No OpKernel was registered|Op type not registered)"
)
_STYLE = re.compile(r"\x1b\[\d+m")
_OTHERWISE = "check that the file is whole and was written by Keras"


@contextmanager
def reporting_read_errors(path: Path) -> Iterator[None]:
    """Turn what the system refuses while a source is read into a `LoadError`."""
    try:
        yield
    except OSError as error:
        raise LoadError(f"cannot load {path}: {_refusal(path, error)}") from error
    except RecursionError as error:
        raise LoadError(
            f"cannot load {path}: its configuration is nested deeper than can be followed"
        ) from error


def _refusal(path: Path, error: OSError) -> str:
    if error.errno in _NO_ROOM:
        return (
            f"the temporary folder {tempfile.gettempdir()} takes no more ({error.strerror}); "
            "make room there, or name another one in TMPDIR"
        )
    return f"{error.filename or path} cannot be read ({error.strerror or error})"


@contextmanager
def reporting_load_errors(path: Path) -> Iterator[None]:
    """Turn whatever is raised inside into a `LoadError` of one sentence."""
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
    """Return what went wrong below layers that Keras could not make or call, or what it says first."""
    _, *causes = _CAUSE.split(str(error))
    return one_line(ValueError(_STYLE.sub("", causes[-1]).partition("\n")[0])) if causes else one_line(error)


def one_line(error: BaseException) -> str:
    """Return what an error says first, in one line that is not too long."""
    paragraph = str(error).strip().partition("\n\n")[0]
    text = " ".join(paragraph.split()).rstrip(".;:") or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."

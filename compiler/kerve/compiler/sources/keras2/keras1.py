"""Conversion of Keras 1 layer configurations to Keras 2: names, sizes in several arguments, `Merge`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kerve.compiler.errors import ConversionError

__all__ = ["ONLY_IN_KERAS_1", "VERSION_OF_WEIGHTS", "is_writer", "modernized"]

#: For weights of this version, tf_keras converts the order of axes and gates.
VERSION_OF_WEIGHTS = "1"

#: Keras 2.0 and 2.1 still had these layers, with the configurations of Keras 1.
ONLY_IN_KERAS_1 = frozenset({"Highway", "MaxoutDense", "Merge"})

_Fields = dict[str, Any]

#: Arguments and their names in Keras 2.
_ARGUMENTS = {
    "b_regularizer": "bias_regularizer",
    "bias": "use_bias",
    "border_mode": "padding",
    "inner_activation": "recurrent_activation",
    "nb_filter": "filters",
    "subsample": "strides",
    "U_regularizer": "recurrent_regularizer",
    "W_regularizer": "kernel_regularizer",
    "atrous_rate": "dilation_rate",
    "dropout_W": "dropout",
    "dropout_U": "recurrent_dropout",
}

#: The same for individual layers.
_ARGUMENTS_OF = {
    "AveragePooling1D": {"pool_length": "pool_size", "stride": "strides"},
    "Convolution1D": {"filter_length": "kernel_size", "subsample_length": "strides"},
    "AtrousConvolution1D": {"filter_length": "kernel_size", "subsample_length": "strides"},
    "Deconvolution2D": {"output_shape": "output_shape"},
    "Dense": {"output_dim": "units"},
    "Dropout": {"p": "rate"},
    "Embedding": {"W_regularizer": "embeddings_regularizer", "input_dim": "input_dim"},
    "GRU": {"output_dim": "units"},
    "GaussianDropout": {"p": "rate"},
    "GaussianNoise": {"sigma": "stddev"},
    "InputLayer": {"input_dtype": "dtype"},
    "LSTM": {"output_dim": "units"},
    "MaxoutDense": {"output_dim": "units"},
    "MaxPooling1D": {"pool_length": "pool_size", "stride": "strides"},
    "SimpleRNN": {"output_dim": "units"},
    "SpatialDropout1D": {"p": "rate"},
    "SpatialDropout2D": {"p": "rate"},
    "SpatialDropout3D": {"p": "rate"},
    "TimeDistributedDense": {"output_dim": "units"},
    "UpSampling1D": {"length": "size"},
}

_NAMES = {
    "AtrousConvolution1D": "Conv1D",
    "AtrousConvolution2D": "Conv2D",
    "Convolution1D": "Conv1D",
    "Convolution2D": "Conv2D",
    "Convolution3D": "Conv3D",
    "Deconvolution2D": "Conv2DTranspose",
    "SeparableConvolution2D": "SeparableConv2D",
    "TimeDistributedDense": "Dense",
}

#: Arguments that do not affect the outputs of a layer with given weights, or that follow from others; except
#: for layers that have an entry for them above.
_GONE = frozenset(
    {"consume_less", "init", "input_dim", "input_dtype", "input_length", "output_shape", "weights"}
)
_OF_TRAINING = ("_init", "_constraint")

_SIZES = (("nb_row", "nb_col"), ("kernel_dim1", "kernel_dim2", "kernel_dim3"))
_DATA_FORMATS = {"th": "channels_first", "tf": "channels_last"}

_MERGES = {"sum": "Add", "mul": "Multiply", "ave": "Average", "max": "Maximum", "concat": "Concatenate"}


def is_writer(keras_version: str) -> bool:
    """Return whether a version is one of Keras 1."""
    return keras_version.partition(".")[0] == "1"


def modernized(name: str, config: _Fields) -> tuple[str, _Fields]:
    """Return the class and the configuration of Keras 2 for a layer of Keras 1."""
    if name == "Merge":
        return _merge(config)
    if name == "Lambda":  # has the same configuration
        return name, config
    own = _ARGUMENTS_OF.get(name, {})
    fields: _Fields = {}
    for key, value in config.items():
        if key.endswith(_OF_TRAINING) or (key in _GONE and key not in own):
            continue
        current = own.get(key) or _ARGUMENTS.get(key, key)
        fields[current] = _regularizer(value) if key.endswith("_regularizer") else value
    for parts in _SIZES:
        if all(part in fields for part in parts):
            fields["kernel_size"] = [fields.pop(part) for part in parts]
    if "dim_ordering" in fields:
        fields["data_format"] = _DATA_FORMATS.get(fields.pop("dim_ordering"))
    change = _CHANGES.get(name)
    return (_NAMES.get(name, name), fields) if change is None else change(fields)


def _regularizer(value: Any) -> Any:
    if not isinstance(value, dict) or not {"l1", "l2"} & set(value):
        return value
    return {"class_name": "L1L2", "config": {key: value.get(key, 0.0) for key in ("l1", "l2")}}


def _normalization(fields: _Fields) -> tuple[str, _Fields]:
    mode = fields.pop("mode", 0)
    if mode == 0:
        return "BatchNormalization", fields
    if mode == 1:
        unused = ("axis", "momentum")
        return "SampleNormalization", {key: value for key, value in fields.items() if key not in unused}
    raise ConversionError(
        f"layer '{fields.get('name')}' is a BatchNormalization of Keras 1 in mode {mode}, which normalizes "
        "each batch by its own statistics, so that an output depends on the batch's other rows; "
        "train the model with mode 0"
    )


def _embedding(fields: _Fields) -> tuple[str, _Fields]:
    fields.pop("dropout", None)
    return "Embedding", fields


_CHANGES: dict[str, Callable[[_Fields], tuple[str, _Fields]]] = {
    "BatchNormalization": _normalization,
    "Embedding": _embedding,
}


def _merge(config: _Fields) -> tuple[str, _Fields]:
    same: _Fields = {"name": config["name"]} if "name" in config else {}
    if "layers" in config:  # as the first layer of a Sequential, it contains its input branches
        same["branches"] = config["layers"]
    mode = config.get("mode")
    if mode in ("dot", "cos"):
        return "Dot" if mode == "dot" else "Cosine", {**same, "axes": config.get("dot_axes", -1)}
    if mode not in _MERGES:
        raise ConversionError(
            f"layer '{config.get('name')}' is a Merge of Keras 1 with a custom function, which is "
            "saved as bytecode of an old Python; build the model from current layers, and load the weights"
        )
    axis = {"axis": config.get("concat_axis", -1)} if mode == "concat" else {}
    return _MERGES[mode], {**same, **axis}

"""The models of conversion.py: weights are random but seeded, with statistics for which outputs vary."""

from collections.abc import Callable

import keras
import numpy as np
from keras import layers

__all__ = ["EVERYDAY", "HEAVY", "LISTED", "build", "inputs_for"]

#: The builder of each model, by name.
_MODELS: dict[str, Callable[[], keras.Model]] = {}


def model(name: str) -> Callable[[Callable[[], keras.Model]], None]:
    def enter(builder: Callable[[], keras.Model]) -> None:
        _MODELS[name] = builder

    return enter


def application(name: str, factory: Callable[..., keras.Model], size: int = 224) -> None:
    _MODELS[name] = lambda: factory(
        weights=None, input_shape=(size, size, 3), classes=100, classifier_activation=None
    )


application("MobileNetV2", keras.applications.MobileNetV2)
application("ResNet50", keras.applications.ResNet50)
application("EfficientNetB0", keras.applications.EfficientNetB0)
application("ConvNeXtTiny", keras.applications.ConvNeXtTiny)
application("NASNetMobile", keras.applications.NASNetMobile)


@model("LSTM")
def lstm() -> keras.Model:
    return keras.Sequential([layers.Input((100, 32)), layers.LSTM(128), layers.Dense(10)])


@model("masked LSTM")
def masked_lstm() -> keras.Model:
    return keras.Sequential(
        [
            layers.Input((100,), dtype="int32"),
            layers.Embedding(1000, 32, mask_zero=True),
            layers.LSTM(128),
            layers.Dense(10),
        ]
    )


@model("GRU")
def gru() -> keras.Model:
    return keras.Sequential([layers.Input((100, 32)), layers.GRU(128), layers.Dense(10)])


def encoder_block(x: keras.KerasTensor, heads: int, width: int, activation: str) -> keras.KerasTensor:
    normal = layers.LayerNormalization(epsilon=1e-6)(x)
    x = x + layers.MultiHeadAttention(heads, width // heads)(normal, normal)
    normal = layers.LayerNormalization(epsilon=1e-6)(x)
    return x + layers.Dense(width)(layers.Dense(4 * width, activation=activation)(normal))


@model("transformer encoder")
def transformer() -> keras.Model:
    ids = keras.Input((128,), dtype="int32")
    x = layers.Embedding(1000, 256)(ids)
    for _ in range(4):
        x = encoder_block(x, 4, 256, "relu")
    return keras.Model(ids, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


@model("ViT-like")
def vit() -> keras.Model:
    image = keras.Input((96, 96, 3))
    x = layers.Conv2D(192, 8, strides=8)(image)
    x = layers.Reshape((144, 192))(x)
    for _ in range(4):
        x = encoder_block(x, 3, 192, "gelu")
    x = layers.LayerNormalization(epsilon=1e-6)(x)
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


#: The models with performance targets.
LISTED = tuple(_MODELS)


@model("large transformer")
def large_transformer() -> keras.Model:
    """Return a model with half a gigabyte in many matrices."""
    ids = keras.Input((None,), dtype="int32")
    x = layers.Embedding(30_000, 1024)(ids)
    for _ in range(8):
        x = encoder_block(x, 16, 1024, "gelu")
    return keras.Model(ids, layers.Dense(10)(layers.GlobalAveragePooling1D()(x)))


@model("two matrices")
def two_matrices() -> keras.Model:
    """Return a model with half a gigabyte in two matrices: any copy of one is a copy of half of the model."""
    x = keras.Input((8192,))
    return keras.Model(x, layers.Dense(8192)(layers.Dense(8192, activation="relu")(x)))


#: Models so large that TensorFlow's own memory does not matter.
HEAVY = ("ResNet50", "large transformer", "two matrices")


application("DenseNet121", keras.applications.DenseNet121)
application("EfficientNetV2B0", keras.applications.EfficientNetV2B0)
application("MobileNetV3Small", keras.applications.MobileNetV3Small)
application("Xception", keras.applications.Xception, 299)


def conv_block(x: keras.KerasTensor, width: int) -> keras.KerasTensor:
    for _ in range(2):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.Activation("relu")(layers.BatchNormalization()(x))
    return x


@model("U-Net")
def unet() -> keras.Model:
    image = keras.Input((128, 128, 3))
    x, skips = image, []
    for width in (16, 32, 64):
        x = conv_block(x, width)
        skips.append(x)
        x = layers.MaxPooling2D()(x)
    x = conv_block(x, 128)
    for width, skip in zip((64, 32, 16), reversed(skips), strict=True):
        x = layers.Conv2DTranspose(width, 2, strides=2, padding="same")(x)
        x = conv_block(layers.Concatenate()([x, skip]), width)
    return keras.Model(image, layers.Conv2D(1, 1, activation="sigmoid")(x))


@model("U-Net, transposes of 3")
def unet3() -> keras.Model:
    image = keras.Input((128, 128, 3))
    down = layers.Conv2D(32, 3, strides=2, padding="same", activation="relu")(image)
    deep = layers.SeparableConv2D(64, 3, strides=2, padding="same", activation="relu")(down)
    up = layers.Conv2DTranspose(32, 3, strides=2, padding="same", activation="relu")(deep)
    up = layers.Conv2DTranspose(16, 3, strides=2, padding="same", activation="relu")(up + down)
    up = layers.UpSampling2D(interpolation="bilinear")(layers.AveragePooling2D(2)(up))
    return keras.Model(image, layers.Conv2D(4, 1, activation="softmax")(up))


@model("MLP with BatchNormalization")
def mlp() -> keras.Model:
    stack = [layers.Input((64,))]
    for _ in range(3):
        stack += [
            layers.Dense(256),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.Dropout(0.3),
        ]
    return keras.Sequential([*stack, layers.Dense(10, activation="softmax")])


@model("BiLSTM with attention")
def bilstm() -> keras.Model:
    ids = keras.Input((80,), dtype="int32")
    x = layers.Embedding(1000, 64, mask_zero=True)(ids)
    x = layers.Bidirectional(layers.LSTM(64, return_sequences=True))(x)
    weights = layers.Softmax()(layers.Flatten()(layers.Dense(1)(x)))
    x = layers.Dot(axes=1)([weights, x])
    return keras.Model(ids, layers.Dense(5)(x))


@model("GRU sequence to sequence")
def seq2seq() -> keras.Model:
    source, target = keras.Input((40,), dtype="int32"), keras.Input((40,), dtype="int32")
    encoded, state = layers.GRU(128, return_sequences=True, return_state=True)(
        layers.Embedding(1000, 64, mask_zero=True)(source)
    )
    x = layers.GRU(128, return_sequences=True)(
        layers.Embedding(1000, 64, mask_zero=True)(target), initial_state=state
    )
    x = layers.Concatenate()([x, layers.Attention()([x, encoded])])
    return keras.Model([source, target], layers.Dense(1000)(x))


@model("stacked LSTM")
def stacked() -> keras.Model:
    return keras.Sequential(
        [
            layers.Input((60, 16)),
            layers.LSTM(64, return_sequences=True),
            layers.LSTM(64, return_sequences=True),
            layers.LSTM(32),
            layers.Dense(1),
        ]
    )


@model("WaveNet")
def wavenet() -> keras.Model:
    signal = keras.Input((1024, 1))
    x = layers.Conv1D(32, 2, padding="causal")(signal)
    skips = []
    for dilation in (1, 2, 4, 8, 16, 32):
        filtered = layers.Conv1D(32, 2, padding="causal", dilation_rate=dilation, activation="tanh")(x)
        gate = layers.Conv1D(32, 2, padding="causal", dilation_rate=dilation, activation="sigmoid")(x)
        gated = layers.Multiply()([filtered, gate])
        skips.append(layers.Conv1D(32, 1)(gated))
        x = layers.Add()([x, layers.Conv1D(32, 1)(gated)])
    return keras.Model(signal, layers.Conv1D(1, 1)(layers.Activation("relu")(layers.Add()(skips))))


@model("Conv1D and BiGRU")
def crnn() -> keras.Model:
    stack = [layers.Input((400, 12))]
    for width in (32, 64):
        stack += [layers.Conv1D(width, 5, padding="same"), layers.BatchNormalization(), layers.ReLU()]
        stack += [layers.MaxPooling1D(2)]
    stack += [layers.Bidirectional(layers.GRU(64, return_sequences=True)), layers.GlobalMaxPooling1D()]
    return keras.Sequential([*stack, layers.Dense(5)])


@model("ConvLSTM")
def convlstm() -> keras.Model:
    return keras.Sequential(
        [
            layers.Input((8, 32, 32, 1)),
            layers.ConvLSTM2D(16, 3, padding="same", return_sequences=True),
            layers.BatchNormalization(),
            layers.ConvLSTM2D(16, 3, padding="same"),
            layers.Conv2D(1, 3, padding="same", activation="sigmoid"),
        ]
    )


@model("text classifier")
def text() -> keras.Model:
    vectorize = layers.TextVectorization(max_tokens=500, output_sequence_length=40)
    vectorize.adapt([f"word{number}" for number in range(500)])
    line = keras.Input((), dtype="string")
    x = layers.Embedding(500, 32, mask_zero=True)(vectorize(line))
    x = layers.Dense(32, activation="relu")(layers.GlobalAveragePooling1D()(x))
    return keras.Model(line, layers.Dense(2)(x))


@model("transformer decoder")
def decoder() -> keras.Model:
    ids = keras.Input((64,), dtype="int32")
    x = layers.Embedding(1000, 128, mask_zero=True)(ids)
    for _ in range(3):
        normal = layers.RMSNormalization()(x)
        attended = layers.GroupQueryAttention(32, 4, 2)(normal, normal, use_causal_mask=True)
        x = x + attended
        normal = layers.RMSNormalization()(x)
        gated = layers.Dense(256, activation="silu")(normal) * layers.Dense(256)(normal)
        x = x + layers.Dense(128)(gated)
    return keras.Model(ids, layers.Dense(1000)(layers.RMSNormalization()(x)))


@model("BERT-like")
def bert() -> keras.Model:
    ids = keras.Input((96,), dtype="int32")
    x = layers.Embedding(1000, 128, mask_zero=True)(ids)
    for _ in range(3):
        attended = layers.MultiHeadAttention(4, 32)(x, x)
        x = layers.LayerNormalization(epsilon=1e-12)(x + attended)
        hidden = layers.Dense(128)(layers.Dense(512, activation="gelu")(x))
        x = layers.LayerNormalization(epsilon=1e-12)(x + hidden)
    return keras.Model(ids, layers.Dense(2)(x[:, 0]))


@model("GroupNorm network")
def groupnorm() -> keras.Model:
    image = keras.Input((64, 64, 3))
    x = layers.Conv2D(32, 3, padding="same")(image)
    for _ in range(4):
        shortcut = x
        x = layers.Activation("silu")(layers.GroupNormalization(8)(x))
        x = layers.Conv2D(32, 3, padding="same")(x) + shortcut
    return keras.Model(image, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


@model("squeeze and excitation")
def excitation() -> keras.Model:
    image = keras.Input((96, 96, 3))
    x = layers.Conv2D(32, 3, strides=2, padding="same", activation="hard_swish")(image)
    for _ in range(3):
        scale = layers.GlobalAveragePooling2D(keepdims=True)(x)
        scale = layers.Conv2D(8, 1, activation="relu")(scale)
        x = layers.Multiply()([x, layers.Conv2D(32, 1, activation="hard_sigmoid")(scale)])
        x = layers.DepthwiseConv2D(3, padding="same")(x)
        x = layers.BatchNormalization()(layers.Conv2D(32, 1)(layers.PReLU(shared_axes=[1, 2])(x)))
    return keras.Model(image, layers.Dense(10)(layers.Flatten()(layers.MaxPooling2D(4)(x))))


@model("Conv3D network")
def conv3d() -> keras.Model:
    stack = [layers.Input((16, 32, 32, 1))]
    for width in (8, 16):
        stack += [layers.Conv3D(width, 3, padding="same"), layers.BatchNormalization(), layers.ReLU()]
        stack += [layers.MaxPooling3D()]
    return keras.Sequential([*stack, layers.GlobalAveragePooling3D(), layers.Dense(4)])


@model("frames through TimeDistributed")
def frames() -> keras.Model:
    return keras.Sequential(
        [
            layers.Input((8, 48, 48, 3)),
            layers.TimeDistributed(layers.Conv2D(16, 3, strides=2, activation="relu")),
            layers.TimeDistributed(layers.MaxPooling2D()),
            layers.TimeDistributed(layers.Flatten()),
            layers.GRU(32),
            layers.Dense(4),
        ]
    )


@model("wide and deep")
def wide() -> keras.Model:
    numbers, ids = keras.Input((16,)), keras.Input((6,), dtype="int32")
    x = layers.Concatenate()([layers.Normalization(mean=0.5, variance=2.0)(numbers)])
    embedded = layers.Flatten()(layers.Embedding(1000, 8)(ids))
    deep = layers.Dense(64, activation="relu")(layers.Concatenate()([x, embedded]))
    deep = layers.Dense(32, activation="relu")(layers.LayerNormalization()(deep))
    return keras.Model([numbers, ids], layers.Dense(1)(deep) + layers.Dense(1)(x))


EVERYDAY = tuple(name for name in _MODELS if name not in (*LISTED, *HEAVY))


def build(name: str) -> keras.Model:
    """Return the model as if trained: its biases vary, its moving statistics are those of a random batch."""
    keras.utils.set_random_seed(0)
    built = _MODELS[name]()
    rng = np.random.default_rng(0)
    for weight in built.weights:
        initial = weight.numpy()
        if initial.dtype == np.float32 and np.ptp(initial) == 0.0:
            weight.assign(initial + rng.normal(0.0, 0.05, initial.shape))
    normal = [layer for layer in built.layers if isinstance(layer, layers.BatchNormalization)]
    momenta = [layer.momentum for layer in normal]
    for layer in normal:
        layer.momentum = 0.0
    if normal:
        built(inputs_for(built, 4)[0], training=True)
    for layer, momentum in zip(normal, momenta, strict=True):
        layer.momentum = momentum
    return built


def inputs_for(built: keras.Model, batch: int) -> list[np.ndarray]:
    """Return a batch of inputs; token ids end with padding of varying length."""
    rng = np.random.default_rng(batch)
    return [_input(tensor, batch, rng) for tensor in built.inputs]


def _input(tensor: keras.KerasTensor, batch: int, rng: np.random.Generator) -> np.ndarray:
    shape = tuple(64 if size is None else size for size in tensor.shape[1:])
    if tensor.dtype == "string":
        lines = [" ".join(f"word{number}" for number in row) for row in rng.integers(0, 500, (batch, 40))]
        return np.array(lines, dtype=object).reshape(batch, *shape)
    if tensor.dtype != "int32":
        noise = rng.standard_normal((batch, *shape), np.float32)
        return noise if len(shape) != 3 else noise + _patches(batch, shape, rng)
    tokens = rng.integers(1, 1000, (batch, *shape)).astype(np.int32)
    lengths = rng.integers(shape[0] // 2, shape[0] + 1, batch)
    return np.where(np.arange(shape[0]) < lengths[:, None], tokens, 0).astype(np.int32)


def _patches(batch: int, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Return images of coarse patches: for pure noise, the deep features of a network hardly vary."""
    coarse = rng.standard_normal((batch, shape[0] // 16 + 1, shape[1] // 16 + 1, shape[2]), np.float32)
    fine: np.ndarray = 2.0 * coarse.repeat(16, axis=1).repeat(16, axis=2)[:, : shape[0], : shape[1]]
    return fine

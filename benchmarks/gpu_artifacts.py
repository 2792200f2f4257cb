"""The models measured by `gpu.py`: built and compiled on a machine with TensorFlow, for the one with the GPU.

    python gpu_artifacts.py FOLDER [--only NAME,...] [--add FILE ...]

Writes FOLDER/parts: files of at most 56 MiB with all artifacts, the load generator and the files given with
`--add` (wheels that the other machine cannot download). `unpack` extracts them there, with plain Python.
Weights are random, with sixteen values per layer, so that they compress to half a byte each; the time of
products does not depend on the values.
"""

import argparse
import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

__all__ = ["MODELS", "PRECISIONS", "unpack"]

PART = 56 << 20
MODELS = ("mlp", "lstm", "vit", "mobilenetv2", "efficientnetb0", "resnet50")
# The precisions of artifacts; TF32 uses those of float32.
PRECISIONS: tuple[Literal["float32", "float16"], ...] = ("float32", "float16")
LOAD = Path(__file__).parent.parent / "runtime" / "wire" / "target" / "release" / "examples" / "load"


def build(name: str) -> Any:
    """Return a Keras model."""
    import keras
    from keras import layers

    def mlp() -> Any:
        return keras.Sequential(
            [keras.Input((32,), name="x"), *(layers.Dense(64, "relu") for _ in range(2)), layers.Dense(10)]
        )

    def lstm() -> Any:
        return keras.Sequential([keras.Input((100, 32), name="x"), layers.LSTM(128), layers.Dense(10)])

    def vit() -> Any:
        x = image = keras.Input((224, 224, 3), name="x")
        x = layers.Reshape((196, 192))(layers.Conv2D(192, 16, strides=16)(x))
        for _ in range(6):
            normal = layers.LayerNormalization(epsilon=1e-6)(x)
            x = x + layers.MultiHeadAttention(3, 64)(normal, normal)
            normal = layers.LayerNormalization(epsilon=1e-6)(x)
            x = x + layers.Dense(192)(layers.Dense(768, activation="gelu")(normal))
        x = layers.GlobalAveragePooling1D()(layers.LayerNormalization(epsilon=1e-6)(x))
        return keras.Model(image, layers.Dense(100)(x))

    def application(factory: Callable[..., Any]) -> Callable[[], Any]:
        image = keras.Input((224, 224, 3), name="x")
        options = {"weights": None, "classes": 100, "classifier_activation": None}
        return lambda: factory(input_tensor=image, **options)

    builders: dict[str, Callable[[], Any]] = {
        "mlp": mlp,
        "lstm": lstm,
        "vit": vit,
        "mobilenetv2": application(keras.applications.MobileNetV2),
        "efficientnetb0": application(keras.applications.EfficientNetB0),
        "resnet50": application(keras.applications.ResNet50),
    }
    return builders[name]()


def coarsen(model: Any) -> None:
    """Set every matrix to sixteen distinct values, with the distribution of He's normal initializer."""
    import numpy as np

    generator = np.random.default_rng(0)
    levels = np.sort(generator.standard_normal(1 << 12)).reshape(16, -1).mean(1)
    for weight in model.weights:
        if len(weight.shape) > 1:
            fan_in = int(np.prod(weight.shape[:-1]))
            drawn = levels[generator.integers(0, 16, tuple(weight.shape))]
            weight.assign((drawn * np.sqrt(1.5 / fan_in)).astype(np.float32))


def compile_all(names: list[str], repository: Path) -> None:
    """Compile each model at each precision, as `<name>_<precision>`."""
    from kerve.compiler import compile_model
    from kerve.compiler.options import CompileOptions

    for name in names:
        model = build(name)
        coarsen(model)
        for precision in PRECISIONS:
            # No budget: the loss of random weights is meaningless. Golden data verifies the device's outputs.
            options = CompileOptions(precision=precision, max_drop=None if precision == "float32" else 1e9)
            compile_model(model, repository=repository, name=f"{name}_{precision}", options=options)
            print(f"compiled {name} {precision}", flush=True)


def pack(source: Path, parts: Path) -> None:
    """Write a folder as one compressed archive, in parts."""
    shutil.rmtree(parts, ignore_errors=True)
    parts.mkdir(parents=True)
    archive = parts.with_suffix(".tar.xz")
    with tarfile.open(archive, "w:xz", preset=1) as tar:
        tar.add(source, ".")
    for number, block in enumerate(blocks(archive)):
        (parts / f"artifacts.{number:03}").write_bytes(block)
    archive.unlink()


def blocks(file: Path) -> Iterator[bytes]:
    """Yield a file's contents in parts."""
    with file.open("rb") as stream:
        while block := stream.read(PART):
            yield block


def unpack(parts: Path, target: Path) -> None:
    """Extract the parts written by `pack`, unless that is done already."""
    if target.exists():
        return
    with tempfile.TemporaryFile() as archive:
        for part in sorted(parts.glob("artifacts.*")):
            archive.write(part.read_bytes())
        archive.seek(0)
        temporary = target.with_suffix(".new")
        with tarfile.open(fileobj=archive, mode="r:xz") as tar:
            tar.extractall(temporary, filter="data")
    temporary.rename(target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", default=",".join(MODELS))
    parser.add_argument("--add", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    from gpu_bounds import count  # imports kerve.runtime, which `unpack` does not need

    with tempfile.TemporaryDirectory() as temporary:
        contents = Path(temporary)
        (contents / "files").mkdir()
        build = ("cargo", "build", "--quiet", "--release", "--example", "load")
        subprocess.run(build, cwd=LOAD.parents[3], check=True)  # before the slow steps: cargo may be missing
        for file in (LOAD, *arguments.add):
            shutil.copy(file, contents / "files")
        compile_all(arguments.only.split(","), contents / "models")
        files = {file.parents[1].name: file for file in contents.glob("models/*/1/model.onnx")}
        counts = {name: count(file) for name, file in sorted(files.items())}
        (contents / "counts.json").write_text(json.dumps(counts))
        pack(contents, arguments.folder / "parts")
    for part in sorted((arguments.folder / "parts").iterdir()):
        print(f"{part}: {part.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()

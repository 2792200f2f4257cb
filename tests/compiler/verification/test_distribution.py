"""Outputs that are drawn anew on each call are compared by their distribution."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops
from numpy.typing import NDArray

from kerve.compiler import CompileOptions, VerificationError, compile_model
from kerve.compiler.verification import Check, Dataset
from kerve.compiler.verification.distribution import compare_drawn
from kerve.runtime.artifact import read_artifact
from kerve.runtime.model import load

_DATA = Dataset("seeded", {"x": np.linspace(-1.0, 1.0, 6).reshape(2, 3)}, {"batch": 2})

Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[Any]]


def _sampler(draw: Draw, seed: int) -> Any:
    rng = np.random.default_rng(seed)

    def model(inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return {"y": inputs["x"] + draw(rng, inputs["x"].shape)}

    return model


def _compared(ours: Draw, theirs: Draw) -> Check:
    return compare_drawn(_sampler(ours, 1), _sampler(theirs, 2), _DATA, ["y"])[0]


def _normal(mean: float = 0.0, deviation: float = 1.0) -> Draw:
    return lambda rng, shape: rng.normal(mean, deviation, shape)


def test_samples_of_one_distribution_are_equal() -> None:
    check = _compared(_normal(), _normal())
    assert check.passed
    assert check.drawn
    assert 0.0 < check.max_abs_error < 0.4


def test_a_discrete_distribution_equals_itself() -> None:
    dice: Draw = lambda rng, shape: rng.integers(1, 7, shape)  # noqa: E731  # one of a table of samplers
    assert _compared(dice, dice).passed


def test_what_is_hardly_drawn_at_all_may_differ_by_rounding() -> None:
    assert _compared(_normal(1.0, 1e-9), _normal(1.000002, 1e-9)).passed
    assert not _compared(_normal(1.0, 1e-9), _normal(1.01, 1e-9)).passed


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(_normal(mean=0.6), id="another mean"),
        pytest.param(_normal(deviation=2.0), id="another deviation"),
        pytest.param(lambda rng, shape: rng.choice([-1.0, 1.0], shape), id="another shape"),
        pytest.param(lambda rng, shape: np.zeros(shape), id="a constant"),
        pytest.param(lambda rng, shape: np.full(shape, np.nan), id="not a number"),
    ],
)
def test_another_distribution_differs(other: Draw) -> None:
    check = _compared(other, _normal())
    assert not check.passed
    assert check.unequal == 6


class _Sampling(layers.Layer):
    """The reparametrization of a variational autoencoder (D. P. Kingma and M. Welling, 2014)."""

    def call(self, inputs: Any) -> Any:
        mean, log_variance = inputs
        return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean))


@pytest.fixture(scope="module")
def autoencoder() -> keras.Model:
    keras.utils.set_random_seed(1)
    x = layers.Input((4,), name="x")
    mean, log_variance = layers.Dense(2, name="mean")(x), layers.Dense(2, name="log_variance")(x)
    sample = _Sampling(name="sample")([mean, log_variance])
    return keras.Model(x, {"mean": mean, "decoded": layers.Dense(4, name="decoded")(sample)})


def test_an_autoencoder_compiles_and_is_served_as_random(autoencoder: keras.Model, tmp_path: Path) -> None:
    artifact = compile_model(autoencoder, repository=tmp_path, name="vae")
    assert (artifact.path / "manifest.json").read_text() == (
        compile_model(autoencoder, repository=tmp_path, name="vae").path / "manifest.json"
    ).read_text()
    published = read_artifact(artifact.path)
    assert published.random_outputs == {"decoded"}
    golden = published.golden()
    assert golden is not None
    assert golden.outputs.keys() == {"mean"}
    assert load(published, threads=1).check_golden()


def test_reduced_precision_is_judged_on_what_is_not_drawn(autoencoder: keras.Model, tmp_path: Path) -> None:
    options = CompileOptions(precision="float16")
    artifact = compile_model(autoencoder, repository=tmp_path, name="vae", options=options)
    warnings = (artifact.path / "manifest.json").read_text()
    assert "not measured on output 'decoded', which is random" in warnings


def test_a_wrong_distribution_stops_the_compile(
    autoencoder: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kerve.compiler.lowering import randomness

    wrong = lambda g, shape, **kwargs: 3.0 * randomness._normal(g, shape)  # noqa: E731  # as the table has it
    monkeypatch.setitem(randomness.SAMPLERS, "normal", wrong)
    with pytest.raises(VerificationError, match=r"'decoded' .* is random and has another distribution"):
        compile_model(autoencoder, repository=tmp_path, name="vae")

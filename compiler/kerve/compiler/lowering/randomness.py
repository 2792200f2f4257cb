"""Random numbers that a model draws when it is called: lowered to random operators, never to constants.

Only uniform and normal distributions have operators; the others are derived from these. The samples agree
with Keras's in distribution, so a warning says which layer draws.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import keras
import numpy as np
import onnx_ir as ir
from keras import ops
from keras.src import backend

from kerve.compiler.lowering.lowering import Lowering
from kerve.compiler.lowering.ops.operands import size
from kerve.compiler.lowering.symbol import Symbol, symbols_in
from kerve.compiler.lowering.tracing import DRAWS

__all__ = ["SAMPLERS", "fresh_random_seeds", "random_replacement"]

#: Number of proposals for a gamma variate; the probability that all are rejected is below 1e-12.
_PROPOSALS = 10


def _noise(g: Lowering, kind: str, shape: Any) -> Symbol:
    """Draw standard float32 numbers: `kind` is Uniform (from 0 to 1) or Normal."""
    g.warn(DRAWS)
    dims = [size(g, dim) for dim in shape]
    template = g.op.ConstantOfShape(g.shape(dims), value=ir.tensor(np.zeros(1, np.float32)))
    template.shape = ir.Shape(dim if isinstance(dim, int) else None for dim in dims)
    noise = getattr(g.op, f"Random{kind}Like")(template)
    noise.shape = template.shape
    return Symbol(noise)


def _uniform(
    g: Lowering, shape: Any, minval: Any = 0.0, maxval: Any = 1.0, dtype: Any = None, seed: Any = None
) -> Any:
    del seed
    unit = ops.cast(_noise(g, "Uniform", shape), dtype or keras.config.floatx())
    if isinstance(minval, int | float) and isinstance(maxval, int | float) and (minval, maxval) == (0, 1):
        return unit
    return unit * ops.cast(ops.subtract(maxval, minval), unit.dtype) + ops.cast(minval, unit.dtype)


def _normal(
    g: Lowering, shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, seed: Any = None
) -> Any:
    del seed
    sample = ops.cast(_noise(g, "Normal", shape), dtype or keras.config.floatx())
    return _scaled(sample, mean, stddev)


def _scaled(sample: Any, mean: Any, stddev: Any) -> Any:
    if not (isinstance(stddev, int | float) and stddev == 1):
        sample = sample * stddev
    return sample if isinstance(mean, int | float) and mean == 0 else sample + mean


def _truncated_normal(
    g: Lowering, shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = None, seed: Any = None
) -> Any:
    """Sample within two standard deviations, by inverting the distribution function."""
    del seed
    edge = math.erf(2.0 / math.sqrt(2.0))
    sample = math.sqrt(2.0) * ops.erfinv((_noise(g, "Uniform", shape) * 2.0 - 1.0) * edge)
    return _scaled(ops.cast(sample, dtype or keras.config.floatx()), mean, stddev)


def _randint(
    g: Lowering, shape: Any, minval: Any, maxval: Any, dtype: Any = "int32", seed: Any = None
) -> Any:
    del seed
    span = ops.cast(ops.subtract(maxval, minval), "float64")
    steps = ops.floor(ops.cast(_noise(g, "Uniform", shape), "float64") * span)
    return ops.cast(ops.cast(ops.minimum(steps, span - 1), "int64") + ops.cast(minval, "int64"), dtype)


def _categorical(g: Lowering, logits: Any, num_samples: int, dtype: Any = "int64", seed: Any = None) -> Any:
    """Sample by the Gumbel-max trick: the argmax of logits plus Gumbel noise (E. J. Gumbel, 1954)."""
    del seed
    rows, classes = ops.shape(logits)
    unit = ops.maximum(_noise(g, "Uniform", (rows, num_samples, classes)), np.finfo(np.float32).tiny)
    noisy = ops.expand_dims(ops.cast(logits, "float32"), 1) - ops.log(-ops.log(unit))
    return ops.cast(ops.argmax(noisy, axis=-1), dtype)


def _dropout(g: Lowering, inputs: Any, rate: float, noise_shape: Any = None, seed: Any = None) -> Any:
    del seed
    if rate in (0.0, 1.0):
        return inputs if rate == 0.0 else ops.zeros_like(inputs)
    sizes = ops.shape(inputs)
    shape = [
        size if given is None else given for size, given in zip(sizes, noise_shape or sizes, strict=True)
    ]
    kept = _noise(g, "Uniform", shape) >= rate
    return ops.where(kept, inputs * (1.0 / (1.0 - rate)), ops.zeros_like(inputs))


def _shuffle(g: Lowering, x: Any, axis: int = 0, seed: Any = None) -> Any:
    del seed
    order = ops.argsort(_noise(g, "Uniform", (ops.shape(x)[axis],)))
    return ops.take(x, order, axis=axis)


def _gamma(g: Lowering, shape: Any, alpha: Any, dtype: Any = None, seed: Any = None) -> Any:
    """Sample by rejection (G. Marsaglia and W. W. Tsang, 2000), with a fixed number of proposals."""
    del seed
    alpha = ops.cast(ops.broadcast_to(ops.convert_to_tensor(alpha, "float32"), shape), "float32")
    boosted = alpha < 1.0
    d = ops.where(boosted, alpha + 1.0, alpha) - 1.0 / 3.0
    c = 1.0 / (3.0 * ops.sqrt(d))
    sample = d
    for _ in range(_PROPOSALS):
        z, u = _noise(g, "Normal", shape), _noise(g, "Uniform", shape)
        v = ops.power(ops.maximum(1.0 + c * z, 1e-6), 3.0)
        accepted = ops.log(ops.maximum(u, 1e-30)) < 0.5 * ops.square(z) + d - d * v + d * ops.log(v)
        sample = ops.where(ops.logical_and(accepted, 1.0 + c * z > 0.0), d * v, sample)
    power = ops.power(ops.maximum(_noise(g, "Uniform", shape), 1e-30), 1.0 / alpha)
    return ops.cast(ops.where(boosted, sample * power, sample), dtype or keras.config.floatx())


def _beta(g: Lowering, shape: Any, alpha: Any, beta: Any, dtype: Any = None, seed: Any = None) -> Any:
    del seed
    first, second = _gamma(g, shape, alpha), _gamma(g, shape, beta)
    return ops.cast(first / (first + second), dtype or keras.config.floatx())


def _binomial(
    g: Lowering, shape: Any, counts: Any, probabilities: Any, dtype: Any = None, seed: Any = None
) -> Any:
    """Simulate single trials; each element gets as many as the largest count."""
    del seed
    counts = ops.broadcast_to(ops.cast(counts, "int32"), shape)
    trial = ops.arange(ops.max(counts), dtype="int32")
    chance = ops.expand_dims(ops.broadcast_to(ops.cast(probabilities, "float32"), shape), -1)
    success = _noise(g, "Uniform", (*shape, ops.shape(trial)[0])) < chance
    counted = ops.logical_and(success, trial < ops.expand_dims(counts, -1))
    return ops.sum(ops.cast(counted, dtype or keras.config.floatx()), axis=-1)


#: Replacements of the functions of Keras's random backend, with the lowering as an
#: additional first argument.
SAMPLERS: dict[str, Callable[..., Any]] = {
    "beta": _beta,
    "binomial": _binomial,
    "categorical": _categorical,
    "dropout": _dropout,
    "gamma": _gamma,
    "normal": _normal,
    "randint": _randint,
    "shuffle": _shuffle,
    "truncated_normal": _truncated_normal,
    "uniform": _uniform,
}


def random_replacement(sample: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """Return the replacement of a random function while a model is lowered.

    Given an integer seed, Keras draws the same numbers in each call: constants, if their shape is static. If
    it depends on the batch, no ONNX operator reproduces them.
    """

    def drawn(g: Lowering, *args: Any, seed: Any = None, **kwargs: Any) -> Any:
        numbered = isinstance(seed, int | np.integer)
        if numbered and not symbols_in((args, kwargs)):
            return original(*args, seed=seed, **kwargs)
        if numbered:
            g.reseeded = True
            g.warn(
                f"has the seed {seed}, and repeats its numbers in Keras; the compiled model draws new ones"
            )
        return sample(g, *args, **kwargs)

    return drawn


def fresh_random_seeds() -> AbstractContextManager[Any]:
    """Make Keras draw new numbers in each call even from integer seeds."""
    original, fresh = backend.random.draw_seed, itertools.count()

    def draw_seed(seed: Any) -> Any:
        return original(next(fresh) if isinstance(seed, int | np.integer) else seed)

    return mock.patch.object(backend.random, "draw_seed", draw_seed)

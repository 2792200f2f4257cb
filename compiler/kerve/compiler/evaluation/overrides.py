"""The loss and the metrics given as options, which override those of the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import keras

from kerve.compiler.errors import LoadError
from kerve.compiler.evaluation.identifiers import Identifier, parse
from kerve.compiler.evaluation.objective import Objective

__all__ = ["apply_overrides"]


def apply_overrides(
    compiled: Objective | None,
    losses: Sequence[str],
    metrics: Sequence[str],
    own: Mapping[str, Any],
    outputs: Sequence[str],
) -> Objective | None:
    """Return the objective for evaluation, or None; raises `LoadError` for an unknown name.

    `outputs` are those of the model.
    """
    if not losses and not metrics:
        return compiled
    objective = compiled or Objective()
    if losses:
        found = [(each, _object(each, keras.losses, own)) for each in map(parse, losses)]
        objective = replace(objective, loss=_by_output(found, outputs, single=True), loss_weights=None)
    if metrics:
        found = [(each, _object(each, keras.metrics, own)) for each in map(parse, metrics)]
        objective = replace(
            objective, metrics=_by_output(found, outputs, single=False), weighted_metrics=None
        )
    return objective


def _by_output(found: Sequence[tuple[Identifier, Any]], outputs: Sequence[str], *, single: bool) -> Any:
    for identifier, _ in found:
        if identifier.output and identifier.output not in outputs:
            raise LoadError(f"{identifier.text!r}: expected one of the outputs {', '.join(outputs)}")
    if len(outputs) == 1 or not any(identifier.output for identifier, _ in found):
        every = [each for _, each in found]
        return every[0] if single and len(every) == 1 else every
    if nameless := [identifier.text for identifier, _ in found if not identifier.output]:
        raise LoadError(f"{nameless[0]!r} names no output, while others do; write OUTPUT={nameless[0]}")
    by_output: dict[str, Any] = {}
    for identifier, each in found:
        by_output.setdefault(identifier.output, []).append(each)
    return {name: each[0] for name, each in by_output.items()} if single else by_output


def _object(identifier: Identifier, module: ModuleType, own: Mapping[str, Any]) -> Any:
    kind = module.__name__.rpartition(".")[2]
    found = own.get(identifier.name) or getattr(module, identifier.name, None)
    if found is None and not identifier.called and _known(identifier.name, module):
        return identifier.name
    if not callable(found):
        raise LoadError(
            f"{identifier.name!r} is not in keras.{kind}; name the module that defines it with --import"
        )
    try:
        if isinstance(found, type):
            return (
                found(*identifier.args, **identifier.kwargs)
                if identifier.called
                else _bare(found, identifier, own)
            )
        if not identifier.called:
            return found if identifier.name in own else identifier.name
        wrapper = keras.losses.losses.LossFunctionWrapper if module is keras.losses else None
        wrap = wrapper or keras.metrics.MeanMetricWrapper
        return wrap(found, *identifier.args, name=identifier.name, **identifier.kwargs)
    except (TypeError, ValueError) as error:
        raise LoadError(f"{identifier.text!r} cannot be created: {error}") from error


def _bare(found: type, identifier: Identifier, own: Mapping[str, Any]) -> Any:
    """Return a class without arguments: Keras's by name, as in `compile`; a custom one as an instance."""
    return found() if identifier.name in own else identifier.name


def _known(name: str, module: ModuleType) -> bool:
    if name.lower() in ("accuracy", "acc", "crossentropy", "ce"):
        return True
    try:
        return module.get(name) is not None
    except ValueError:
        return False

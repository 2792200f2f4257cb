"""The steps of an ensemble and the tensors between them, as configured."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kerve.inference import model_config_pb2 as pb
from kerve.runtime.errors import ArtifactError

__all__ = ["Scheme", "Step", "members_of", "read_scheme"]


@dataclass(frozen=True)
class Step:
    """One step: a model with its inputs and outputs."""

    model: str
    # -1: the newest version.
    version: int
    # The tensors of the ensemble, by the member's names for them.
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    @property
    def route(self) -> str:
        """The version in the form used by requests."""
        return str(self.version) if self.version > 0 else ""


@dataclass(frozen=True)
class Scheme:
    """The steps in the order of the configuration; each runs as soon as its inputs are available."""

    steps: tuple[Step, ...]

    @property
    def consumed(self) -> frozenset[str]:
        """The tensors that steps consume."""
        return frozenset(tensor for step in self.steps for tensor in step.inputs.values())

    @property
    def produced(self) -> frozenset[str]:
        """The tensors that steps produce."""
        return frozenset(tensor for step in self.steps for tensor in step.outputs.values())


def members_of(config: pb.ModelConfig) -> list[str]:
    """Return the names of an ensemble's members; empty for any other model."""
    return list(dict.fromkeys(step.model_name for step in config.ensemble_scheduling.step))


def read_scheme(config: pb.ModelConfig, where: Path) -> Scheme:
    """Return the steps; raises ArtifactError if they can never run, whatever the members are."""
    steps = tuple(
        Step(step.model_name, step.model_version, dict(step.input_map), dict(step.output_map))
        for step in config.ensemble_scheduling.step
    )
    if not steps:
        raise ArtifactError(f"{where}: ensemble_scheduling: expected at least one step, got none")
    for number, step in enumerate(steps, 1):
        check_step(step, f"{where}: ensemble_scheduling: step {number}")
    scheme = Scheme(steps)
    check_flow(scheme, [tensor.name for tensor in config.input], where)
    for output in config.output:
        if output.name not in scheme.produced | {tensor.name for tensor in config.input}:
            raise ArtifactError(
                f"{where}: output {output.name!r}: no step produces it; "
                f"the steps produce: {shown(sorted(scheme.produced))}"
            )
    return scheme


def check_step(step: Step, where: str) -> None:
    """Raise ArtifactError for an incomplete step."""
    if not step.model:
        raise ArtifactError(f"{where}: expected model_name, got none")
    # 0 is the value of an unset field, which is accepted; Triton requires -1.
    if step.version < -1:
        raise ArtifactError(f"{where}: model_version: expected a version, or -1, got {step.version}")
    for name, tensors in (("input_map", step.inputs), ("output_map", step.outputs)):
        if not tensors or not all(tensors.values()):
            raise ArtifactError(
                f"{where}, model {step.model!r}: {name}: expected the model's names as keys "
                f"and the ensemble's as values, got {dict(tensors) or 'nothing'}"
            )


def check_flow(scheme: Scheme, inputs: Sequence[str], where: Path) -> None:
    """Raise ArtifactError unless every tensor has exactly one source and every step can run."""
    known: dict[str, str] = dict.fromkeys(inputs, "an input")
    for step in scheme.steps:
        for tensor in step.outputs.values():
            if tensor in known:
                raise ArtifactError(
                    f"{where}: tensor {tensor!r} is produced twice: it is {known[tensor]} and an output of "
                    f"step {step.model!r}; give one of them another name"
                )
            known[tensor] = f"an output of step {step.model!r}"
    if inputs:
        for step in scheme.steps:
            for tensor in step.inputs.values():
                if tensor not in known:
                    raise ArtifactError(
                        f"{where}: step {step.model!r} takes tensor {tensor!r}, which is neither an input of "
                        f"the ensemble nor the output of a step; there are: {shown(known)}"
                    )
        for name in inputs:
            if name not in scheme.consumed:
                raise ArtifactError(f"{where}: input {name!r}: no step uses it; remove it")
    check_order(scheme, where)


def check_order(scheme: Scheme, where: Path) -> None:
    """Raise ArtifactError if steps depend on each other in a cycle."""
    made = scheme.produced
    left = list(scheme.steps)
    while left:
        ready = [step for step in left if made.isdisjoint(step.inputs.values())]
        if not ready:
            circle = " and ".join(repr(step.model) for step in left)
            raise ArtifactError(f"{where}: a cycle: steps {circle} wait for one another's outputs")
        for step in ready:
            made -= frozenset(step.outputs.values())
        left = [step for step in left if step not in ready]


def shown(names: Collection[str]) -> str:
    """Format names for messages."""
    return ", ".join(names) or "none"

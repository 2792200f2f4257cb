"""`kerve doctor`."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from kerve.cli import options as cli
from kerve.cli.tables import print_table, print_warning
from kerve.runtime.commands.inspect import show_size
from kerve.runtime.devices.choice import choose_devices
from kerve.runtime.devices.device import parse_device
from kerve.runtime.doctor.machine import examine
from kerve.runtime.doctor.models import Finding, examine_models
from kerve.runtime.errors import ArtifactError, UnavailableError
from kerve.runtime.repository import Repository

__all__ = ["command"]

# Facts that are sizes.
SIZES = {"total", "available", "cgroup_limit", "memory"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of `kerve doctor`."""

    repository: tuple[Path, ...] = cli.option(
        (),
        help="Folder of models to inspect; may be given several times.",
        type=cli.EXISTING_FOLDER,
    )
    device: str = cli.option("auto", help="Device, as in kerve serve.")
    json: bool = cli.option(False, help="Print one JSON object instead of tables.")

    def __post_init__(self) -> None:
        """Raise ValueError for an invalid device."""
        parse_device(self.device)


@cli.command(example="kerve doctor --repository models")
def command(options: Options) -> None:
    """Show what this machine offers a server: driver, CUDA, ONNX Runtime, CPUs, memory.

    With a repository, also the device of each model, and each node that falls back from a GPU to the CPU.
    Exit code 1 if the device is not available, 3 if a model cannot be loaded.
    """
    asked = parse_device(options.device)
    facts = examine(asked)
    problem = facts["device"].get("problem")
    findings: list[Finding] = []
    if options.repository and not problem:
        findings = examine_models([Repository(each) for each in options.repository], choose_devices(asked))
    if options.json:
        models = [finding.json() for finding in findings]
        click.echo(json.dumps({**facts, **({"models": models} if options.repository else {})}, indent=2))
    else:
        print_facts(facts)
        if options.repository and not problem:
            print_models(findings)
    if problem:
        raise UnavailableError(problem)
    if failed := [finding for finding in findings if finding.problem]:
        raise ArtifactError("\n".join(f"{each.model}: {each.problem}" for each in failed))


def print_facts(facts: dict[str, Any]) -> None:
    """Print facts about the machine: simple ones in one table, devices and libraries in their own."""
    devices = facts["driver"].pop("devices")
    needed = facts.pop("libraries")
    facts["device"].pop("problem", None)  # it ends the command
    rows = (
        (section if position == 0 else "", name.replace("_", " "), show(name, value))
        for section, found in facts.items()
        for position, (name, value) in enumerate(found.items())
    )
    print_table("this machine", ("section", "fact", "value"), rows)
    if devices:
        columns = tuple(devices[0])
        print_table(
            "devices", columns, ([show(key, value) for key, value in each.items()] for each in devices)
        )
    for kind, found in needed.items():
        print_table(
            f"libraries of the {kind} provider",
            ("library", "found", "version", "comes with"),
            (
                (each["name"], each["problem"] or each["path"], each["version"], each["source"])
                for each in found
            ),
        )


def print_models(findings: Iterable[Finding]) -> None:
    """Print where models would run, and then, by operator, the nodes that fall back to the CPU."""
    findings = list(findings)
    columns = ("model", "version", "device", "instances", "nodes", "fall back to the CPU")
    print_table("models", columns, map(model_row, findings))
    for finding in findings:
        if finding.fallen:
            title = f"{finding.model} version {finding.version}: nodes that fall back from {finding.device}"
            print_table(f"{title} to the CPU", ("operator", "count", "nodes"), fallen_rows(finding))
    if any(finding.fallen for finding in findings):
        print_warning("each of these nodes costs a copy to the host and back, unless it only computes shapes")


def model_row(finding: Finding) -> tuple[str, ...]:
    """Return a row of the table of models."""
    counts = (f"{name.removesuffix('ExecutionProvider')} {count}" for name, count in finding.nodes.items())
    return (
        *(finding.model, str(finding.version or ""), finding.device, str(finding.instances or "")),
        finding.problem or ", ".join(counts),
        str(len(finding.fallen) or ""),
    )


def fallen_rows(finding: Finding) -> Iterator[tuple[str, str, str]]:
    """Yield the operators that fall back, with their counts and the names of their nodes."""
    for operator, count in Counter(each.operator for each in finding.fallen).most_common():
        names = [each.node for each in finding.fallen if each.operator == operator]
        yield operator, str(count), ", ".join(names)


def show(name: str, value: Any) -> str:
    """Format a fact for display."""
    if value is None:
        return "none"
    if name in SIZES:
        return show_size(value)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)

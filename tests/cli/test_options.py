"""An option is written once: flag, environment variable and configuration key come from one field."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner, Result

from kerve.cli import options as cli


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command of these tests takes."""

    source: Path = cli.argument(help="Where from.", type=cli.EXISTING_PATH)
    grpc_port: int = cli.option(8001, help="Which port.", type=cli.PORT)
    mode: Literal["fast", "safe"] = cli.option("safe", help="How.")
    trust: bool = cli.option(False, help="Whether.")
    labels: tuple[str, ...] = cli.option((), help="Which ones.")
    weights: tuple[float, ...] = cli.option((), help="How heavy.")
    ratio: float | None = cli.option(None, help="How much.", also="--share")

    def __post_init__(self) -> None:
        if self.mode == "fast" and self.trust:
            raise ValueError("--trust needs --mode safe")


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch) -> list[Options]:
    """What the command was called with."""
    monkeypatch.setattr(SEEN, "calls", [])
    return SEEN.calls


class SEEN:
    calls: list[Options] = []  # noqa: RUF012  replaced for each test


@cli.command(example="kerve try source.bin --mode fast")
def command(options: Options) -> None:
    """Do something with a source.

    At length.
    """
    SEEN.calls.append(options)


def run(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(command, [__file__, *arguments], env=environment)


def test_without_options_the_defaults_hold(seen: list[Options]) -> None:
    assert run().exit_code == 0
    assert seen == [Options(source=Path(__file__))]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(["--grpc-port", "9"], {"grpc_port": 9}, id="number"),
        pytest.param(["--mode", "fast"], {"mode": "fast"}, id="choice"),
        pytest.param(["--trust"], {"trust": True}, id="flag"),
        pytest.param(["--no-trust"], {"trust": False}, id="flag off"),
        pytest.param(["--trust=true"], {"trust": True}, id="flag on in Triton's way"),
        pytest.param(["--trust=false"], {"trust": False}, id="flag off in Triton's way"),
        pytest.param(["--labels", "a", "--labels", "b"], {"labels": ("a", "b")}, id="several"),
        pytest.param(["--ratio", "0.5"], {"ratio": 0.5}, id="optional"),
        pytest.param(["--share", "0.5"], {"ratio": 0.5}, id="another flag"),
    ],
)
def test_a_field_is_a_flag(arguments: list[str], expected: dict[str, Any], seen: list[Options]) -> None:
    assert run(*arguments).exit_code == 0
    assert seen == [Options(source=Path(__file__), **expected)]


def test_a_field_is_an_environment_variable(seen: list[Options]) -> None:
    assert run(KERVE_GRPC_PORT="9", KERVE_TRUST="1").exit_code == 0
    assert seen == [Options(source=Path(__file__), grpc_port=9, trust=True)]


def test_a_field_is_a_key_of_the_configuration(seen: list[Options], tmp_path: Path) -> None:
    file = tmp_path / "kerve.toml"
    file.write_text(f'[{command.name}]\ngrpc-port = 9\ntrust = true\nlabels = ["a", "b"]\n[other]\nx = 1\n')
    assert run("--config", str(file)).exit_code == 0
    assert run(KERVE_CONFIG=str(file)).exit_code == 0
    assert seen == [Options(source=Path(__file__), grpc_port=9, trust=True, labels=("a", "b"))] * 2


def test_flag_beats_environment_beats_configuration(seen: list[Options], tmp_path: Path) -> None:
    file = tmp_path / "kerve.toml"
    file.write_text(f"[{command.name}]\ngrpc_port = 1\n")
    for arguments, environment in (
        (["--grpc-port", "3"], {"KERVE_GRPC_PORT": "2"}),
        ([], {"KERVE_GRPC_PORT": "2"}),
        ([], {}),
    ):
        assert run("--config", str(file), *arguments, **environment).exit_code == 0
    assert [options.grpc_port for options in seen] == [3, 2, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["--grpc-port", "70000"], "70000 is not in the range", id="range"),
        pytest.param(["--mode", "reckless"], "'reckless' is not one of 'fast', 'safe'", id="choice"),
        pytest.param(["--mode", "fast", "--trust"], "--trust needs --mode safe", id="do not fit together"),
        pytest.param(["--colour"], "No such option", id="unknown"),
        pytest.param(["--share", "inf"], "--ratio: expected a number, got inf", id="infinite"),
        pytest.param(
            ["--weights", "1", "--weights", "nan"], "--weights: expected a number, got nan", id="no number"
        ),
        pytest.param(["--config", "nowhere.toml"], "'nowhere.toml' does not exist", id="no configuration"),
    ],
)
def test_wrong_usage_ends_with_2_and_says_why(
    arguments: list[str], message: str, seen: list[Options]
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert message in result.output
    assert seen == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("[{name}]\ncolour = 1", "unknown option colour", id="unknown key"),
        pytest.param("[{name}", "is not a TOML file", id="no TOML"),
        pytest.param("[{name}]\ngrpc-port = 'x'", "'x' is not a valid integer range", id="wrong type"),
        pytest.param("[{name}]\ngrpc-port = [1]", "grpc_port: expected a string, number or", id="list"),
        pytest.param("[{name}]\ngrpc-port = true", "'true' is not a valid integer range", id="truth"),
        pytest.param(
            "[{name}]\ntrust = {{a = 1}}", "trust: expected a string, number or boolean", id="table"
        ),
        pytest.param("[{name}]\ntrust = 7", "'7' is not a valid boolean", id="no truth value"),
        pytest.param("[{name}]\nlabels = [[1]]", "labels: expected a string, number or boolean", id="lists"),
        pytest.param("[{name}]\nmode = 1979-05-27", "mode: expected a string, number or boolean", id="date"),
        pytest.param(
            '[{name}]\nlabels = "\\u0000"', "labels: expected a string, number or boolean", id="NUL"
        ),
        pytest.param('"{name}" = 3', "{name}: expected a table of options, got 3", id="no table"),
    ],
)
def test_a_bad_configuration_ends_with_2_and_says_why(text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "kerve.toml"
    file.write_text(text.format(name=command.name))
    result = run("--config", str(file))
    assert result.exit_code == 2
    assert message.format(name=command.name) in " ".join(result.output.split())


def test_help_comes_from_the_docstring_and_the_fields_and_ends_with_an_example() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for text in (
        "Do something with a source.",
        "Where from.",
        "env var: KERVE_GRPC_PORT; default: 8001",
        "[fast|safe]",
    ):
        assert text in " ".join(result.output.split())
    assert result.output.endswith("Example:\n    kerve try source.bin --mode fast\n")


def test_the_command_is_named_after_its_module_with_hyphens() -> None:
    assert isinstance(command, click.Command)
    assert command.name == "test-options"


def test_a_configuration_is_utf_8_in_any_locale(tmp_path: Path) -> None:
    config = tmp_path / "kerve.toml"
    config.write_text('[predict]\nname = "größe"\n', "utf-8")
    command = [str(Path(sys.executable).with_name("kerve")), "predict", "--config", str(config)]
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(command, env=plain, capture_output=True, text=True, timeout=60, check=False)
    assert "unknown option name" in done.stderr

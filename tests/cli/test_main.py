"""The `kerve` command: its table, its exit codes, and what it says."""

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from kerve.cli.main import GROUP, SUBCOMMANDS, main

RUNTIME = [name for name, entry in SUBCOMMANDS.items() if entry.target.startswith("kerve.runtime")]


def kerve(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(Path(sys.executable).with_name("kerve")), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_help_lists_every_subcommand_and_ends_with_an_example() -> None:
    done = kerve("--help")
    assert done.returncode == 0
    for name, entry in SUBCOMMANDS.items():
        assert name in done.stdout
        assert entry.help in done.stdout
    assert "Example:" in done.stdout


def test_version_is_the_installed_one() -> None:
    assert kerve("--version").stdout == f"kerve {version('kerve')}\n"


@pytest.mark.parametrize("name", RUNTIME)
def test_a_subcommand_is_what_the_table_says(name: str) -> None:
    module, _, attribute = SUBCOMMANDS[name].target.partition(":")
    command = getattr(import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.name == name


@pytest.mark.parametrize("name", RUNTIME)
def test_a_subcommands_help_ends_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert not end.value.code
    assert f"Example:\n    kerve {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(["foo"], "No such command 'foo'", id="unknown command"),
        pytest.param(["--foo"], "No such option", id="unknown option"),
        pytest.param(["serve"], "Missing option '--repository'", id="missing option"),
        pytest.param(["inspect"], "Missing argument 'ARTIFACT'", id="missing argument"),
    ],
)
def test_wrong_usage_ends_with_2(arguments: list[str], message: str) -> None:
    done = kerve(*arguments)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", RUNTIME)
def test_streams_that_the_caller_closed_are_nobodys_fault(name: str) -> None:
    """A file that is opened does not get the number of one, and with it what is printed."""
    program = (
        f"import os, sys; sys.argv[1:] = [{name!r}, '--help']; from kerve.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: code = end.code\n"
        "code = code or int(os.open('/dev/zero', os.O_RDONLY) <= 2); sys.exit(code)"
    )
    shell = 'exec "$0" -c "$1" <&- >&- 2>&-'
    done = subprocess.run(["sh", "-c", shell, sys.executable, program], timeout=60, check=False)
    assert done.returncode == 0


def fail_with(error: BaseException) -> Callable[..., None]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


class OwnError(Exception):
    """Of ours: it speaks to the user."""

    exit_code = 4


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        pytest.param(
            OwnError("layer 'x' cannot be converted"), 4, "error: layer 'x' cannot be converted\n", id="ours"
        ),
        pytest.param(
            PermissionError(13, "Permission denied", "models"),
            1,
            "error: models: Permission denied\n",
            id="a file",
        ),
        pytest.param(
            OSError(28, "No space left on device"),
            1,
            "error: the output cannot be written: No space left on device\n",
            id="a full disk",
        ),
        pytest.param(KeyboardInterrupt(), 130, "", id="interrupted"),
        pytest.param(click.UsageError("no"), 2, "Error: no\n", id="usage"),
    ],
)
def test_a_failure_is_one_line_and_an_exit_code(
    error: BaseException,
    code: int,
    line: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(GROUP, "main", fail_with(error))
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == code
    assert capsys.readouterr().err == line


def test_a_defect_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GROUP, "main", fail_with(ZeroDivisionError("a defect")))
    with pytest.raises(ZeroDivisionError):
        main([])


@pytest.mark.parametrize(
    ("subcommand", "module", "extra"), [("compile", "yaml", "compile"), ("serve", "grpc", "serve")]
)
def test_an_installation_without_a_half_says_what_to_install(
    subcommand: str, module: str, extra: str
) -> None:
    run = (
        f"import sys; sys.modules[{module!r}] = None; from kerve.cli.main import main; main([{subcommand!r}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", run], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    wanted = f"kerve {subcommand} needs {module}, which is not installed: pip install 'kerve[{extra}]'"
    assert wanted in done.stderr
    assert "Traceback" not in done.stderr

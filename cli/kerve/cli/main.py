"""The entry point: runs the subcommand, and turns a failure into one line and an exit code."""

import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

import click


class Subcommand(NamedTuple):
    """The location of a subcommand ("module:attribute"), and its description in one line."""

    target: str
    help: str


SUBCOMMANDS = {
    "compile": Subcommand(
        "kerve.compiler.commands.compile:command", "Compile a Keras model to a verified ONNX artifact."
    ),
    "verify": Subcommand(
        "kerve.compiler.commands.verify:command", "Compare an artifact's outputs with its source's."
    ),
    "serve": Subcommand(
        "kerve.runtime.commands.serve:command", "Serve the models of a repository over gRPC."
    ),
    "predict": Subcommand(
        "kerve.runtime.commands.predict:command", "Send arrays to a served model and show its outputs."
    ),
    "models": Subcommand("kerve.runtime.commands.models:command", "List the models of a server."),
    "load": Subcommand("kerve.runtime.commands.load:command", "Load a model on a server."),
    "unload": Subcommand("kerve.runtime.commands.unload:command", "Unload a model on a server."),
    "stats": Subcommand("kerve.runtime.commands.stats:command", "Show the statistics of a server."),
    "bench": Subcommand(
        "kerve.runtime.commands.bench:command", "Measure the throughput and latency of a served model."
    ),
    "convert-config": Subcommand(
        "kerve.runtime.commands.convert_config:command",
        "Convert a configuration of other servers to kerve's.",
    ),
    "evaluate": Subcommand(
        "kerve.runtime.commands.evaluate:command",
        "Compute a served model's loss and metrics on labelled data.",
    ),
    "promote": Subcommand(
        "kerve.runtime.commands.promote:command", "Assign a label to a version that meets requirements."
    ),
    "doctor": Subcommand(
        "kerve.runtime.commands.doctor:command",
        "Show hardware and libraries, and where models would run.",
    ),
    "inspect": Subcommand(
        "kerve.runtime.commands.inspect:command",
        "Show the signature and verification of an artifact.",
    ),
}

# The extra with the dependencies of each half.
EXTRAS = {"kerve.compiler": "kerve[compile]", "kerve.runtime": "kerve[serve]"}

EXAMPLE = """\b
Example:
  kerve compile digits.keras --repository models --name digits
  kerve serve --repository models
  kerve predict digits --data test.npz
"""


class LazyGroup(click.Group):
    """A group that lists its subcommands without importing them: `kerve serve` never imports TensorFlow."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """Return the names in the order of the table, which is the usual order of use."""
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  click's
        """Import one subcommand; if its half is not installed, the error says what to install."""
        if cmd_name not in SUBCOMMANDS:
            return None
        module, _, attribute = SUBCOMMANDS[cmd_name].target.partition(":")
        try:
            command: click.Command = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] == "kerve":
                raise
            half = next(each for each in EXTRAS if module.startswith(each))
            raise click.ClickException(
                f"kerve {cmd_name} needs {error.name}, which is not installed: pip install '{EXTRAS[half]}'"
            ) from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  click's
        """List the subcommands from the table."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in SUBCOMMANDS.items()])


def show_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print the installed version and stop."""
    if wanted:
        from importlib.metadata import version  # takes 20 ms, which other commands avoid

        click.echo(f"kerve {version('kerve')}")
        ctx.exit()


GROUP = LazyGroup(
    name="kerve",
    help="Compile a trained Keras model to ONNX, verify that it equals the original, and serve it over gRPC.",
    epilog=EXAMPLE,
    no_args_is_help=True,
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=show_version,
            help="Show the version and exit.",
        )
    ],
)


def fill_standard_streams() -> None:
    """Open standard streams that the caller has closed (`>&-`) on /dev/null.

    Otherwise the next file opened, a model perhaps, would get the descriptor and receive what is printed.
    """
    streams = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))
    while (descriptor := os.open(os.devnull, os.O_RDWR)) < len(streams):
        pass
    os.close(descriptor)
    for number, (name, mode) in enumerate(streams):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))


#: Errors without a file name that are not defects of the command: failed writes.
FULL = frozenset({errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC})


def told(error: Exception) -> tuple[int, str] | None:
    """Return the exit code and the message for an exception meant for the user; None for a defect."""
    exit_code = getattr(error, "exit_code", None)
    if isinstance(exit_code, int):
        return exit_code, str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return 1, f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError) and error.errno in FULL:
        return 1, f"the output cannot be written: {error.strerror}"
    return None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run `kerve` and exit the process.

    Exit codes: 0 done; 1 a file cannot be read or written; 2 wrong usage; 130 interrupted; otherwise the
    `exit_code` of the exception that ended the command. An exception with an `exit_code` is meant for the
    user and printed as one line. Any other is a defect of kerve and keeps its traceback.
    """
    # ONNX Runtime sends telemetry unless this is set before its import; users can set it to 0 to allow it.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    fill_standard_streams()
    try:
        sys.exit(GROUP.main(arguments, prog_name="kerve", standalone_mode=False))
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except Exception as error:
        line = told(error)
        if line is None:
            raise
        exit_code, text = line
        click.echo(f"error: {text}", err=True)
        sys.exit(exit_code)

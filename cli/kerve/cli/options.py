"""Declarative options: a dataclass field is a flag, an environment variable and a configuration key.

    @dataclass(frozen=True, kw_only=True)
    class Options:
        '''The options of `kerve greet`.'''

        name: str = argument(help="Whom to greet.")
        times: int = option(1, help="How often.")

    @command(example="kerve greet World --times 3")
    def command(options: Options) -> None:
        '''Greet somebody.'''

gives `kerve greet NAME [--times N]`, reads KERVE_TIMES, and reads `times` of the table [greet] in the TOML
file named by `--config` or KERVE_CONFIG. The command line takes precedence over the environment, the
environment over the file, the file over the default. The type of the field determines how the text is parsed;
see `parameter_type`.
"""

import dataclasses
import inspect
import math
import tomllib
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

import click

__all__ = [
    "EXISTING_FILE",
    "EXISTING_FOLDER",
    "EXISTING_PATH",
    "FOLDER",
    "PORT",
    "argument",
    "command",
    "option",
]

T = TypeVar("T")

EXISTING_PATH = click.Path(exists=True, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)
PORT = click.IntRange(0, 65535)

SCALARS: Mapping[type, click.ParamType[Any]] = {
    str: click.STRING,
    int: click.INT,
    float: click.FLOAT,
    bool: click.BOOL,
    Path: click.Path(path_type=Path),
}

METADATA = "kerve.cli"
ALSO = "kerve.cli.also"


def option(
    default: Any = dataclasses.MISSING,
    *,
    help: str,  # noqa: A002  click's word
    type: click.ParamType[Any] | None = None,  # noqa: A002  click's word
    also: str = "",
) -> Any:
    """Declare a field that is given as `--name`; without a default it is required.

    `type`: narrows the type of the field's annotation, for example `PORT` or `EXISTING_FOLDER`; `also`: an
    alternative flag.
    """
    return dataclasses.field(default=default, metadata={METADATA: (click.Option, help, type), ALSO: also})


def argument(
    default: Any = dataclasses.MISSING,
    *,
    help: str,  # noqa: A002  click's word
    type: click.ParamType[Any] | None = None,  # noqa: A002  click's word
) -> Any:
    """Declare a positional argument; it has no environment variable and no configuration key."""
    return dataclasses.field(default=default, metadata={METADATA: (click.Argument, help, type)})


def command(*, example: str) -> Callable[[Callable[[T], None]], click.Command]:
    """Create a click command from a function whose only parameter is a dataclass of options.

    The function's docstring is the help; `example` (one or more lines) is appended to it.
    """

    def decorate(function: Callable[[T], None]) -> click.Command:
        (parameter,) = inspect.signature(function).parameters
        options_class = typing.get_type_hints(function)[parameter]

        def callback(**values: Any) -> None:
            for name, value in values.items():
                for each in value if isinstance(value, tuple) else (value,):
                    if isinstance(each, float) and not math.isfinite(each):
                        raise click.UsageError(f"--{name.replace('_', '-')}: expected a number, got {each}")
            try:
                options = options_class(**values)
            except ValueError as error:  # from __post_init__: the values are valid but contradict each other
                raise click.UsageError(str(error)) from error
            function(options)

        lines = "\n".join(f"  {line}" for line in example.splitlines())
        return Command(
            name=function.__module__.rpartition(".")[2].replace("_", "-"),
            help=inspect.getdoc(function),
            epilog=f"\b\nExample:\n{lines}",
            params=[*parameters(options_class), CONFIG],
            callback=callback,
        )

    return decorate


class Command(click.Command):
    """Also accepts switches as `--switch=true` and `--switch=false`, like Triton."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the command line."""
        switches = {
            each.opts[0]: each
            for each in self.params
            if isinstance(each, click.Option) and each.secondary_opts
        }

        def plain(argument: str) -> str:
            flag, given, value = argument.partition("=")
            if not given or (switch := switches.get(flag)) is None:
                return argument
            return flag if click.BOOL.convert(value, switch, ctx) else switch.secondary_opts[0]

        return super().parse_args(ctx, [plain(each) for each in args])


def parameters(options_class: type) -> list[click.Parameter]:
    """Return the click parameters for the fields of a dataclass of options, in order."""
    hints = typing.get_type_hints(options_class)
    return [parameter(field, hints[field.name]) for field in dataclasses.fields(options_class)]


def parameter(field: "dataclasses.Field[Any]", annotation: Any) -> click.Parameter:
    """Return the click parameter for one field."""
    kind, help_text, narrower = field.metadata[METADATA]
    derived, multiple = parameter_type(annotation)
    required = field.default is dataclasses.MISSING
    common: dict[str, Any] = {"type": narrower or derived, "required": required, "help": help_text}
    if not required:
        common["default"] = field.default
    if kind is click.Argument:
        return click.Argument([field.name], nargs=-1 if multiple else 1, **common)
    word = field.name.rstrip("_")  # the field of --import is `import_`, as `import` is a keyword
    flag = "--" + word.replace("_", "-")
    also = [field.metadata[ALSO]] if field.metadata[ALSO] else []
    return click.Option(
        [f"{flag}/--no-{flag[2:]}" if annotation is bool else flag, *also, field.name],
        envvar=f"KERVE_{word.upper()}",
        show_envvar=True,
        multiple=multiple,
        show_default=field.default not in (None, ()),
        **common,
    )


def parameter_type(annotation: Any) -> tuple[click.ParamType[Any], bool]:
    """Return how the text of an option is parsed, and whether it may be given several times.

    str, int, float, Path; bool (`--x/--no-x`); Literal["a", "b"] (a choice); `T | None` (T, usually absent);
    tuple[T, ...] (several).
    """
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Literal:
        return click.Choice(arguments), False
    if origin in (types.UnionType, typing.Union):
        (present,) = (each for each in arguments if each is not type(None))
        return parameter_type(present)
    if origin is tuple:
        return parameter_type(arguments[0])[0], True
    return SCALARS[annotation], False


def read_config(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Set the defaults of this command from its table in a TOML file."""
    if path is None:
        return
    try:
        table = tomllib.loads(path.read_text("utf-8")).get(str(ctx.command.name), {})
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path} is not a TOML file: {error}") from error
    if not isinstance(table, dict):
        raise click.UsageError(f"{path}: {ctx.command.name}: expected a table of options, got {table!r}")
    known = {
        str(each.name).rstrip("_"): each
        for each in ctx.command.params
        if isinstance(each, click.Option) and each.expose_value
    }
    values = {key.replace("-", "_"): value for key, value in table.items()}
    if unknown := sorted(values.keys() - known.keys()):
        raise click.UsageError(
            f"{path}: unknown option {', '.join(unknown)}; "
            f"[{ctx.command.name}] takes: {', '.join(sorted(known))}"
        )
    ctx.default_map = {
        known[key].name: as_given(f"{path}: {key}", value, several=known[key].multiple)
        for key, value in values.items()
    }


def as_given(what: str, value: Any, *, several: bool) -> Any:
    """Convert a TOML value to its command line form, so that click parses and checks it, unlike defaults.

    Raises UsageError for a value that has no such form.
    """
    if several:
        return [
            as_given(what, each, several=False) for each in (value if isinstance(value, list) else [value])
        ]
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case str() if "\0" not in value:
            return value
    raise click.UsageError(f"{what}: expected a string, number or boolean, got {value!r}")


CONFIG = click.Option(
    ["--config"],
    type=EXISTING_FILE,
    envvar="KERVE_CONFIG",
    is_eager=True,
    expose_value=False,
    callback=read_config,
    help="TOML file with values for these options, in a table named after the command.",
)

"""What the three command lines share: one way to print, and one way to fail."""

import json
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from common.errors import ConfigError, EmoflError, RunError

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

PLACELESS = ("Symlink loop", "Could not determine home directory")
"""How what `pathlib` says begins where a path leads nowhere."""


def run_command_line(app: Callable[[], None]) -> NoReturn:
    """Run a Typer application; an `EmoflError` becomes one sentence on stderr and its exit code, and so does Ctrl-C."""
    try:
        app()
    except SystemExit as end:
        if isinstance(getattr(end.__context__, "__cause__", None), KeyboardInterrupt):  # Typer turns it into an exit code
            err.print("Stopped.")
        raise
    except EmoflError as error:
        _fail(str(error), error)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        _fail(f"{where}{error.strerror or error}.", RunError)
    except RuntimeError as error:
        if not str(error).startswith(PLACELESS):
            raise
        _fail(f"{str(error).rstrip('.')}: name another place.", ConfigError)
    except KeyboardInterrupt:
        err.print("Stopped.")
        sys.exit(130)
    sys.exit(0)


def _fail(sentence: str, error: EmoflError | type[EmoflError]) -> NoReturn:
    err.print(f"[bold red]error:[/] {escape(sentence)}", soft_wrap=True)
    sys.exit(error.exit_code)


def print_json(value: Any, indent: int | None = 2) -> None:
    """Print `value` for programs, byte for byte as JSON has it; on one line if `indent` is None."""
    out.print(json.dumps(value, indent=indent), soft_wrap=True, markup=False, emoji=False)


def command_line(help_text: str) -> typer.Typer:
    """A Typer application with our settings: no traceback with locals, no shell-completion clutter in the help."""
    return typer.Typer(
        help=help_text,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )

"""Which commands are there, and how do they end? Commands are imported when they are called."""

from __future__ import annotations

import io
import os
import sys
import traceback

import click

from fn import output
from fn.commanding import LazyGroup, examples, with_output
from fn.errors import Exit, FnError

#: Command -> the module and object that define it. Modules are imported only when asked for, since
#: a command line should answer at once.
COMMANDS: dict[str, str] = {}
#: How a program ends that writes to a reader who has left, as shells count it.
_READER_LEFT = 141


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples("fn init --runtime python me/greet", "fn deploy demo", "fn call demo /greet"),
)
def root() -> None:
    """Build functions, deploy them to Millrace, call them and see what became of the calls."""


with_output(root)


def main() -> None:
    """Run what the command line says; end with its exit code, and never with a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_ran())


def _ran() -> int:
    try:
        code = root.main(standalone_mode=False, prog_name="fn")
        sys.stdout.flush()
    except (click.exceptions.Abort, KeyboardInterrupt):
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # What is left in the buffer would be complained about at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_LEFT
    except Exception as error:  # noqa: BLE001 (nothing may end with a traceback)
        if os.environ.get("FN_DEBUG"):
            traceback.print_exc()
        told = _told(error)
        _complain(told)
        return told.code
    return code if isinstance(code, int) else Exit.OK


def _told(error: Exception) -> FnError:
    """Return an error as it is told."""
    if isinstance(error, FnError):
        return error
    if isinstance(error, click.UsageError) and error.ctx:
        usage = " ".join(error.ctx.get_usage().split())
        return FnError(error.format_message(), f"{usage} (--help shows examples)")
    if isinstance(error, click.ClickException):
        return FnError(error.format_message())
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename else ""
        return FnError(f"{where}{error.strerror}")
    return FnError(
        f"a defect in fn itself: {type(error).__name__}: {error}".partition("\n")[0],
        "Please report it to Millrace, with what the same command shows under FN_DEBUG=1",
        Exit.DEFECT,
    )


def _complain(error: FnError) -> None:
    output.styled(f"fn: {error.message}", "red")
    if error.hint:
        click.echo(f"    {error.hint}", err=True)

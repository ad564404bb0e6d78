"""Which commands are there, and how do they end? Commands are imported when they are called."""

from __future__ import annotations

import difflib
import io
import os
import re
import sys
import traceback

import click
from click.utils import PacifyFlushWrapper

from fn import output
from fn.commanding import LazyGroup, examples, with_output
from fn.errors import Exit, FnError
from fn.version import version

#: Command -> the module and object that define it. Modules are imported only when asked for, since
#: a command line should answer at once.
COMMANDS: dict[str, str] = {
    "apps": "fn.commands.apps:apps",
    "build": "fn.commands.building:build",
    "bump": "fn.commands.building:bump",
    "call": "fn.commands.call:call",
    "calls": "fn.commands.calls:calls",
    "completion": "fn.commands.completion:completion",
    "context": "fn.commands.context:context",
    "dead-letters": "fn.commands.dead_letters:dead_letters",
    "deploy": "fn.commands.deploy:deploy",
    "doctor": "fn.commands.doctor:doctor",
    "images": "fn.commands.building:images",
    "init": "fn.commands.init:init",
    "lambda": "fn.commands.lambdas:lambda_",
    "logs": "fn.commands.logs:logs",
    "push": "fn.commands.building:push",
    "routes": "fn.commands.routes:routes",
    "run": "fn.commands.run:run",
    "runners": "fn.commands.runners:runners",
    "test": "fn.commands.run:test",
    "token": "fn.commands.token:token",
    "upgrade": "fn.commands.upgrade:upgrade",
    "version": "fn.commands.version:version",
}
#: What the library calls numbers -> what people do.
_NUMBERS = {"integer": "whole number", "float": "number"}
#: How a program ends that writes to a reader who has left, as shells count it.
_READER_LEFT = 141


def _say_version(context: click.Context, _: click.Parameter, asked: bool) -> None:  # noqa: FBT001 (click's own)
    if asked:
        click.echo(f"fn {version()}")
        context.exit()


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    aliases={"dlq": "dead-letters"},
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples("fn init --runtime python me/greet", "fn deploy demo", "fn call demo /greet"),
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_say_version,
    help="Show the version and exit.",
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
    except (click.exceptions.Abort, KeyboardInterrupt) as error:
        if not isinstance(error.__context__, EOFError):
            return Exit.INTERRUPTED
        told = FnError("the input ended before the answer to a question", "Give it as an option")
        _complain(told)
        return told.code
    except BrokenPipeError:
        # What is left in the buffer would be complained about at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _READER_LEFT
    except SystemExit:
        # The library has seen to that itself; and so it ends when it has completed for a shell.
        if isinstance(sys.stdout, PacifyFlushWrapper):
            return _READER_LEFT
        raise
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
    if isinstance(error, click.NoSuchOption) and error.possibilities:
        meant = " or ".join(repr(name) for name in error.possibilities)
        return FnError(f"{error.message} Did you mean {meant}?", _usage(error))
    if isinstance(error, click.UsageError):
        return FnError(_message(error), _usage(error))
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


def _message(error: click.UsageError) -> str:
    """Return what is wrong in words of everyday, and which choice was perhaps meant."""
    said = error.format_message()
    said = re.sub(
        r"is not a valid (integer|float)( range)?\b",
        lambda found: f"is no {_NUMBERS[found[1]]}",
        said,
    )
    kind = getattr(getattr(error, "param", None), "type", None)
    written = re.search(r"'([^']*)' is not one of", said)
    if not isinstance(kind, click.Choice) or not written:
        return said
    close = difflib.get_close_matches(written[1], kind.choices, n=1, cutoff=0.5)
    return said + (f" Did you mean {close[0]!r}?" if close else "")


def _usage(error: click.UsageError) -> str:
    usage = " ".join(error.ctx.get_usage().split()) if error.ctx else "fn"
    return f"{usage} (--help shows examples)"


def _complain(error: FnError) -> None:
    output.styled(f"fn: {error.message}", "red")
    if error.hint:
        click.echo(f"    {error.hint}", err=True)

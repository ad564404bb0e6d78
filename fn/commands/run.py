"""How does a function answer on this machine? `fn run` and `fn test`."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fn import building as images
from fn import completing, framing, funcfile, hubs, locally, output, platform, trying
from fn.commanding import examples
from fn.commands import building
from fn.commands.call import headers as headers_of
from fn.commands.call import value_of
from fn.errors import Exit, FnError

if TYPE_CHECKING:
    from fn.funcfile import FuncFile

_BAD = 400


@click.command(
    epilog=examples(
        "fn run",
        "echo World | fn run",
        "ETCD_SERVER=10.0.0.1:2379 fn run -e ETCD_SERVER < request.json",
        "fn run me/greet:0.0.2",
    )
)
@click.argument("image", required=False, default="")
@click.option(
    "-e", "env", multiple=True, metavar="NAME[=VALUE]", help="A variable, and HEADER_NAME too."
)
@click.option("--link", multiple=True, metavar="CONTAINER:ALIAS", help="A container it reaches.")
@click.option("--method", default="", help="Default: POST if there is a body, else GET.")
def run(image: str, env: tuple[str, ...], link: tuple[str, ...], method: str) -> None:
    """Run the function once on this machine, as the platform would; standard input is its body."""
    has_file = funcfile.find(Path()) is not None
    file = building.load() if has_file or not image else _of_image(image)
    name = image or building.ensure(file)
    body = _body()
    given = headers_of(env, os.environ)
    known = {**os.environ, **given}
    building.warn_of_unset(file, known)
    config = {**file.config(known), **given}
    made = trying.call(
        file, body or b"", method.upper() or ("GET" if body is None else "POST"), given, config
    )
    with tempfile.TemporaryFile() as log:
        outcome = locally.call(name, made, trying.limits(file, link), log)
        log.seek(0)
        click.get_binary_stream("stderr").write(log.read())
    _show(outcome.answer)
    if outcome.failure:
        raise FnError(f"the function failed: {outcome.failure}", "", Exit.FAILED)
    if outcome.answer.status >= _BAD:
        status = outcome.answer.status
        raise FnError(f"the function answered with status {status}", "", Exit.FAILED)


def _of_image(image: str) -> FuncFile:
    name = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
    return funcfile.FuncFile(Path("func.yaml"), {"name": name})


def _body() -> bytes | None:
    """Return standard input, unless that is a terminal or nothing."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return None
    return None if stat.S_ISCHR(mode) else sys.stdin.buffer.read()


def _show(answer: framing.Answer) -> None:
    if output.is_asked_for():
        told = value_of(answer.status, dict(answer.headers), answer.body)
        del told["call_id"]
        output.show(told, "")
        return
    stream = click.get_binary_stream("stdout")
    stream.write(answer.body)
    stream.flush()
    if sys.stdout.isatty() and answer.body and not answer.body.endswith(b"\n"):
        output.note("")


@click.command(epilog=examples("fn test", "fn test --build", "fn test --remote demo"))
@click.option("-b", "--build", is_flag=True, help="Build the image first.")
@click.option(
    "--remote",
    default="",
    metavar="APP",
    help="Call the app's route.",
    shell_complete=completing.apps,
)
def test(remote: str, *, build: bool) -> None:
    """Try the tests of func.yaml, here or with --remote through the platform.

    The exit code is 1 if one of them fails.
    """
    file = building.load()
    tests = file.get("tests", [])
    if not tests:
        raise FnError(
            f"{file.path.name} has no tests",
            "Write some: tests: [{name: greets, in: Ada, out: 'Hello, Ada!'}]",
        )
    building.warn_of_unset(file, os.environ)
    image = _image(file, build=build) if build or not remote else ""
    verdicts = []
    for number, one in enumerate(tests, 1):
        if remote:
            outcome = trying.remote(file, one, remote, platform.current())
        else:
            outcome = trying.here(file, one, image, os.environ)
        verdict = trying.judge(one, outcome, file.folder, number)
        verdicts.append(verdict)
        if not output.is_asked_for():
            _tell(verdict)
    _sum_up(verdicts)


def _image(file: FuncFile, *, build: bool) -> str:
    if not build:
        return building.ensure(file)
    return images.build(file, file.version, images.Options(hubs.address(file)))


def _tell(verdict: trying.Verdict) -> None:
    word, colour = ("FAILED", "red") if verdict.faults else ("ok", "green")
    shown = output.coloured(word, colour)
    click.echo(f"{output.printable(verdict.name)}: {shown} ({verdict.elapsed_s:.2f} s)")
    for line in verdict.faults:
        click.echo(f"    {output.printable(line)}")


def _sum_up(verdicts: list[trying.Verdict]) -> None:
    failed = sum(bool(verdict.faults) for verdict in verdicts)
    if output.is_asked_for():
        told = [
            {
                "name": v.name,
                "ok": not v.faults,
                "faults": v.faults,
                "elapsed_s": round(v.elapsed_s, 3),
            }
            for v in verdicts
        ]
        output.show(told, "")
    if failed:
        raise FnError(f"{failed} of {len(verdicts)} tests failed", "", Exit.FAILED)
    if not output.is_asked_for():
        click.echo(f"{len(verdicts)} tests passed")

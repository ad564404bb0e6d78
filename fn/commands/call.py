"""How is a function called? `fn call`, also as `fn routes call`."""

from __future__ import annotations

import base64
import os
import stat
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import click

from fn import completing, contexts, hints, output, platform, tokens
from fn.commanding import examples
from fn.errors import Exit, FnError

if TYPE_CHECKING:
    from collections.abc import Mapping

_BAD = 400
_ACCEPTED = 202
_DENIED = Exit.UNAUTHORIZED
#: Whose fault it was, as the platform says it -> how the command ends.
_EXITS = {"caller": Exit.REFUSED, "function": Exit.FAILED, "platform": Exit.UNREACHABLE}


@dataclass(frozen=True)
class Target:
    """What is called, and where, if not where everything is."""

    app: str
    path: str
    #: As it stands in a URL, with its question mark; "" if there is none.
    query: str
    api_url: str = ""


@click.command(
    epilog=examples(
        "fn call demo /greet",
        "echo World | fn call demo /greet",
        'fn call demo /greet --data \'{"name": "Ann"}\'',
        "fn call /r/demo/greet?name=Ann --method GET",
        "TRACE=7 fn call demo /greet -e TRACE",
        "fn call demo /pay --data @order.json --idempotency-key order-17",
        "fn call demo /factors --callback https://shop.example/done",
    )
)
@click.argument("app", metavar="APP|URL", shell_complete=completing.apps)
@click.argument(
    "path", metavar="[/PATH]", required=False, default="", shell_complete=completing.routes
)
@click.option("-e", "env", multiple=True, metavar="NAME[=VALUE]", help="Send it as a header.")
@click.option("--method", default="", help="Default: POST if there is a body, else GET.")
@click.option("-d", "--data", metavar="TEXT|@FILE", help="The body, instead of standard input.")
@click.option("--idempotency-key", metavar="KEY", help="Run it once, however often it is sent.")
@click.option("--callback", metavar="URL", help="Of an async route: send the outcome there.")
@click.option("--link", multiple=True, help="Without effect; links are for `fn run`.")
def call(
    app: str,
    path: str,
    *,
    env: tuple[str, ...],
    method: str,
    data: str | None,
    idempotency_key: str | None,
    callback: str | None,
    link: tuple[str, ...],
) -> None:
    """Call a function and show its answer; standard input is its body.

    Instead of APP and /PATH a URL will do, with or without a host. The exit code is 0 if the call
    succeeded.
    """
    if link:
        output.warn("--link is without effect here: the function runs on the platform")
    target = aim(app, path)
    body = _body(data)
    here = _platform(target)
    asked = {"Idempotency-Key": idempotency_key, "X-Callback-Url": callback}
    sent = {**_token(here, target), **headers(env, os.environ)}
    sent |= {name: value for name, value in asked.items() if value is not None}
    answer = here.fetch(
        (method or ("GET" if body is None else "POST")).upper(),
        platform.call_path(target.app, target.path) + target.query,
        body,
        headers=sent,
        patient=True,
    )
    _show(answer)
    _judge(answer, target)


def aim(app: str, path: str) -> Target:
    """Return what is to be called.

    >>> aim("http://localhost:8080/r/demo/a%20b?x=1", "")
    Target(app='demo', path='/a b', query='?x=1', api_url='http://localhost:8080')
    >>> aim("demo/greet", "") == aim("/r/demo/greet", "") == aim("demo", "greet")
    True
    """
    parts = urlsplit(path or app)
    query = f"?{parts.query}" if parts.query else ""
    if path:
        return Target(app, platform.clean(unquote(parts.path)), query)
    before, called, after = parts.path.rpartition("/r/") if "/r/" in parts.path else ("", "", "")
    if parts.scheme and not called:
        raise FnError(f"{app} is no address of a function", "They look like http://HOST/r/APP/PATH")
    name, slash, rest = (after if called else parts.path.lstrip("/")).partition("/")
    if not name or not (slash or called):
        raise FnError("the path of the route is missing", f"fn call {app or 'APP'} /PATH")
    api_url = f"{parts.scheme}://{parts.netloc}{before}" if parts.netloc else ""
    return Target(unquote(name), platform.clean(unquote(rest)), query, api_url)


def headers(env: tuple[str, ...], environ: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that `-e` asks for. Raises `FnError` for a variable that is not set.

    >>> headers(("A", "B=2"), {"A": "1"})
    {'A': '1', 'B': '2'}
    """
    found = {}
    for option in env:
        name, equals, value = option.partition("=")
        if not equals and name not in environ:
            raise FnError(f"-e {name}: there is no such variable here", f"Write -e {name}=value")
        found[name] = value if equals else environ[name]
    return found


def _body(data: str | None) -> bytes | None:
    """Return what is sent: `--data`, else standard input unless that is a terminal or nothing."""
    if data is not None:
        return Path(data[1:]).read_bytes() if data.startswith("@") else data.encode()
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):
        return None
    return None if stat.S_ISCHR(mode) else sys.stdin.buffer.read()


def _platform(target: Target) -> platform.Platform:
    context = contexts.current()
    if not target.api_url:
        return platform.Platform(context)
    given = {"api_url": target.api_url}
    return platform.Platform(contexts.with_fields(context, given, {"api_url": "the URL"}))


def _token(here: platform.Platform, target: Target) -> dict[str, str]:
    """Return the token that the route asks for, if it does and its key may be read.

    Who may not read it can still call it, with a token given by `-e Authorization=...`.
    """
    try:
        route = here.ask("GET", platform.route_path(target.app, target.path))["route"]
    except FnError as error:
        if error.code != Exit.UNAUTHORIZED:
            raise
        return {}
    key = route.get("jwt_key")
    return {"Authorization": f"Bearer {tokens.sign(key, time.time())}"} if key else {}


def _show(answer: platform.Answer) -> None:
    if output.is_for_programs():
        output.show(_as_value(answer), "")
        return
    stream = click.get_binary_stream("stdout")
    stream.write(answer.body)
    stream.flush()


def _as_value(answer: platform.Answer) -> dict[str, Any]:
    try:
        body = {"body": answer.body.decode()}
    except UnicodeDecodeError:
        body = {"body_base64": base64.b64encode(answer.body).decode()}
    return {
        "status": answer.status,
        "call_id": answer.headers.get("X-Call-Id"),
        "headers": dict(answer.headers),
        **body,
    }


def _judge(answer: platform.Answer, target: Target) -> None:
    """Say what became of the call, beside what its answer says. Raises `FnError` if it failed."""
    if sys.stdout.isatty() and answer.body and not answer.body.endswith(b"\n"):
        output.note("")
    if answer.status == _ACCEPTED and sys.stderr.isatty():
        output.note("`fn calls wait CALL_ID --result` waits for the result")
    if answer.status >= _BAD:
        raise failure(answer, target)


def failure(answer: platform.Answer, target: Target) -> FnError:
    """Return what to say of a call that failed: whose fault it was, and what helps."""
    call_id = answer.headers.get("X-Call-Id", "CALL_ID")
    route = f"{target.app} {target.path}"
    told = answer.json()
    error = told.get("error") if isinstance(told, dict) else None
    if not isinstance(error, dict) or not hints.message(told):
        return FnError(
            f"the function answered with status {answer.status}",
            hints.call("failed", route, call_id),
            Exit.FAILED,
        )
    if answer.status == hints.UNAUTHORIZED:
        return FnError(hints.message(told), hints.call("unauthorized", route, call_id), _DENIED)
    fault = str(error.get("fault", "caller"))
    hint = hints.call(str(error.get("code", "")), route, call_id)
    return FnError(
        f"{hints.message(told)} (the {fault}'s fault)", hint, _EXITS.get(fault, Exit.FAILED)
    )

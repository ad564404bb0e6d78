"""How is a function called? `fn call`, also as `fn routes call`."""

from __future__ import annotations

import base64
import os
import re
import stat
import sys
import time
from dataclasses import dataclass, replace
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
    >>> aim("localhost:8080/r/demo/greet", "").api_url, aim("demo/r/greet", "").path
    ('http://localhost:8080', '/r/greet')
    """
    try:
        parts = urlsplit(path or _with_scheme(app))
    except ValueError:
        hint = "They look like http://HOST/r/APP/PATH"
        raise FnError(f"{path or app} is no address of a function", hint) from None
    query = f"?{parts.query}" if parts.query else ""
    if path:
        return Target(app, platform.clean(unquote(parts.path)), query)
    prefix, called, rest = _called(parts.path, has_host=bool(parts.netloc))
    if parts.netloc and not called:
        raise FnError(f"{app} is no address of a function", "They look like http://HOST/r/APP/PATH")
    name, slash, rest = rest.partition("/")
    if not name or not (slash or called):
        raise FnError("the path of the route is missing", f"fn call {app or 'APP'} /PATH")
    api_url = f"{parts.scheme}://{parts.netloc}{prefix}" if parts.netloc else ""
    return Target(unquote(name), platform.clean(unquote(rest)), query, api_url)


def _called(path: str, *, has_host: bool) -> tuple[str, bool, str]:
    """Return what is before `/r/`, whether that is there, and app and path behind it.

    >>> _called("/api/r/demo/a/r/b", has_host=True), _called("demo/r/b", has_host=False)
    (('/api', True, 'demo/a/r/b'), ('', False, 'demo/r/b'))
    """
    before, called, after = path.partition("/r/")
    if called and (has_host or not before):
        return before, True, after
    return "", False, path.lstrip("/")


def _with_scheme(address: str) -> str:
    """Return an address that begins with a host as a URL; names of apps have no dots and colons."""
    first, _, rest = address.removeprefix("//").partition("/")
    is_host = address.startswith("//") or "." in first or ":" in first or first == "localhost"
    if re.match(r"[a-z]+://", address) or not is_host or "/r/" not in f"/{rest}":
        return address
    return f"http://{first}/{rest}"


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
    named = contexts.with_fields(context, given, {"api_url": "the URL"})
    # A token that manages one platform is not shown to another.
    is_same = named.api_url == context.api_url
    return platform.Platform(named if is_same else replace(named, jwt_auth_key=""))


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
    if output.is_asked_for():
        output.show(value_of(answer.status, answer.headers, answer.body), "")
        return
    stream = click.get_binary_stream("stdout")
    stream.write(answer.body)
    stream.flush()


def value_of(status: int, headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
    """Return an answer as it is shown to programs.

    >>> value_of(200, {"X-Call-Id": "1"}, bytes([255]))["body_base64"]
    '/w=='
    """
    try:
        told = {"body": body.decode()}
    except UnicodeDecodeError:
        told = {"body_base64": base64.b64encode(body).decode()}
    return {
        "status": status,
        "call_id": headers.get("X-Call-Id"),
        "headers": dict(headers),
        **told,
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

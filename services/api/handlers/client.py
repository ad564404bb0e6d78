"""How do people get the client? `/fn`, a script for `curl HOST/fn | sh`, and what it takes."""

from typing import Any

from aiohttp import web

from services.api import installing, openapi, problems
from services.api.packed import Packed

#: Not there if the replica was started without the packed client.
PACKED = web.AppKey("packed", Packed)

_SCRIPT = "text/x-shellscript"
_TEXT = "text/plain"
_BINARY = "application/octet-stream"
_NOT_PACKED = "This api was started without the packed client; `make fn images up` packs it"
_MISSING = openapi.Problem(_NOT_PACKED)
#: Caches ask each time, and keep apart what was made for different addresses.
_FRESH = {"Cache-Control": "no-cache"}
_PER_HOST = {**_FRESH, "Vary": "Host, X-Forwarded-Proto"}


@openapi.operation(
    "Write a shell script that installs the client `fn`: curl http://HOST/fn | sh",
    tag="client",
    answers={
        200: openapi.Raw("The script, made for the address it was asked by.", _SCRIPT),
        400: openapi.Problem("Host must be the name and port by which clients reach this api"),
        404: openapi.Raw("A script that says that there is no client here, and fails.", _SCRIPT),
    },
)
async def install(request: web.Request) -> web.Response:
    """Answer the script; also if there is no client, since a shell reads it."""
    packed = request.app.get(PACKED)
    if packed is None:
        return _text(installing.NOT_PACKED, _SCRIPT, _PER_HOST, status=404)
    forwarded = request.headers.get("X-Forwarded-Proto", "")
    url = installing.address(request.host, forwarded, request.scheme)
    script = installing.script(packed.installer, url, packed.sha256, packed.version)
    return _text(script, _SCRIPT, {**_PER_HOST, "X-Fn-Version": packed.version})


@openapi.operation(
    "Hand out the client `fn`, one executable file.",
    tag="client",
    answers={
        200: openapi.Raw("The file; its ETag is its SHA-256.", _BINARY),
        304: openapi.Raw("The file is the one that `If-None-Match` names.", _BINARY),
        404: _MISSING,
    },
)
async def download(request: web.Request) -> web.Response:
    """Answer the packed file."""
    packed = _packed(request)
    headers = {
        **_FRESH,
        "ETag": packed.etag,
        "X-Fn-Version": packed.version,
        "Content-Disposition": 'attachment; filename="fn"',
    }
    if any(tag.value in {packed.sha256, "*"} for tag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    return web.Response(body=packed.body, content_type=_BINARY, headers=headers)


@openapi.operation(
    "Tell the SHA-256 of the client `fn`.",
    tag="client",
    answers={200: openapi.Raw("As `sha256sum` writes it.", _TEXT), 404: _MISSING},
)
async def checksum(request: web.Request) -> web.Response:
    """Answer the checksum of the packed file."""
    packed = _packed(request)
    headers = {**_FRESH, "ETag": packed.etag, "X-Fn-Version": packed.version}
    return _text(f"{packed.sha256}  fn\n", _TEXT, headers)


def _packed(request: web.Request) -> Packed:
    packed = request.app.get(PACKED)
    if packed is None:
        raise problems.NotFound(_NOT_PACKED)
    return packed


def _text(text: str, kind: str, headers: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(
        text=text, content_type=kind, charset="utf-8", headers=headers, status=status
    )


ROUTES = (
    web.get("/fn", install),
    web.get("/fn/download", download),
    web.get("/fn/sha256", checksum),
)

"""How is the platform asked? By HTTP with a token of our own, and errors that say what helps."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import urllib3

from fn import contexts, hints, tokens
from fn.errors import Exit, FnError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fn.contexts import Context

CONNECT_TIMEOUT_S = 10.0
#: The platform lets a request for a call's end wait for a minute.
READ_TIMEOUT_S = 90.0
_ERROR, _REDIRECT = 400, 300
_LOCAL = ("localhost", "127.0.0.1", "::1")
#: Of what HTTP makes its methods and its headers' names.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 (it is whatever was sent)
        """Return the body as JSON; None if it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


def current() -> Platform:
    """Return the platform that the environment or the chosen context means."""
    return Platform(contexts.current())


def app_path(app: str, rest: str = "") -> str:
    """Return the path of an app in the API.

    >>> app_path("demo", "/calls")
    '/v1/apps/demo/calls'
    """
    if not app:
        raise FnError("the app's name is missing", "`fn apps list` shows what there is")
    return f"/v1/apps/{quote(app, safe='')}{rest}"


def route_path(app: str, path: str) -> str:
    """Return the path of a route in the API.

    >>> route_path("demo", "a b")
    '/v1/apps/demo/routes/a%20b'
    """
    return app_path(app, f"/routes{quote(clean(path), safe='/')}")


def quoted(before: str, name: str) -> str:
    """Return a path with one more part, whatever is in its name.

    >>> quoted("/v1/calls", "a/b")
    '/v1/calls/a%2Fb'
    """
    return f"{before}/{quote(name, safe='')}"


def call_path(app: str, path: str) -> str:
    """Return the path under which a function is called.

    >>> call_path("demo", "/hello")
    '/r/demo/hello'
    """
    return f"/r/{quote(app, safe='')}{quote(clean(path), safe='/')}"


def clean(path: str) -> str:
    """Return a route's path as the platform has it: absolute, no doubled slashes.

    >>> clean("hello"), clean("//a//b/"), clean("/")
    ('/hello', '/a/b', '/')
    """
    return "/" + "/".join(part for part in path.split("/") if part)


def check_method(method: str) -> str:
    """Return a request's method. Raises `FnError` if it is none."""
    if not _TOKEN.fullmatch(method):
        raise FnError(f"{method!r} is no method of HTTP", "Write GET, POST, PUT or the like")
    return method


def header_value(name: str, value: str) -> str:
    """Return a header's value as the connection takes it, which is to be UTF-8 on the wire.

    Raises `FnError` if such a header cannot be sent.

    >>> header_value("X-City", "Köln").encode("latin-1").decode()
    'Köln'
    """
    if not _TOKEN.fullmatch(name):
        raise FnError(f"{name!r} is no name of a header", "Write letters, digits, `-` and `_`")
    if re.search(r"[\0\r\n]", value):
        raise FnError(
            f"the value of {name} has several lines, and a header has one", "Send it in the body"
        )
    return value.encode(errors="surrogateescape").decode("latin-1")


class _Told(dict[str, Any]):
    """What an API answers; what lacks a field that is needed comes from another kind of API."""

    def __init__(self, told: dict[str, Any], url: str, answer: Answer) -> None:
        super().__init__(told)
        self._stranger = _stranger(url, answer)

    def __missing__(self, _: str) -> Any:  # noqa: ANN401 (dict's own)
        raise self._stranger


class Platform:
    """One platform's API."""

    def __init__(self, context: Context) -> None:
        """Ask the platform that `context` means."""
        self.context = context
        self._pool = _pool(context)

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return self.context.api_url

    def ask(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        query: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Return what the API answers to a request of management, as it came from JSON.

        `body` becomes JSON. Raises `FnError` with the API's message and a hint.
        """
        sent = None if body is None else json.dumps(body).encode()
        answer = self.read(method, path, sent, query=query)
        told = answer.json()
        if not isinstance(told, dict):
            raise _stranger(self.url, answer)
        return _Told(told, self.url, answer)

    def read(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        query: Mapping[str, str] | None = None,
    ) -> Answer:
        """Return a good answer of management, whatever its body is. Raises as `ask` does."""
        answer = self.fetch(method, path, body, query=query, headers=self._signed())
        if answer.status >= _REDIRECT:
            raise self._refused(method, path, answer)
        return answer

    def fetch(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        patient: bool = False,
    ) -> Answer:
        """Return any answer, also a bad one; `patient` waits for it as long as it takes.

        Raises `FnError` only if there is none.
        """
        response = self.open(method, path, body, query=query, headers=headers, patient=patient)
        try:
            return Answer(response.status, response.headers, response.read(decode_content=True))
        except urllib3.exceptions.HTTPError as error:
            raise unreachable(self.url, error) from error
        finally:
            response.release_conn()

    def open(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        patient: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        """Return an answer whose body is still to be read; who opens it releases it."""
        url = self.url + path + (f"?{urlencode(query)}" if query else "")
        wait = urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=None if patient else READ_TIMEOUT_S)
        sent = urllib3.HTTPHeaderDict({"User-Agent": "fn", "Content-Type": "application/json"})
        for name, value in (headers or {}).items():
            sent[name] = header_value(name, value)
        try:
            return self._pool.request(
                check_method(method),
                url,
                body=body,
                headers=sent,
                timeout=wait,
                preload_content=False,
                retries=False,
                redirect=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise unreachable(self.url, error) from error

    def _signed(self) -> dict[str, str]:
        key = self.context.jwt_auth_key
        return {"Authorization": f"Bearer {tokens.sign(key, time.time())}"} if key else {}

    def _refused(self, method: str, path: str, answer: Answer) -> FnError:
        message = hints.message(answer.json())
        if answer.status < _ERROR:
            return _redirected(self.url, answer)
        if not message:
            return _stranger(self.url, answer)
        hint = self._hint(method, path, message, answer)
        return FnError(message, hint, hints.exit_code(answer.status))

    def _hint(self, method: str, path: str, message: str, answer: Answer) -> str:
        if answer.status == hints.UNAUTHORIZED:
            has_key = bool(self.context.jwt_auth_key)
            return hints.unauthorized(
                has_key=has_key, date=answer.headers.get("Date"), now=time.time()
            )
        listing = hints.listing(path, message)
        if not listing:
            return hints.refused(method, path, message)
        told = self.fetch("GET", listing.path, headers=self._signed()).json()
        things = told.get(listing.what, []) if isinstance(told, dict) else []
        return hints.unknown(listing, [str(thing[listing.field]) for thing in things])


def _pool(context: Context) -> urllib3.PoolManager:
    """Return connections, through a proxy if the environment names one for this address."""
    trust: dict[str, Any] = {}
    if context.ssl_skip_verify:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)
        trust = {"cert_reqs": "CERT_NONE", "assert_hostname": False}
    parts = urlsplit(context.api_url)
    proxy = getproxies().get(parts.scheme)
    if not proxy or parts.hostname in _LOCAL or proxy_bypass(parts.hostname or ""):
        return urllib3.PoolManager(**trust)
    return _through(proxy if "://" in proxy else f"http://{proxy}", parts.scheme, trust)


def _through(proxy: str, scheme: str, trust: dict[str, Any]) -> urllib3.PoolManager:
    """Return connections through a proxy, with the user and password in its address."""
    variable = f"{scheme.upper()}_PROXY"
    try:
        auth = urllib3.util.parse_url(proxy).auth
        login = urllib3.make_headers(proxy_basic_auth=unquote(auth)) if auth else {}
        return urllib3.ProxyManager(proxy, proxy_headers=login, **trust)
    except (urllib3.exceptions.HTTPError, ValueError) as error:
        raise FnError(
            f"{variable} is no proxy that can be used: {error}",
            f"Write it as {variable}=http://HOST:PORT, or unset it",
        ) from error


def unreachable(url: str, error: Exception) -> FnError:
    """Return what to say if no answer came."""
    return FnError(*hints.unreachable(url, error), Exit.UNREACHABLE)


def _stranger(url: str, answer: Answer) -> FnError:
    return FnError(
        f"{url} is no API of Millrace: it answers {answer.status} with "
        f"{hints.excerpt(answer.body) or 'nothing'}",
        "Is API_URL right? `fn context list` shows what is in use, `fn doctor` what is there",
        Exit.UNREACHABLE,
    )


def _redirected(url: str, answer: Answer) -> FnError:
    target = answer.headers.get("Location", "nowhere")
    parts = urlsplit(target)
    better = f"{parts.scheme}://{parts.netloc}" if parts.netloc else "the right address"
    return FnError(f"{url} redirects to {target}", f"Set API_URL={better}", Exit.UNREACHABLE)

"""Which are the latest tweets of an account?

Reads one request from standard input and answers on standard output:

    {"username": "jack"}   ->   Looking for tweets of the account: jack
                                jack: just setting up my twttr

The keys of the Twitter app are in the environment: `CUSTOMER_KEY`, `CUSTOMER_SECRET`,
`ACCESS_TOKEN`, `ACCESS_SECRET`. Each request is signed with them as OAuth 1.0a says (RFC 5849,
HMAC-SHA1), with nothing but Python. What goes wrong is said on standard error, and the exit code
tells what kind it was: see `Problem`.
"""

# ruff: noqa: INP001 (a function's folder is what goes into its image, not a package)

import base64
import hashlib
import hmac
import html
import http.client
import json
import os
import secrets
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, quote, urlsplit

DEFAULT_API = "https://api.twitter.com/1.1"
TIMELINE = "/statuses/user_timeline.json"
#: How long the API may take to answer, in seconds.
API_TIMEOUT_S = 10.0
DEFAULT_PORTS = {"http": 80, "https": 443}

KEYS = ("CUSTOMER_KEY", "CUSTOMER_SECRET", "ACCESS_TOKEN", "ACCESS_SECRET")
PLACEHOLDER = "XXXXXX"
HINT = (
    "apply for it and get it at apps.twitter.com: configure a Twitter App, then Customer Access and"
    " Access Token (https://dev.twitter.com/oauth/overview/application-owner-access-tokens), and"
    " put it into the app's config"
)

#: Names and values of a request, its query and OAuth's own, before they are encoded.
Parameters = Iterable[tuple[str, str]]


class Problem(Exception):
    """Something the caller must be told; ends the function with `exit_code`."""

    exit_code = 1


class NoSuchAccount(Problem):
    """Twitter has no such account, or does not show it."""

    exit_code = 1


class BadRequest(Problem):
    """What stands on standard input is not a request."""

    exit_code = 2


class BadConfig(Problem):
    """A key is missing or is none, or Twitter does not take them."""

    exit_code = 3


class BadServer(Problem):
    """The API does not answer, or not with a timeline."""

    exit_code = 4


@dataclass(frozen=True)
class Keys:
    """Who asks: the Twitter app, and the account that gave it access."""

    customer_key: str
    customer_secret: str
    access_token: str
    access_secret: str


def parse_username(raw: bytes) -> str:
    """Return the account's name out of a request, without its @."""
    try:
        request = json.loads(raw)
    except ValueError as error:
        raise BadRequest(
            f'standard input is not JSON like {{"username": "jack"}}: {error}'
        ) from None
    name = request.get("username") if isinstance(request, dict) else None
    if not isinstance(name, str) or not name.strip().removeprefix("@"):
        raise BadRequest('"username" is missing; the request is JSON like {"username": "jack"}')
    return name.strip().removeprefix("@")


def read_keys(config: Mapping[str, str]) -> Keys:
    """Return the four keys; the first that is missing, or is still a placeholder, is named."""
    for name in KEYS:
        value = config.get(name, "")
        if not value:
            raise BadConfig(f"{name} is not set: {HINT}")
        if value == PLACEHOLDER:
            raise BadConfig(f"{name} is still the placeholder {PLACEHOLDER}: {HINT}")
    return Keys(*(config[name] for name in KEYS))


def parse_api(text: str) -> SplitResult:
    """Return the address below which the API's paths are, without a slash at its end."""
    try:
        url = urlsplit(text.rstrip("/"))
        usable = url.scheme in DEFAULT_PORTS and url.hostname and url.port != 0
    except ValueError:
        usable = False
    if not usable or url.query or url.fragment or url.username is not None:
        raise BadConfig(f"TWITTER_API_URL: {text!r} is no address like {DEFAULT_API}")
    return url


def percent(text: str) -> str:
    """Encode as RFC 5849, section 3.6: all but letters, digits, and - . _ ~ in capital hex.

    >>> percent("Ladies + Gentlemen")
    'Ladies%20%2B%20Gentlemen'
    """
    return quote(text, safe="~", errors="replace")


def base_uri(url: SplitResult) -> str:
    """Return the address that is signed (section 3.4.1.2): no query, no port of its scheme's own.

    >>> base_uri(urlsplit("http://EXAMPLE.com:80/r%20v/X?id=123"))
    'http://example.com/r%20v/X'
    """
    authority = _authority(url)
    return f"{url.scheme}://{authority}{url.path or '/'}"


def _authority(url: SplitResult) -> str:
    host = url.hostname or ""
    host = f"[{host}]" if ":" in host else host
    own = url.port in (None, DEFAULT_PORTS[url.scheme])
    return host if own else f"{host}:{url.port}"


def base_string(method: str, url: SplitResult, parameters: Parameters) -> str:
    """Return what is signed (section 3.4.1): method, address, and the parameters in order."""
    encoded = sorted((percent(name), percent(value)) for name, value in parameters)
    normalized = "&".join(f"{name}={value}" for name, value in encoded)
    return "&".join((method.upper(), percent(base_uri(url)), percent(normalized)))


def signature(text: str, keys: Keys) -> str:
    """Return the HMAC-SHA1 signature of a base string (section 3.4.2)."""
    key = f"{percent(keys.customer_secret)}&{percent(keys.access_secret)}"
    return base64.b64encode(hmac.digest(key.encode(), text.encode(), hashlib.sha1)).decode()


def authorization(
    url: SplitResult, query: Parameters, keys: Keys, nonce: str, timestamp_s: int
) -> str:
    """Return the `Authorization` of a GET (section 3.5.1)."""
    oauth = {
        "oauth_consumer_key": keys.customer_key,
        "oauth_nonce": nonce,
        "oauth_signature_method": "HMAC-SHA1",
        "oauth_timestamp": str(timestamp_s),
        "oauth_token": keys.access_token,
        "oauth_version": "1.0",
    }
    text = base_string("GET", url, [*query, *oauth.items()])
    oauth["oauth_signature"] = signature(text, keys)
    return "OAuth " + ", ".join(f'{name}="{percent(value)}"' for name, value in oauth.items())


def fetch(api: SplitResult, username: str, keys: Keys) -> list[dict[str, Any]]:
    """Return the latest tweets of an account, newest first, as the API tells them."""
    url = api._replace(path=api.path + TIMELINE)
    query = [("screen_name", username), ("tweet_mode", "extended")]
    target = url.path + "?" + "&".join(f"{name}={percent(value)}" for name, value in query)
    signed = authorization(url, query, keys, secrets.token_hex(16), int(time.time()))
    status, body = _get(url, target, {"Authorization": signed, "Accept": "application/json"})
    if status != http.client.OK:
        raise _refusal(status, body, username)
    try:
        tweets = json.loads(body)
    except ValueError:
        tweets = None
    if not isinstance(tweets, list):
        raise BadServer(f"{base_uri(url)} answers with something that is no list of tweets")
    return tweets


def _get(url: SplitResult, target: str, headers: dict[str, str]) -> tuple[int, bytes]:
    secure = url.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(url.hostname or "", url.port, timeout=API_TIMEOUT_S)
    try:
        connection.request("GET", target, headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException, ValueError) as error:
        why = str(error) or type(error).__name__
        raise BadServer(f"no answer from {base_uri(url)}: {why}") from None
    finally:
        connection.close()


def _refusal(status: int, body: bytes, username: str) -> Problem:
    said = f"{status}, {_reason(body)}"
    if status == http.client.NOT_FOUND:
        return NoSuchAccount(f"Twitter shows no account {username} ({said})")
    if status in (http.client.UNAUTHORIZED, http.client.FORBIDDEN):
        return BadConfig(f"Twitter refuses; do the four keys belong together? ({said})")
    return BadServer(f"Twitter cannot answer now ({said})")


def _reason(body: bytes) -> str:
    """Return the message of the API's error, or the beginning of what it said instead."""
    try:
        return str(json.loads(body)["errors"][0]["message"])
    except (ValueError, LookupError, TypeError):
        return body.decode("utf-8", "replace").strip()[:200] or "without a reason"


def line(tweet: Mapping[str, Any]) -> str:
    r"""Return one tweet as one line, `author: text`.

    >>> line({"user": {"name": "jack"}, "text": "salt &amp;\npepper"})
    'jack: salt & pepper'
    """
    try:
        author = tweet["user"]["name"]
        text = tweet["full_text"] if "full_text" in tweet else tweet["text"]
        return f"{_one_line(author)}: {_one_line(html.unescape(text))}"
    except (LookupError, TypeError, AttributeError):
        raise BadServer("the API answers with a tweet that has no author or no text") from None


def _one_line(text: str) -> str:
    return " ".join(text.split())


def say(text: str) -> None:
    """Write one line of the answer; lone surrogates of JSON become question marks."""
    sys.stdout.buffer.write(text.encode("utf-8", "replace") + b"\n")
    sys.stdout.buffer.flush()


def main() -> int:
    """Serve one call; return the exit code."""
    try:
        username = parse_username(sys.stdin.buffer.read())
        keys = read_keys(os.environ)
        api = parse_api(os.environ.get("TWITTER_API_URL") or DEFAULT_API)
        say(f"Looking for tweets of the account: {username}")
        for tweet in fetch(api, username, keys):
            say(line(tweet))
    except Problem as problem:
        sys.stderr.write(f"{problem}\n")
        return problem.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())

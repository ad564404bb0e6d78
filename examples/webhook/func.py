"""Of which primes is a number the product? Works, and then calls the address that the caller named.

For an async route: the caller has its answer (202) long before the work is done, so the outcome
goes where the request says:

    {"number": 600851475143, "callback": "http://10.0.0.7:9000/done"}

is called back by a POST with the body

    {"call_id": "01a2...", "number": 600851475143, "factors": [71, 839, 1471, 6857]}

The same stands on standard output, which the platform keeps as the call's result. An async call
may be run again after a runner was lost: whoever is called back knows a repetition by `call_id`.
With `CALLBACK_SECRET` in the config, the header `X-Signature` has the body's HMAC-SHA256, so that
the receiver knows who calls.
"""

# ruff: noqa: INP001 (a function's folder is what goes into its image, not a package)

import hashlib
import hmac
import http.client
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

#: The largest number that is worked on: a prime of this size takes some seconds.
LARGEST = 10**15
#: How long the receiver may take to answer, in seconds.
CALLBACK_TIMEOUT_S = 10.0
#: How long to wait before each further attempt, in seconds.
PAUSES_S = (1.0, 2.0, 4.0)
CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


class Problem(Exception):
    """Something that must be told; ends the function with `exit_code`."""

    exit_code = 1


class BadRequest(Problem):
    """What stands on standard input is not a request."""

    exit_code = 2


class NotTaken(Problem):
    """The receiver cannot be reached, or does not take the outcome."""

    exit_code = 3


class NotTakenNow(NotTaken):
    """The same, but another attempt may help."""


def parse_request(raw: bytes) -> dict[str, Any]:
    """Return a request that is a JSON object; its fields are still to be looked at."""
    try:
        request = json.loads(raw)
    except ValueError as error:
        raise BadRequest(f"standard input is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise BadRequest('standard input is not a JSON object with "number" and "callback"')
    return request


def parse_callback(address: object) -> SplitResult:
    """Return the address to call back."""
    try:
        url = urlsplit(address if isinstance(address, str) else "")
        usable = url.scheme in CONNECTIONS and url.hostname and url.port != 0
    except ValueError:
        usable = False
    if not usable or not str(address).isascii() or not str(address).isprintable():
        raise BadRequest(f'"callback" is {json.dumps(address)}; it must be like http://host/path')
    return url


def factors(number: object) -> list[int]:
    """Return the primes whose product a number is, in order.

    >>> factors(12)
    [2, 2, 3]
    """
    if not isinstance(number, int) or isinstance(number, bool) or not 2 <= number <= LARGEST:  # noqa: PLR2004 (the smallest prime)
        raise BadRequest(f'"number" is {json.dumps(number)}; it must be from 2 to {LARGEST}')
    found, divisor = [], 2
    while divisor * divisor <= number:
        while number % divisor == 0:
            found.append(divisor)
            number //= divisor
        divisor += 1 if divisor == 2 else 2  # noqa: PLR2004 (the only even one)
    return [*found, number] if number > 1 else found


def outcome(request: Mapping[str, Any], call_id: str) -> dict[str, Any]:
    """Return what the receiver is told: the factors, or why there are none."""
    told = {"call_id": call_id, "number": request.get("number")}
    try:
        return told | {"factors": factors(request.get("number"))}
    except BadRequest as problem:
        return told | {"error": str(problem)}


def headers(body: bytes, call_id: str, secret: str) -> dict[str, str]:
    """Return the headers of a callback."""
    signed = hmac.digest(secret.encode(), body, hashlib.sha256).hex()
    signature = {"X-Signature": f"sha256={signed}"} if secret else {}
    return {"Content-Type": "application/json", "X-Call-Id": call_id} | signature


def post(url: SplitResult, body: bytes, fields: Mapping[str, str]) -> None:
    """Hand the outcome over, once. Raises NotTaken, or NotTakenNow if another attempt may help."""
    target = (url.path or "/") + (f"?{url.query}" if url.query else "")
    connection = CONNECTIONS[url.scheme](url.hostname or "", url.port, timeout=CALLBACK_TIMEOUT_S)
    try:
        connection.request("POST", target, body, dict(fields))
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        why = str(error) or type(error).__name__
        raise NotTakenNow(f"{url.geturl()} does not answer: {why}") from None
    finally:
        connection.close()
    if status >= http.client.INTERNAL_SERVER_ERROR or status == http.client.TOO_MANY_REQUESTS:
        raise NotTakenNow(f"{url.geturl()} answers {status}")
    if status >= http.client.MULTIPLE_CHOICES:
        raise NotTaken(f"{url.geturl()} answers {status}")


def persist(attempt: Callable[[], None], sleep: Callable[[float], None]) -> None:
    """Try until it works or no further attempt is left."""
    for pause_s in PAUSES_S:
        try:
            attempt()
        except NotTakenNow as problem:
            sys.stderr.write(f"{problem}; again in {pause_s:g} s\n")
            sleep(pause_s)
        else:
            return
    attempt()


def main() -> int:
    """Serve one call; return the exit code."""
    call_id = os.environ.get("CALL_ID", "")
    secret = os.environ.get("CALLBACK_SECRET", "")
    try:
        request = parse_request(sys.stdin.buffer.read())
        callback = parse_callback(request.get("callback"))
        body = json.dumps(outcome(request, call_id)).encode()
        persist(lambda: post(callback, body, headers(body, call_id, secret)), time.sleep)
    except Problem as problem:
        sys.stderr.write(f"{problem}\n")
        return problem.exit_code
    sys.stdout.buffer.write(body + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

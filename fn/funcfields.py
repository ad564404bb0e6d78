"""Which fields does a function's file have, and what may stand in each? Pure: one table."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Any, Callable

from fn import pairs, spelling
from fn.errors import FnError

SEMVER = re.compile(r"\d+\.\d+\.\d+(?:-[0-9A-Za-z.-]+)?")
_NAME = re.compile(r"[a-z0-9][a-z0-9._/:@-]*")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

FORMATS = ("default", "http", "json", "http-stream")
TYPES = ("sync", "async")
ISOLATIONS = ("sandbox", "network", "call")
#: What the platform takes, least and most.
MEMORY_MB = (6, 1024 * 1024)
TIMEOUT_S = (1, 24 * 60 * 60)
MAX_CONCURRENCY = (1, 10_000)
MIN_SANDBOXES = (0, 100)
MAX_ATTEMPTS = (1, 20)
RETRIES = (0, 20)


class Wrong(ValueError):
    """A field has a value that it cannot have."""

    def __init__(self, message: str, part: object = None, hint: str = "") -> None:
        """`part`: the key, the index or the path of them inside of the value that is wrong."""
        super().__init__(message)
        self.part, self.hint = part, hint


@dataclass(frozen=True)
class Rule:
    """What a field takes: its check gives the value in the platform's terms, or raises `Wrong`."""

    check: Callable[[Any], Any]
    example: str
    sentence: str
    #: Another name for that field; "" for its own.
    name: str = ""


def text(value: object) -> str:
    """Take text; a number or a truth value is one too, as it is written in YAML."""
    if isinstance(value, bool):
        return str(value).lower()
    if value is None:
        return ""
    if isinstance(value, (str, int, float)):
        return str(value)
    raise Wrong("must be a text")


def name(value: object) -> str:
    """Take an image's name without tag and digest."""
    written = text(value)
    last = written.rpartition("/")[2]
    if ":" in last or "@" in last:
        bare = written[: len(written) - len(last)] + re.split("[:@]", last)[0]
        raise Wrong(
            f"is {written}: a name has no tag", hint=f"Write name: {bare} and the version below it."
        )
    if not _NAME.fullmatch(written) or written.endswith("/") or "//" in written:
        raise Wrong(f"is {written!r}: small letters, digits, `.`, `_`, `-` and `/` make a name")
    return written


def version(value: object) -> str:
    """Take a version of three numbers."""
    written = text(value)
    if not SEMVER.fullmatch(written):
        raise Wrong(f"is {written!r}: it has to be three numbers")
    return written


def one_of(*words: str) -> Callable[[object], str]:
    """Take one of some words."""

    def check(value: object) -> str:
        written = text(value)
        if written not in words:
            near = spelling.suggestion(written, words)
            raise Wrong(f"is {written!r}: it is one of {', '.join(words)}{near}")
        return written

    return check


def whole(least: int, most: int) -> Callable[[object], int]:
    """Take a whole number from `least` to `most`."""

    def check(value: object) -> int:
        written = "" if value is None else str(value).strip()
        if isinstance(value, bool) or not re.fullmatch(r"-?\d+", written):
            raise Wrong(f"is {written!r}: it has to be a whole number, without a unit")
        if int(written) < least:
            raise Wrong(f"is {written}: at least {least} is needed")
        if int(written) > most:
            raise Wrong(f"is {written}: at most {most} is possible")
        return int(written)

    return check


def cores(value: object) -> float:
    """Take a number of CPU cores."""
    try:
        number = float(str(value))
    except ValueError:
        number = 0.0
    if isinstance(value, bool) or not 0.01 <= number <= 1024:  # noqa: PLR2004 (the platform's own)
        raise Wrong(f"is {str(value)!r}: it has to be a number of cores from 0.01 to 1024")
    return number


def duration(value: object) -> int:
    """Take a duration from a second to a day; return whole seconds."""
    try:
        found = pairs.duration_s(text(value).strip(), "")
    except FnError:
        raise Wrong(f"is {text(value)!r}: it has to be whole seconds, like 30s or 1m30s") from None
    if not found:
        raise Wrong("is 0: at least 1s is needed")
    if found > TIMEOUT_S[1]:
        raise Wrong(f"is {text(value)!r}: at most 24h is possible")
    return found


def texts(value: object) -> list[str]:
    """Take a list of texts, or one text."""
    if not isinstance(value, list):
        return [text(value)]
    found = []
    for index, item in enumerate(value):
        if isinstance(item, (list, dict)):
            raise Wrong("must be a list of texts", index)
        found.append(text(item))
    return found


def command(value: object) -> list[str] | str:
    """Take a command line as one text, or its words as a list."""
    if isinstance(value, list):
        return texts(value)
    written = text(value)
    try:
        shlex.split(written)
    except ValueError:
        raise Wrong(f"is {written!r}: a quote in it does not end") from None
    return written


def path(value: object) -> str:
    """Take the path of a route."""
    written = text(value)
    if not written.startswith("/"):
        raise Wrong(f"is {written!r}: it begins with /", hint=f"Write path: /{written}")
    if ":" in written:
        raise Wrong(f"is {written!r}: a path without `:` is needed")
    return written


def config(value: object) -> dict[str, str]:
    """Take a mapping of texts."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Wrong("must be a mapping of names to texts")
    found = {}
    for key, item in value.items():
        if isinstance(item, (list, dict)):
            raise Wrong(f"has no text for `{key}`", key)
        found[str(key)] = text(item)
    return found


def headers(value: object) -> dict[str, list[str]]:
    """Take a mapping of header names to a text or a list of texts."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Wrong("must be a mapping of header names to texts")
    found = {}
    for key, item in value.items():
        if not _HEADER.fullmatch(str(key)):
            raise Wrong(f"has {str(key)!r}, which is no header's name", key)
        if isinstance(item, dict):
            raise Wrong(f"has neither a text nor a list for `{key}`", key)
        found[str(key)] = texts(item)
    return found


def tests(value: object) -> list[dict[str, Any]]:
    """Take a list of tests."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise Wrong("must be a list: each test begins with -")
    return [_test(item, index) for index, item in enumerate(value)]


def _test(item: object, index: int) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise Wrong("must be a list of mappings", index)
    found = {}
    for key, written in item.items():
        if key not in TEST_FIELDS:
            near = spelling.suggestion(str(key), TEST_FIELDS)
            hint = f"A test has {', '.join(TEST_FIELDS)}."
            raise Wrong(f"has a test with unknown field `{key}`{near}", (index, key), hint)
        try:
            found[str(key)] = TEST_FIELDS[str(key)].check(written)
        except Wrong as error:
            hint = f"For example: {TEST_FIELDS[str(key)].example}"
            raise Wrong(f"has a test whose `{key}` {error}", (index, key), hint) from None
    if {"in", "in_file"} <= set(found) or {"out", "out_file"} <= set(found):
        raise Wrong("has a test with a text and a file for the same", index)
    return found


#: What a test says of one call.
TEST_FIELDS: dict[str, Rule] = {
    "name": Rule(text, "name: greets", "What it shows."),
    "in": Rule(text, "in: World", "The body."),
    "in_file": Rule(text, "in_file: photo.jpg", "A file with the body, beside func.yaml."),
    "out": Rule(text, "out: Hello, World!", "The whole answer; line ends at its end do not count."),
    "out_file": Rule(text, "out_file: small.jpg", "A file with the answer, byte by byte."),
    "err": Rule(text, "err: no such city", "What its log has to contain; the call may fail then."),
    "env": Rule(config, "env: {CITY: Rome}", "Variables; through the platform, request headers."),
    "headers": Rule(config, "headers: {Accept: text/plain}", "Headers of the request."),
    "method": Rule(text, "method: GET", "Of the request; POST without it."),
    "status": Rule(whole(100, 599), "status: 404", "The status of the answer, in hot formats."),
}

#: All fields, in the order in which they are told.
FIELDS: dict[str, Rule] = {
    "name": Rule(name, "name: me/greet", "The image, without its tag."),
    "version": Rule(version, "version: 0.0.1", "The image's tag; `fn bump` raises it."),
    "runtime": Rule(text, "runtime: python", "Language, with a version if need be; or `docker`."),
    "entrypoint": Rule(command, "entrypoint: python3 func.py", "What is started, without a shell."),
    "cmd": Rule(command, "cmd: --verbose", "Its arguments."),
    "base": Rule(
        text, "base: python:3.12-slim", "The image it stands on, instead of the runtime's."
    ),
    "build_base": Rule(text, "build_base: golang:1.22", "The image it is built in, instead."),
    "build": Rule(
        texts, "build: [make]", "Lines for `/bin/sh`, run here before the image is built."
    ),
    "type": Rule(one_of(*TYPES), "type: sync", "Whether callers wait for the answer."),
    "format": Rule(one_of(*FORMATS), "format: default", "How a call reaches the process."),
    "path": Rule(path, "path: /greet", "Where its route is."),
    "memory": Rule(whole(*MEMORY_MB), "memory: 128", "MB it may use."),
    "cpus": Rule(cores, "cpus: 0.5", "Cores it may use."),
    "timeout": Rule(duration, "timeout: 30s", "How long a call may take."),
    "idle_timeout": Rule(duration, "idle_timeout: 1m30s", "How long an idle sandbox is kept."),
    "max_concurrency": Rule(
        whole(*MAX_CONCURRENCY), "max_concurrency: 4", "Most hot sandboxes on one runner."
    ),
    "min_sandboxes": Rule(
        whole(*MIN_SANDBOXES), "min_sandboxes: 1", "Sandboxes each runner keeps ready."
    ),
    "max_attempts": Rule(
        whole(*MAX_ATTEMPTS),
        "max_attempts: 5",
        "Most attempts of an async call, if the platform fails it.",
    ),
    "retries": Rule(
        whole(*RETRIES), "retries: 2", "Attempts of an async call after failures of its own."
    ),
    "retry_delay": Rule(duration, "retry_delay: 10s", "Wait before the second attempt; it grows."),
    "isolation": Rule(
        one_of(*ISOLATIONS), "isolation: sandbox", "Whether calls share a container, or a network."
    ),
    "headers": Rule(headers, "headers: {Content-Type: text/html}", "Of each answer."),
    "config": Rule(config, "config: {DB: $DB_URL}", "Environment; `$NAME` is the deployer's."),
    "jwt_key": Rule(text, "jwt_key: a long secret", "Signs the tokens that callers need then."),
    "tests": Rule(tests, "tests: [{in: World, out: Hello}]", "What `fn test` tries."),
    "run_image": Rule(text, "base: python:3.12-slim", "The Fn Project's name of `base`.", "base"),
    "build_image": Rule(
        text, "build_base: golang:1.22", "The Fn Project's name of `build_base`.", "build_base"
    ),
}

#: Fields of the Fn Project's files that mean nothing here, and what to do instead.
FOREIGN = {
    "schema_version": "`schema_version` is the Fn Project's; it is passed over",
    "triggers": "`triggers` are the Fn Project's; say path: /greet instead",
    "annotations": "`annotations` are the Fn Project's; they are passed over",
    "expects": "`expects` is the Fn Project's; it is passed over",
    "content_type": "`content_type` is the Fn Project's; say headers: {Content-Type: ...} instead",
}

#: The fields that a route has too, under the same names; image and config are made elsewhere.
ROUTE_FIELDS = (
    "type", "format", "memory", "cpus", "timeout", "idle_timeout", "max_concurrency",
    "min_sandboxes", "max_attempts", "retries", "retry_delay", "isolation", "headers", "jwt_key",
)  # fmt: skip

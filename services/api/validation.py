"""Which apps and routes are allowed? Pure rules, with the words that clients know.

Each function raises `Invalid` with all that is wrong, or returns nothing.
"""

import re
from typing import Any, get_args

from services.api import headers, paths
from services.api.models import App, Route
from services.api.problems import BadRequest
from shared import environment, messages

APP_NAME_MAX = 30
PATH_MAX = 512
#: The longest name, the longest tag and a digest fit.
IMAGE_MAX = 512
JWT_KEY_MAX = 4096
#: Container engines refuse to make a container with less than 6 MB.
MEMORY_MIN_MB, MEMORY_MAX_MB = 6, 1024 * 1024
CPUS_MIN, CPUS_MAX = 0.01, 1024.0
TIMEOUT_MAX_S = 24 * 60 * 60
MAX_CONCURRENCY_MAX = 10_000
MIN_SANDBOXES_MAX = 100
MAX_ATTEMPTS_MAX = RETRIES_MAX = 20
RETRY_DELAY_MAX_S = 60 * 60
MAX_INFLIGHT_MAX = 1_000_000
#: From one call in a quarter of an hour on.
RATE_MIN, RATE_MAX = 0.001, 1_000_000
CONFIG_MAX_BYTES = 256 * 1024
HEADERS_MAX_BYTES = 16 * 1024

_APP_NAME = re.compile(r"[A-Za-z0-9_-]+\Z")
#: Fields that are one of some words.
_WORDS = {
    "type": get_args(messages.Mode),
    "format": get_args(messages.Format),
    "isolation": get_args(messages.Isolation),
}


class Invalid(BadRequest):
    """The app or route breaks rules."""

    def __init__(self, failures: list[str], *, nesting: int) -> None:
        """`nesting`: how often the list says that it is one (apps once, routes twice)."""
        super().__init__("validation failure list:\n" * nesting + "\n".join(failures))


def check_app(app: App) -> None:
    """Check an app, new or changed."""
    failures = _name_failures(app.name) + _config_failures(app.config or {}, "app")
    if failures := failures + _limit_failures(app):
        raise Invalid(failures, nesting=1)


def _limit_failures(app: App) -> list[str]:
    failures = [
        f"Invalid app {name}: 0 (no limit) or from {least} to {most} {unit}"
        for name, value, least, most, unit in (
            ("max_inflight", app.max_inflight, 1, MAX_INFLIGHT_MAX, "calls"),
            ("rate", app.rate, RATE_MIN, RATE_MAX, "calls a second"),
            ("burst", app.burst, 1, MAX_INFLIGHT_MAX, "calls"),
        )
        if value and not least <= value <= most
    ]
    if app.burst and not app.rate:
        failures.append("Invalid app burst: it belongs to a rate; set rate, too, or burst to 0")
    return failures


def _name_failures(name: str) -> list[str]:
    if not name:
        return ["Missing app name"]
    if len(name) > APP_NAME_MAX:
        return [f"App name must be {APP_NAME_MAX} characters or less"]
    return [] if _APP_NAME.match(name) else ["Invalid app name"]


def check_new_route(app: str, fields: dict[str, Any]) -> None:
    """Check the fields of a new route, and the name of the app that may be made for it."""
    if name_failures := _name_failures(app):
        raise Invalid(name_failures, nesting=1)
    failures = [] if fields.get("image") else ["Missing route Image"]
    _refuse(failures + _path_failures(fields.get("path", "")) + _field_failures(fields))


def check_changed_fields(fields: dict[str, Any]) -> None:
    """Check the fields of a PATCH; zero and empty ones change nothing, so they pass."""
    _refuse(_field_failures(fields))


def check_route(route: Route) -> None:
    """Check a whole route: what grows by merging must not grow for ever."""
    size = sum(len(k) + len(v) for k, values in route.headers.items() for v in values)
    failures = _config_failures(route.config, "route")
    if size > HEADERS_MAX_BYTES:
        failures.append(
            f"Invalid route Headers: {size} characters, at most {HEADERS_MAX_BYTES} are possible"
        )
    _refuse(failures)


def _refuse(failures: list[str]) -> None:
    if failures:
        raise Invalid(failures, nesting=2)


def _path_failures(path: str) -> list[str]:
    if not path:
        return ["Missing route Path"]
    if paths.is_malformed(path):
        return ["Path malformed"]
    if len(paths.stored(path)) > PATH_MAX:
        return [f"Path malformed: at most {PATH_MAX} characters are possible"]
    if paths.stored(path).endswith(" "):
        return ["Path malformed: it ends in a space; leave that out"]
    failures = ["Dynamic URL is not allowed"] if ":" in paths.stored(path) else []
    return failures if path.startswith("/") else [*failures, "Invalid Path format"]


def _field_failures(fields: dict[str, Any]) -> list[str]:
    failures: list[str] = []
    if len(fields.get("image", "")) > IMAGE_MAX:
        failures.append(f"Invalid route Image: at most {IMAGE_MAX} characters")
    for name, known in _WORDS.items():
        if fields.get(name, "") not in {"", *known}:
            failures.append(f"Invalid route {name.capitalize()}")
    if len(fields.get("jwt_key", "")) > JWT_KEY_MAX:
        failures.append(f"Invalid route JwtKey: at most {JWT_KEY_MAX} characters")
    return failures + _number_failures(fields) + _header_failures(fields.get("headers", {}))


def _number_failures(fields: dict[str, Any]) -> list[str]:
    limits = (
        ("timeout", "timeout", 1, TIMEOUT_MAX_S, "seconds"),
        ("idle_timeout", "idle timeout", 1, TIMEOUT_MAX_S, "seconds"),
        ("max_concurrency", "MaxConcurrency", 1, MAX_CONCURRENCY_MAX, "containers"),
        ("min_sandboxes", "MinSandboxes", 0, MIN_SANDBOXES_MAX, "sandboxes"),
        ("max_attempts", "MaxAttempts", 1, MAX_ATTEMPTS_MAX, "attempts"),
        ("retries", "Retries", 0, RETRIES_MAX, "retries"),
        ("retry_delay", "RetryDelay", 1, RETRY_DELAY_MAX_S, "seconds"),
        ("memory", "Memory", MEMORY_MIN_MB, MEMORY_MAX_MB, "MB"),
        ("cpus", "CPUs", CPUS_MIN, CPUS_MAX, "cores"),
    )
    failures = []
    for name, words, least, most, unit in limits:
        value = fields.get(name, 0)
        if value < 0:
            failures.append(f"Negative {words}")
        elif value and not least <= value <= most:
            failures.append(f"Invalid route {words}: from {least} to {most} {unit}")
    return failures


def _header_failures(given: dict[str, list[str]]) -> list[str]:
    failures = []
    for name, values in given.items():
        if not headers.is_name(name):
            failures.append(f"Invalid route Headers: {name!r} is no header name")
        elif name.lower() in headers.OWN:
            failures.append(f"Invalid route Headers: {name} is decided by the platform")
        elif not all(map(headers.is_value, values)):
            failures.append(f"Invalid route Headers: {name} has a line break or control character")
    return failures


def _config_failures(config: dict[str, str], whose: str) -> list[str]:
    failures = [
        f"Invalid {whose} config: {key!r} cannot name an environment variable"
        for key in config
        if not key or "=" in key or "\0" in key
    ]
    failures += [
        f"Invalid {whose} config: {key} has a zero byte"
        for key, value in config.items()
        if "\0" in value
    ]
    if (size := environment.size_bytes(config)) > CONFIG_MAX_BYTES:
        failures.append(f"Invalid {whose} config: {size} bytes, at most {CONFIG_MAX_BYTES}")
    elif key := environment.oversized(config):
        most = environment.VARIABLE_MAX_BYTES
        failures.append(f"Invalid {whose} config: {key} is too long, at most {most} bytes")
    return failures

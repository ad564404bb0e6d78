"""Which platform is meant, and how is it reached? Environment, then the chosen context, then here.

Contexts are kept in one YAML file, `$XDG_CONFIG_HOME/millrace/contexts.yaml`, which only its owner
can read, since there are keys in it.
"""

from __future__ import annotations

import dataclasses
import difflib
import io
import os
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fn.errors import FnError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT = "default"
DEFAULT_URL = "http://localhost:8080"
#: Field of a context -> the environment variable that wins over it.
VARIABLES = {
    "api_url": "API_URL",
    "jwt_auth_key": "JWT_AUTH_KEY",
    "ssl_skip_verify": "SSL_SKIP_VERIFY",
    "hub": "HUB",
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_TRUE, _FALSE = {"1", "t", "true", "yes", "on"}, {"", "0", "f", "false", "no", "off"}


@dataclass(frozen=True)
class Context:
    """How one platform is reached."""

    #: Scheme, host, port and perhaps a prefix, without a slash at its end.
    api_url: str = DEFAULT_URL
    #: What management tokens are signed with; "" if the platform asks for none.
    jwt_auth_key: str = ""
    ssl_skip_verify: bool = False
    #: host:port of the registry; "" if the platform is to be asked.
    hub: str = ""


@dataclass(frozen=True)
class Saved:
    """What the file has: contexts by name, and which one is in use."""

    current: str = DEFAULT
    contexts: dict[str, Context] = field(default_factory=dict)


def current() -> Context:
    """Return how the platform is reached now. Raises `FnError` for what is written wrongly."""
    return chosen(load(file()), os.environ)


def file(environ: Mapping[str, str] = os.environ) -> Path:
    """Return where contexts are kept."""
    base = environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
    return Path(base) / "millrace" / "contexts.yaml"


def chosen(saved: Saved, environ: Mapping[str, str]) -> Context:
    """Return the context in use, with what the environment says put over it.

    >>> chosen(Saved(), {"API_URL": "fn.example.com"}).api_url
    'http://fn.example.com'
    """
    given = {name: environ[var] for name, var in VARIABLES.items() if environ.get(var)}
    return with_fields(saved.contexts.get(saved.current, Context()), given, VARIABLES)


def with_fields(context: Context, given: Mapping[str, Any], labels: Mapping[str, str]) -> Context:
    """Return the context with other fields, checked; `labels` says what a mistake calls each."""
    checked: dict[str, Any] = {
        name: _CHECKS[name](value, labels[name]) for name, value in given.items()
    }
    return dataclasses.replace(context, **checked)


def check_name(name: str) -> str:
    """Return a name that a new context can have. Raises `FnError`."""
    if name == DEFAULT:
        raise FnError(
            f"{DEFAULT!r} is what there is without a context", "Give it another name, such as prod"
        )
    if not _NAME.fullmatch(name):
        raise FnError(f"a context cannot be called {name!r}", "Use letters, digits, '.', '_', '-'")
    return name


def load(path: Path) -> Saved:
    """Return what a file has; nothing if there is none. Raises `FnError` with file and line."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Saved()
    except (OSError, UnicodeDecodeError) as error:
        raise FnError(f"cannot read {path}: {_why(error)}", _broken_hint(path)) from error
    return _Reader(path).saved(text)


def save(path: Path, saved: Saved) -> None:
    """Write the file, whole or not at all, for its owner's eyes alone."""
    document = {
        "current": saved.current,
        "contexts": {name: _told(context) for name, context in saved.contexts.items()},
    }
    text = io.StringIO()
    _yaml("safe").dump(document, text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=".contexts-")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text.getvalue())
        Path(fresh).replace(path)
    except OSError as error:
        raise FnError(f"cannot write {path}: {_why(error)}") from error


def _told(context: Context) -> dict[str, Any]:
    told = dataclasses.asdict(context)
    return {name: value for name, value in told.items() if value or name == "api_url"}


def _yaml(kind: str) -> Any:  # noqa: ANN401 (ruamel's own)
    from ruamel.yaml import YAML  # noqa: PLC0415 (most commands need none of it)

    yaml = YAML(typ=kind, pure=True)
    yaml.default_flow_style = False
    return yaml


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _broken_hint(path: Path) -> str:
    return f"Correct it, or remove it and add your contexts again: rm {path}"


class _Reader:
    """Reads one file; knows on which line each key stands."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def saved(self, text: str) -> Saved:
        from ruamel.yaml.error import MarkedYAMLError, YAMLError  # noqa: PLC0415 (as above)

        try:
            document = _yaml("rt").load(text)
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise self._wrong(mark.line if mark else 0, str(error.problem)) from error
        except YAMLError as error:
            raise self._wrong(0, str(error).partition("\n")[0]) from error
        if document is None:
            return Saved()
        self._check_mapping(document, 0, "the file")
        self._check_keys(document, ("current", "contexts"))
        contexts = self._contexts(document)
        name = document.get("current") or DEFAULT
        if name != DEFAULT and name not in contexts:
            raise self._wrong(self._line(document, "current"), f"no context is called {name!r}")
        return Saved(str(name), contexts)

    def _contexts(self, document: Any) -> dict[str, Context]:  # noqa: ANN401 (ruamel's own)
        found = document.get("contexts") or {}
        self._check_mapping(found, self._line(document, "contexts"), "contexts")
        return {str(name): self._context(found, name) for name in found}

    def _context(self, found: Any, name: Any) -> Context:  # noqa: ANN401 (ruamel's own)
        fields = found[name]
        self._check_mapping(fields, self._line(found, name), f"context {name}")
        self._check_keys(fields, tuple(VARIABLES))
        checked = {key: self._checked(fields, key) for key in fields}
        return dataclasses.replace(Context(), **checked)

    def _checked(self, fields: Any, key: str) -> Any:  # noqa: ANN401 (ruamel's own)
        try:
            return _CHECKS[key](fields[key], key)
        except FnError as error:
            raise self._wrong(self._line(fields, key), error.message) from error

    def _check_mapping(self, value: Any, line: int, what: str) -> None:  # noqa: ANN401 (as above)
        if not isinstance(value, dict):
            raise self._wrong(line, f"{what} must have lines `key: value`")

    def _check_keys(self, mapping: Any, known: tuple[str, ...]) -> None:  # noqa: ANN401 (as above)
        for key in mapping:
            if key not in known:
                close = difflib.get_close_matches(str(key), known, n=1)
                meant = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"
                raise self._wrong(self._line(mapping, key), f"unknown key {str(key)!r}{meant}")

    @staticmethod
    def _line(mapping: Any, key: Any) -> int:  # noqa: ANN401 (as above)
        return int(mapping.lc.key(key)[0]) if key in mapping else 0

    def _wrong(self, line: int, what: str) -> FnError:
        return FnError(f"{self._path}:{line + 1}: {what}", _broken_hint(self._path))


def url(value: Any, label: str) -> str:  # noqa: ANN401 (whatever stands in a file)
    """Return the address of an API as it is used: with a scheme, without `/v1`.

    >>> url("localhost:8080/v1/", "API_URL")
    'http://localhost:8080'
    """
    text = str(value).strip()
    whole = text if "://" in text else f"http://{text.lstrip('/')}"
    try:
        parts = urlsplit(whole)
        good = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        good = None
    if not good or re.search(r"\s", whole):
        raise FnError(
            f"{label} is no address of an API: {text!r}", f"Write it as {label}={DEFAULT_URL}"
        )
    path = re.sub(r"(/v1)?/*$", "", parts.path)
    return f"{parts.scheme}://{parts.netloc}{path}"


def switch(value: Any, label: str) -> bool:  # noqa: ANN401 (whatever stands in a file)
    """Return what a switch says: true, 1, yes or on, and their opposites."""
    text = str(value).strip().lower()
    if text not in _TRUE | _FALSE:
        raise FnError(f"{label} must be true or false, not {value!r}")
    return text in _TRUE


def hub_address(value: Any, label: str) -> str:  # noqa: ANN401 (whatever stands in a file)
    """Return the address of a registry: host, perhaps port, perhaps a folder; no scheme."""
    text = re.sub(r"^https?://", "", str(value).strip()).rstrip("/")
    if not re.fullmatch(r"[A-Za-z0-9.\[\]:_-]+(/[a-z0-9._/-]+)?", text):
        raise FnError(f"{label} is no address of a registry: {value!r}", "Write it as host:5000")
    return text


def _text(value: Any, label: str) -> str:  # noqa: ANN401 (whatever stands in a file)
    if not isinstance(value, str):
        raise FnError(f"{label} must be text: put it in quotes")
    return value


_CHECKS: dict[str, Callable[[Any, str], Any]] = {
    "api_url": url,
    "jwt_auth_key": _text,
    "ssl_skip_verify": switch,
    "hub": hub_address,
}

"""What may stand here? The shell asks at each press of the tab key, so this is silent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fn.errors import FnError

if TYPE_CHECKING:
    import click


def apps(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return the apps whose names begin so."""
    return _beginning(incomplete, _listed("/v1/apps", "apps", "name"))


def routes(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Return the paths of the app's routes that begin so."""
    from fn import platform  # noqa: PLC0415 (only when the shell asks)

    app = context.params.get("app")
    if not app:
        return []
    return _beginning(incomplete, _listed(platform.app_path(app, "/routes"), "routes", "path"))


def runners(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return the names and ids of runners that begin so."""
    named = [_listed("/v1/runners", "runners", field) for field in ("name", "id")]
    return sorted({name for names in named for name in _beginning(incomplete, names)})


def saved_contexts(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return the contexts whose names begin so."""
    from fn import contexts  # noqa: PLC0415 (only when the shell asks)

    try:
        return _beginning(incomplete, [contexts.DEFAULT, *contexts.load(contexts.file()).contexts])
    except FnError:
        return []


def _beginning(incomplete: str, names: list[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _listed(path: str, what: str, field: str) -> list[str]:
    from fn import platform  # noqa: PLC0415 (only when the shell asks)

    try:
        found: list[dict[str, Any]] = platform.current().ask("GET", path)[what]
    except FnError:
        return []
    return [str(item[field]) for item in found]

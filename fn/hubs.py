"""Which registry do images go to: the environment's, the context's, or the platform's own?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fn import contexts, imagenames, platform
from fn.errors import Exit, FnError

if TYPE_CHECKING:
    from fn.funcfile import FuncFile


def address(file: FuncFile) -> str:
    """Return the hub for a function's image, "" if its name has a registry or no hub is known.

    A platform that does not answer knows none: building and running need no platform.
    """
    if imagenames.registry_of(file.name):
        return ""
    context = contexts.current()
    if context.hub:
        return context.hub
    try:
        return str(platform.Platform(context).ask("GET", "/v1/version").get("hub") or "")
    except FnError as error:
        if error.code in {Exit.UNREACHABLE, Exit.REFUSED}:
            return ""
        raise


def require(file: FuncFile, hub: str) -> None:
    """Raise `FnError` if there is no registry that a function's image could be pushed to."""
    if not hub and not imagenames.registry_of(file.name):
        raise FnError(
            f"there is no hub to push {file.name} to",
            "Name one: HUB=host:5000; without one, --skip-push will do if runners use this engine.",
            Exit.UNREACHABLE,
        )

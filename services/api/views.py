"""How are apps and routes told to clients? Pure; the shapes are `schemas.AppView`, `RouteView`."""

from typing import Any

from services.api.models import App, Route


def app(app: App) -> dict[str, Any]:
    """Return an app as JSON tells it, its config in order; without limits as IronFunctions does."""
    limits = {"max_inflight": app.max_inflight, "rate": app.rate, "burst": app.burst}
    return {
        "name": app.name,
        "config": None if app.config is None else _sorted(app.config),
        **{name: value for name, value in limits.items() if value},
    }


def route(route: Route) -> dict[str, Any]:
    """Return a route as JSON tells it."""
    return {
        "app_name": route.app,
        "path": route.path,
        "image": route.image,
        "previous_images": list(route.previous_images),
        "memory": route.memory,
        "cpus": route.cpus,
        "headers": _sorted(route.headers),
        "type": route.type,
        "format": route.format,
        "isolation": route.isolation,
        "max_concurrency": route.max_concurrency,
        "timeout": route.timeout,
        "idle_timeout": route.idle_timeout,
        "min_sandboxes": route.min_sandboxes,
        "max_attempts": route.max_attempts,
        "retries": route.retries,
        "retry_delay": route.retry_delay,
        "config": _sorted(route.config),
        "jwt_key": route.jwt_key,
    }


def _sorted(mapping: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(mapping.items()))

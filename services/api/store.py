"""How are apps and routes kept? The only module with their SQL.

Each change moves the app's catalog version, inside its transaction and again after it.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from pymysql import err

from services.api import cursors
from services.api.cursors import Page
from services.api.database import Cursor, Database
from services.api.models import App, Route
from services.api.problems import AppNotFound, BadRequest, Conflict, RouteNotFound
from services.api.versions import Versions

T = TypeVar("T")
Row = dict[str, Any]

_ROUTE_FIELDS = (
    "image",
    "memory",
    "cpus",
    "headers",
    "type",
    "format",
    "max_concurrency",
    "timeout",
    "idle_timeout",
    "config",
    "jwt_key",
    "isolation",
    "min_sandboxes",
    "previous_images",
    "max_attempts",
    "retries",
    "retry_delay",
)
_JSON_FIELDS = {"headers", "config", "previous_images"}
_ROUTE_COLUMNS = ", ".join(f"r.`{name}`" for name in _ROUTE_FIELDS)
_APP_COLUMNS = "a.name, a.config AS app_config, a.max_inflight, a.rate, a.burst"
_SELECT_APPS = f"SELECT {_APP_COLUMNS} FROM apps a"  # noqa: S608 (names of our own)
_SET_APP = "config = %s, max_inflight = %s, rate = %s, burst = %s"
_DUPLICATE, _HAS_CHILDREN = 1062, 1451


class Store:
    """Apps and routes in MySQL.

    Raises `Unavailable` when MySQL or, for a change, Redis is away; then nothing has changed,
    unless MySQL went away during the very commit.
    """

    def __init__(self, database: Database, versions: Versions) -> None:
        """Read and write `database`, and tell `versions` of changes."""
        self._database, self._versions = database, versions
        self._changes: set[asyncio.Task[Any]] = set()
        self._changed: Callable[[str], None] = lambda _: None

    def tell_changes(self, changed: Callable[[str], None]) -> None:
        """Call `changed` with an app's name after each change of it or of its routes."""
        self._changed = changed

    async def close(self) -> None:
        """Wait for changes under way."""
        await asyncio.gather(*self._changes, return_exceptions=True)

    async def read_for_call(self, app: str, path: str) -> tuple[App, Route]:
        """Return an app and its route. Raises `AppNotFound`, `RouteNotFound`."""
        _check_end(app, path)
        async with self._database.reading() as cursor:
            await cursor.execute(
                f"SELECT {_APP_COLUMNS}, r.app_name, r.path, {_ROUTE_COLUMNS}"  # noqa: S608 (names of our own)
                " FROM apps a LEFT JOIN routes r ON r.app_name = a.name AND r.path = %s"
                " WHERE a.name = %s",
                (path, app),
            )
            row = await cursor.fetchone()
        if row is None:
            raise AppNotFound
        if row["path"] is None:
            raise RouteNotFound
        return _app(row), _route(row)

    async def app(self, name: str) -> App:
        """Return an app. Raises `AppNotFound`."""
        _check_end(name)
        async with self._database.reading() as cursor:
            return await _app_row(cursor, f"{_SELECT_APPS} WHERE a.name = %s", name)

    async def apps(self, page: Page) -> tuple[list[App], str]:
        """Return a page of apps by name, and the cursor of the next page or ""."""
        after = cursors.decode(page.cursor, str) if page.cursor else ("",)
        async with self._database.reading() as cursor:
            await cursor.execute(
                f"{_SELECT_APPS} WHERE a.name > %s ORDER BY a.name{_limit(page)}", after
            )
            rows = [_app(row) for row in await cursor.fetchall()]
        return _cut(rows, page, lambda app: (app.name,))

    async def routes(
        self, page: Page, app: str | None, image: str | None
    ) -> tuple[list[Route], str]:
        """Return a page of routes by app and path, and the cursor of the next page or "".

        `app` and `image` narrow it; None is all.
        """
        after = cursors.decode(page.cursor, str, str) if page.cursor else ("", "")
        if app is not None and app.endswith(" "):
            return [], ""
        where = "(r.app_name > %s OR (r.app_name = %s AND r.path > %s))"
        values = [after[0], *after]
        for column, value in (("app_name", app), ("image", image)):
            if value is not None:
                where += f" AND r.{column} = %s"
                values.append(value)
        async with self._database.reading() as cursor:
            await cursor.execute(
                f"SELECT r.app_name, r.path, {_ROUTE_COLUMNS} FROM routes r WHERE {where}"  # noqa: S608
                f" ORDER BY r.app_name, r.path{_limit(page)}",
                values,
            )
            rows = [_route(row) for row in await cursor.fetchall()]
        return _cut(rows, page, lambda route: (route.app, route.path))

    async def route(self, app: str, path: str) -> Route:
        """Return a route. Raises `AppNotFound`, `RouteNotFound`."""
        return (await self.read_for_call(app, path))[1]

    async def apps_with_wanted(self) -> list[str]:
        """Return the names of apps that have routes whose sandboxes are kept ready."""
        async with self._database.reading() as cursor:
            await cursor.execute("SELECT DISTINCT app_name FROM routes WHERE min_sandboxes > 0")
            return [row["app_name"] for row in await cursor.fetchall()]

    async def wanted_routes(self, apps: Sequence[str]) -> list[tuple[App, Route]]:
        """Return those routes of some apps, each with its app."""
        marks = ", ".join(["%s"] * len(apps))
        async with self._database.reading() as cursor:
            await cursor.execute(
                f"SELECT {_APP_COLUMNS}, r.app_name, r.path, {_ROUTE_COLUMNS}"  # noqa: S608 (names of our own)
                " FROM routes r JOIN apps a ON a.name = r.app_name"
                f" WHERE r.min_sandboxes > 0 AND r.app_name IN ({marks})",
                list(apps),
            )
            return [(_app(row), _route(row)) for row in await cursor.fetchall()]

    async def create_app(self, app: App) -> None:
        """Keep a new app. Raises `Conflict`.

        An app that a route made on its way, and that nobody gave a config since, is still to be
        made: so it can be deployed to first, and be made with its config then, as guides have it.
        """
        await self._complete(self._create_app(app))

    async def update_app(self, name: str, change: Callable[[App], App]) -> App:
        """Replace an app by what `change` makes of it; returns that. Raises `AppNotFound`.

        Concurrent changes of one app happen one after the other; so for routes.
        """
        _check_end(name)
        return await self._complete(self._update_app(name, change))

    async def delete_app(self, name: str) -> None:
        """Remove an app. Raises `AppNotFound`, or `BadRequest` if it has routes."""
        _check_end(name)
        await self._complete(self._delete_app(name))

    async def create_route(self, route: Route) -> None:
        """Keep a new route, and make its app if there is none. Raises `Conflict`."""
        await self._complete(self._create_route(route))

    async def update_route(self, app: str, path: str, change: Callable[[Route], Route]) -> Route:
        """Replace a route by what `change` makes of it; returns that.

        Raises `AppNotFound`, `RouteNotFound`.
        """
        _check_end(app, path)
        return await self._complete(self._update_route(app, path, change))

    async def delete_route(self, app: str, path: str) -> None:
        """Remove a route. Raises `AppNotFound`, `RouteNotFound`."""
        _check_end(app, path)
        await self._complete(self._delete_route(app, path))

    async def _complete(self, change: Coroutine[Any, Any, T]) -> T:
        """Carry a change through even if its client leaves.

        Between the commit and the second move of the version it must not stop.
        """
        task = asyncio.create_task(change, name="catalog-change")
        self._changes.add(task)
        task.add_done_callback(self._changes.discard)
        return await asyncio.shield(task)

    @asynccontextmanager
    async def _changing(self, app: str) -> AsyncIterator[Cursor]:
        moved = False
        try:
            async with self._database.transaction() as cursor:
                yield cursor
                await self._versions.move(app)
                moved = True
        finally:
            if moved:
                await self._versions.move_after(app)
                self._changed(app)

    async def _create_app(self, app: App) -> None:
        async with self._changing(app.name) as cursor:
            try:
                await cursor.execute(
                    "INSERT INTO apps (name, config, max_inflight, rate, burst)"
                    " VALUES (%s, %s, %s, %s, %s)",
                    (app.name, *_app_values(app)),
                )
            except err.IntegrityError as error:
                if not (app != App(app.name) and await _complete_app(cursor, app)):
                    raise _conflict(error, "App already exists") from error

    async def _update_app(self, name: str, change: Callable[[App], App]) -> App:
        async with self._changing(name) as cursor:
            query = f"{_SELECT_APPS} WHERE a.name = %s FOR UPDATE"
            app = change(await _app_row(cursor, query, name))
            await cursor.execute(
                f"UPDATE apps SET {_SET_APP} WHERE name = %s",  # noqa: S608 (names of our own)
                (*_app_values(app), name),
            )
        return app

    async def _delete_app(self, name: str) -> None:
        async with self._changing(name) as cursor:
            try:
                await cursor.execute("DELETE FROM apps WHERE name = %s", (name,))
            except err.IntegrityError as error:
                if error.args[0] != _HAS_CHILDREN:
                    raise
                raise BadRequest("Cannot remove apps with routes") from error
            if not cursor.rowcount:
                raise AppNotFound

    async def _create_route(self, route: Route) -> None:
        columns = ", ".join(f"`{name}`" for name in ("app_name", "path", *_ROUTE_FIELDS))
        marks = ", ".join(["%s"] * (2 + len(_ROUTE_FIELDS)))
        async with self._changing(route.app) as cursor:
            await cursor.execute(
                "INSERT INTO apps (name) VALUES (%s) ON DUPLICATE KEY UPDATE name = name",
                (route.app,),
            )
            try:
                await cursor.execute(
                    f"INSERT INTO routes ({columns}) VALUES ({marks})",  # noqa: S608
                    (route.app, route.path, *_values(route)),
                )
            except err.IntegrityError as error:
                raise _conflict(error, "Route already exists") from error

    async def _update_route(self, app: str, path: str, change: Callable[[Route], Route]) -> Route:
        sets = ", ".join(f"`{name}` = %s" for name in _ROUTE_FIELDS)
        async with self._changing(app) as cursor:
            await cursor.execute(
                f"SELECT r.app_name, r.path, {_ROUTE_COLUMNS} FROM routes r"  # noqa: S608
                " WHERE r.app_name = %s AND r.path = %s FOR UPDATE",
                (app, path),
            )
            row = await cursor.fetchone()
            if row is None:
                raise await _missing(cursor, app)
            route = change(_route(row))
            await cursor.execute(
                f"UPDATE routes SET {sets} WHERE app_name = %s AND path = %s",  # noqa: S608
                (*_values(route), app, path),
            )
        return route

    async def _delete_route(self, app: str, path: str) -> None:
        async with self._changing(app) as cursor:
            await cursor.execute(
                "DELETE FROM routes WHERE app_name = %s AND path = %s", (app, path)
            )
            if not cursor.rowcount:
                raise await _missing(cursor, app)


def _check_end(app: str, path: str = "") -> None:
    """Raise `AppNotFound` or `RouteNotFound` for a name that ends in a space.

    There are none, but MySQL compares without spaces at the end, and would take them for others,
    whose versions then stay as they are.
    """
    if app.endswith(" "):
        raise AppNotFound
    if path.endswith(" "):
        raise RouteNotFound


async def _app_row(cursor: Cursor, query: str, name: str) -> App:
    await cursor.execute(query, (name,))
    row = await cursor.fetchone()
    if row is None:
        raise AppNotFound
    return _app(row)


async def _complete_app(cursor: Cursor, app: App) -> bool:
    """Give config and limits to an app that has routes and neither; return whether there is one."""
    await cursor.execute(
        f"UPDATE apps SET {_SET_APP} WHERE name = %s AND config IS NULL"  # noqa: S608 (names of our own)
        " AND max_inflight = 0 AND rate = 0 AND burst = 0"
        " AND EXISTS (SELECT 1 FROM routes WHERE app_name = apps.name)",
        (*_app_values(app), app.name),
    )
    return bool(cursor.rowcount)


async def _missing(cursor: Cursor, app: str) -> Exception:
    """Return what to say when a route is not there."""
    await cursor.execute("SELECT 1 FROM apps WHERE name = %s", (app,))
    return RouteNotFound() if await cursor.fetchone() else AppNotFound()


def _conflict(error: err.IntegrityError, words: str) -> Exception:
    return Conflict(words) if error.args[0] == _DUPLICATE else error


def _limit(page: Page) -> str:
    """Return SQL that reads one row more than the page has: is there a next one?"""
    return "" if page.limit is None else f" LIMIT {page.limit + 1}"


def _cut(rows: list[T], page: Page, key: Callable[[T], tuple[str, ...]]) -> tuple[list[T], str]:
    if page.limit is None or len(rows) <= page.limit:
        return rows, ""
    rows = rows[: page.limit]
    return rows, cursors.encode(*key(rows[-1]))


def _json(text: str | None) -> Any:  # noqa: ANN401 (a column's value)
    return None if text is None else json.loads(text)


def _text(value: object) -> str | None:
    return None if value is None else json.dumps(value, ensure_ascii=False)


def _app(row: Row) -> App:
    return App(
        row["name"], _json(row["app_config"]), row["max_inflight"], row["rate"], row["burst"]
    )


def _app_values(app: App) -> tuple[Any, ...]:
    return _text(app.config), app.max_inflight, app.rate, app.burst


def _values(route: Route) -> list[Any]:
    pairs = ((name, getattr(route, name)) for name in _ROUTE_FIELDS)
    return [_text(value) if name in _JSON_FIELDS else value for name, value in pairs]


def _route(row: Row) -> Route:
    fields = {n: _json(row[n]) if n in _JSON_FIELDS else row[n] for n in _ROUTE_FIELDS}
    fields["previous_images"] = tuple(fields["previous_images"] or ())
    return Route(app=row["app_name"], path=row["path"], **fields)

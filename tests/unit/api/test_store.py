"""What does the store say of names that MySQL would take for others?"""

from contextlib import AbstractAsyncContextManager
from typing import NoReturn, cast

import pytest

from services.api.cursors import Page
from services.api.database import Cursor, Database
from services.api.models import App, Route
from services.api.problems import AppNotFound, RouteNotFound
from services.api.store import Store
from services.api.versions import Versions


class NoDatabase:
    """Fails the test of who asks it."""

    def reading(self) -> AbstractAsyncContextManager[Cursor]:
        raise AssertionError("MySQL was asked")

    transaction = reading


def unchanged(_: object) -> NoReturn:
    raise AssertionError("nothing is to be changed")


@pytest.fixture
def store() -> Store:
    return Store(cast("Database", NoDatabase()), Versions(unchanged))


async def test_a_space_behind_an_apps_name_is_another_app(store: Store) -> None:
    """MySQL found the app; a change of it then moved the version of a name that nobody has."""
    with pytest.raises(AppNotFound):
        await store.app("demo ")
    with pytest.raises(AppNotFound):
        await store.read_for_call("demo ", "/a")
    with pytest.raises(AppNotFound):
        await store.update_app("demo ", lambda app: App(app.name))
    with pytest.raises(AppNotFound):
        await store.delete_app("demo ")
    with pytest.raises(AppNotFound):
        await store.delete_route("demo ", "/a")
    assert await store.routes(Page(), "demo ", None) == ([], "")


async def test_a_space_behind_a_routes_path_is_another_route(store: Store) -> None:
    with pytest.raises(RouteNotFound):
        await store.read_for_call("demo", "/a ")
    with pytest.raises(RouteNotFound):
        await store.update_route("demo", "/a ", lambda _: Route("demo", "/a", "i"))
    with pytest.raises(RouteNotFound):
        await store.delete_route("demo", "/a ")

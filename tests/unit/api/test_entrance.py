"""Which requests take the short way, and do they get where the long one leads?"""

import pytest

from services.api import entrance
from services.api.handlers import invoke


@pytest.mark.parametrize(
    ("address", "place", "app", "path"),
    [
        ("/r/a/b", invoke.PLACE, "a", "/b"),
        ("/r/a/b/c.d~e/", invoke.PLACE, "a", "/b/c.d~e"),
        ("/r/a//b/../c", invoke.PLACE, "a", "/c"),
        ("/r/my-app_1/", invoke.PLACE, "my-app_1", "/"),
        ("/r/a", invoke.ROOT_PLACE, "a", "/"),
    ],
)
def test_a_plain_address_names_app_and_path(address: str, place: str, app: str, path: str) -> None:
    assert entrance.read(address) == (place, invoke.Target(app, path))


@pytest.mark.parametrize(
    "address",
    ["/", "/r", "/r/", "/r//b", "/v1/apps", "/r/a/%2Fb", "/r/%61/b", "/r/a/b\n", "/r/a/ü", "/ra/b"],
)
def test_anything_unusual_takes_the_long_way(address: str) -> None:
    assert entrance.read(address) == entrance.NOWHERE

"""Who needs a token for what? Management with a key of the platform, calls with one of a route."""

from collections.abc import Callable
from typing import Any

import aiohttp
import jwt
import pytest

from shared import clock
from tests.e2e.client import Client
from tests.e2e.conftest import JWT_AUTH_KEY
from tests.e2e.platforms import Service

Image = Callable[[str], str]


def bearer(key: str, algorithm: str = "HS256", **claims: Any) -> dict[str, str]:
    """Return the header with a token signed by a key."""
    return {"Authorization": f"Bearer {jwt.encode(claims, key, algorithm)}"}


@pytest.fixture
def guarded(guarded_api: Service, http: aiohttp.ClientSession) -> Client:
    """A caller of the replica that asks for tokens."""
    return Client(http, guarded_api.url)


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
class TestManagement:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/v1/apps"),
            ("POST", "/v1/apps"),
            ("GET", "/v1/apps/x"),
            ("GET", "/v1/routes"),
            ("GET", "/v1/apps/x/routes"),
            ("GET", "/v1/apps/x/calls"),
            ("GET", "/v1/calls/01938f6e-0000-7000-8000-000000000000"),
            ("GET", "/tasks"),
            ("DELETE", "/tasks"),
            ("GET", "/stats"),
        ],
    )
    async def test_needs_a_token(self, guarded: Client, method: str, path: str) -> None:
        answer = await guarded.ask(method, path)
        assert answer.status == 401
        assert answer.json() == {"error": "Invalid API Authorization token."}

    async def test_takes_a_good_one(self, guarded: Client) -> None:
        claims = {"exp": int(clock.epoch_ms() / 1000) + 60}
        assert (await guarded.get("/v1/apps", headers=bearer(JWT_AUTH_KEY, **claims))).status == 200
        assert (await guarded.get("/stats", headers=bearer(JWT_AUTH_KEY))).status == 200

    @pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
    async def test_takes_any_hs(self, guarded: Client, algorithm: str) -> None:
        headers = bearer(JWT_AUTH_KEY, algorithm)
        assert (await guarded.get("/v1/apps", headers=headers)).status == 200

    async def test_refuses_bad_ones(self, guarded: Client) -> None:
        now_s = int(clock.epoch_ms() / 1000)
        for headers in (
            bearer("another key, also long enough for it"),
            bearer(JWT_AUTH_KEY, exp=now_s - 100),
            bearer(JWT_AUTH_KEY, nbf=now_s + 1000),
            {"Authorization": f"Bearer {jwt.encode({}, '', 'none')}"},
            {"Authorization": "Bearer x.y.z"},
            {"Authorization": ""},
        ):
            assert (await guarded.get("/v1/apps", headers=headers)).status == 401, headers

    @pytest.mark.parametrize("path", ["/", "/version", "/healthz", "/readyz"])
    async def test_some_pages_are_open(self, guarded: Client, path: str) -> None:
        assert (await guarded.get(path)).status == 200

    async def test_calls_need_none(
        self, guarded: Client, client: Client, app: str, function_image: Image
    ) -> None:
        path = await client.deploy(app, "/x", function_image("exec cat"))
        assert (await guarded.post(path, data=b"x")).body == b"x"


@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
class TestRoute:
    @pytest.fixture
    async def path(self, client: Client, app: str, function_image: Image) -> str:
        return await client.deploy(app, "/x", function_image("exec cat"), jwt_key="secret")

    async def test_needs_a_token(self, client: Client, path: str) -> None:
        answer = await client.post(path)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == 'Bearer realm=""'
        assert answer.message == "no token present in request"

    async def test_takes_a_good_one_with_or_without_bearer(self, client: Client, path: str) -> None:
        headers = bearer("secret")
        assert (await client.post(path, data=b"x", headers=headers)).body == b"x"
        plain = {"Authorization": headers["Authorization"].removeprefix("Bearer ")}
        assert (await client.post(path, data=b"x", headers=plain)).body == b"x"

    async def test_says_what_is_wrong(self, client: Client, path: str) -> None:
        now_s = int(clock.epoch_ms() / 1000)
        answer = await client.post(path, headers=bearer("secret", exp=now_s - 100))
        assert (answer.status, answer.message) == (401, "Token is expired")
        answer = await client.post(path, headers=bearer("other"))
        assert (answer.status, answer.message) == (401, "signature is invalid")
